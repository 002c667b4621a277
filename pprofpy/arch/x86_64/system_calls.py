"""The system calls of x86-64: their numbers, names and arguments.

The kernel's interface to programs is frozen: a number never changes its meaning, there are only new ones. This table
holds on every kernel, also on those that do not describe their system calls (CONFIG_FTRACE_SYSCALLS).

A line is `number name kind:argument ...`. Kinds: `f` file descriptor, `s` string, `p` pointer, `d` int, `u` unsigned
int, `l` long, `z` size, `x` hexadecimal, `o` octal, `sig` signal; other words name a set of constants in
`pprofpy.events.constants`. `?` stands for arguments unknown (calls that no kernel of today has).

Source: linux/arch/x86/entry/syscalls/syscall_64.tbl and the kernel's own events/syscalls/*/format (Linux 6.18).
"""

TABLE = """\
0 read f:fd p:buf z:count
1 write f:fd p:buf z:count
2 open s:filename open:flags o:mode
3 close f:fd
4 stat s:filename p:statbuf
5 fstat f:fd p:statbuf
6 lstat s:filename p:statbuf
7 poll p:ufds u:nfds d:timeout_msecs
8 lseek f:fd l:offset whence:whence
9 mmap x:addr z:len prot:prot mmap:flags f:fd x:off
10 mprotect x:start z:len prot:prot
11 munmap x:addr z:len
12 brk x:brk
13 rt_sigaction sig:sig p:act p:oact z:sigsetsize
14 rt_sigprocmask sigmask:how p:nset p:oset z:sigsetsize
15 rt_sigreturn
16 ioctl f:fd x:cmd x:arg
17 pread64 f:fd p:buf z:count l:pos
18 pwrite64 f:fd p:buf z:count l:pos
19 readv f:fd p:vec z:vlen
20 writev f:fd p:vec z:vlen
21 access s:filename access:mode
22 pipe p:fildes
23 select d:n p:inp p:outp p:exp p:tvp
24 sched_yield
25 mremap x:addr z:old_len z:new_len x:flags x:new_addr
26 msync x:start z:len x:flags
27 mincore x:start z:len p:vec
28 madvise x:start z:len madvise:behavior
29 shmget x:key z:size d:shmflg
30 shmat d:shmid p:shmaddr d:shmflg
31 shmctl d:shmid d:cmd p:buf
32 dup f:fildes
33 dup2 f:oldfd d:newfd
34 pause
35 nanosleep p:rqtp p:rmtp
36 getitimer d:which p:value
37 alarm u:seconds
38 setitimer d:which p:value p:ovalue
39 getpid
40 sendfile f:out_fd f:in_fd p:offset z:count
41 socket family:family socktype:type d:protocol
42 connect f:fd p:uservaddr d:addrlen
43 accept f:fd p:upeer_sockaddr p:upeer_addrlen
44 sendto f:fd p:buff z:len x:flags p:addr d:addr_len
45 recvfrom f:fd p:ubuf z:size x:flags p:addr p:addr_len
46 sendmsg f:fd p:msg x:flags
47 recvmsg f:fd p:msg x:flags
48 shutdown f:fd d:how
49 bind f:fd p:umyaddr d:addrlen
50 listen f:fd d:backlog
51 getsockname f:fd p:usockaddr p:usockaddr_len
52 getpeername f:fd p:usockaddr p:usockaddr_len
53 socketpair family:family socktype:type d:protocol p:usockvec
54 setsockopt f:fd d:level d:optname p:optval d:optlen
55 getsockopt f:fd d:level d:optname p:optval p:optlen
56 clone clone:flags x:newsp p:parent_tidptr p:child_tidptr x:tls
57 fork
58 vfork
59 execve s:filename p:argv p:envp
60 exit d:status
61 wait4 d:upid p:stat_addr d:options p:ru
62 kill d:pid sig:sig
63 uname p:name
64 semget x:key d:nsems d:semflg
65 semop d:semid p:tsops u:nsops
66 semctl d:semid d:semnum d:cmd x:arg
67 shmdt p:shmaddr
68 msgget x:key d:msgflg
69 msgsnd d:msqid p:msgp z:msgsz d:msgflg
70 msgrcv d:msqid p:msgp z:msgsz l:msgtyp d:msgflg
71 msgctl d:msqid d:cmd p:buf
72 fcntl f:fd fcntl:cmd x:arg
73 flock f:fd d:cmd
74 fsync f:fd
75 fdatasync f:fd
76 truncate s:path l:length
77 ftruncate f:fd l:length
78 getdents f:fd p:dirent u:count
79 getcwd p:buf z:size
80 chdir s:filename
81 fchdir f:fd
82 rename s:oldname s:newname
83 mkdir s:pathname o:mode
84 rmdir s:pathname
85 creat s:pathname o:mode
86 link s:oldname s:newname
87 unlink s:pathname
88 symlink s:oldname s:newname
89 readlink s:path p:buf d:bufsiz
90 chmod s:filename o:mode
91 fchmod f:fd o:mode
92 chown s:filename u:user u:group
93 fchown f:fd u:user u:group
94 lchown s:filename u:user u:group
95 umask o:mask
96 gettimeofday p:tv p:tz
97 getrlimit u:resource p:rlim
98 getrusage d:who p:ru
99 sysinfo p:info
100 times p:tbuf
101 ptrace l:request l:pid x:addr x:data
102 getuid
103 syslog d:type p:buf d:len
104 getgid
105 setuid u:uid
106 setgid u:gid
107 geteuid
108 getegid
109 setpgid d:pid d:pgid
110 getppid
111 getpgrp
112 setsid
113 setreuid u:ruid u:euid
114 setregid u:rgid u:egid
115 getgroups d:gidsetsize p:grouplist
116 setgroups d:gidsetsize p:grouplist
117 setresuid u:ruid u:euid u:suid
118 getresuid p:ruidp p:euidp p:suidp
119 setresgid u:rgid u:egid u:sgid
120 getresgid p:rgidp p:egidp p:sgidp
121 getpgid d:pid
122 setfsuid u:uid
123 setfsgid u:gid
124 getsid d:pid
125 capget p:header p:dataptr
126 capset p:header p:data
127 rt_sigpending p:uset z:sigsetsize
128 rt_sigtimedwait p:uthese p:uinfo p:uts z:sigsetsize
129 rt_sigqueueinfo d:pid sig:sig p:uinfo
130 rt_sigsuspend p:unewset z:sigsetsize
131 sigaltstack p:uss p:uoss
132 utime s:filename p:times
133 mknod s:filename o:mode u:dev
134 uselib ?
135 personality u:personality
136 ustat u:dev p:ubuf
137 statfs s:pathname p:buf
138 fstatfs f:fd p:buf
139 sysfs d:option x:arg1 x:arg2
140 getpriority d:which d:who
141 setpriority d:which d:who d:niceval
142 sched_setparam d:pid p:param
143 sched_getparam d:pid p:param
144 sched_setscheduler d:pid d:policy p:param
145 sched_getscheduler d:pid
146 sched_get_priority_max d:policy
147 sched_get_priority_min d:policy
148 sched_rr_get_interval d:pid p:interval
149 mlock x:start z:len
150 munlock x:start z:len
151 mlockall x:flags
152 munlockall
153 vhangup
154 modify_ldt d:func p:ptr x:bytecount
155 pivot_root s:new_root s:put_old
156 _sysctl ?
157 prctl d:option x:arg2 x:arg3 x:arg4 x:arg5
158 arch_prctl d:option x:arg2
159 adjtimex p:txc_p
160 setrlimit u:resource p:rlim
161 chroot s:filename
162 sync
163 acct s:name
164 settimeofday p:tv p:tz
165 mount s:dev_name s:dir_name p:type mount:flags p:data
166 umount2 s:name x:flags
167 swapon s:specialfile x:swap_flags
168 swapoff s:specialfile
169 reboot d:magic1 d:magic2 u:cmd p:arg
170 sethostname p:name d:len
171 setdomainname p:name d:len
172 iopl u:level
173 ioperm x:from x:num d:turn_on
174 create_module ?
175 init_module p:umod z:len s:uargs
176 delete_module s:name_user x:flags
177 get_kernel_syms ?
178 query_module ?
179 quotactl u:cmd s:special u:id p:addr
180 nfsservctl ?
181 getpmsg ?
182 putpmsg ?
183 afs_syscall ?
184 tuxcall ?
185 security ?
186 gettid
187 readahead f:fd l:offset z:count
188 setxattr s:pathname s:name p:value z:size x:flags
189 lsetxattr s:pathname s:name p:value z:size x:flags
190 fsetxattr f:fd s:name p:value z:size x:flags
191 getxattr s:pathname s:name p:value z:size
192 lgetxattr s:pathname s:name p:value z:size
193 fgetxattr f:fd s:name p:value z:size
194 listxattr s:pathname p:list z:size
195 llistxattr s:pathname p:list z:size
196 flistxattr f:fd p:list z:size
197 removexattr s:pathname s:name
198 lremovexattr s:pathname s:name
199 fremovexattr f:fd s:name
200 tkill d:pid sig:sig
201 time p:tloc
202 futex x:uaddr futex:op u:val p:utime p:uaddr2 u:val3
203 sched_setaffinity d:pid u:len p:user_mask_ptr
204 sched_getaffinity d:pid u:len p:user_mask_ptr
205 set_thread_area ?
206 io_setup u:nr_events p:ctxp
207 io_destroy p:ctx
208 io_getevents p:ctx_id l:min_nr l:nr p:events p:timeout
209 io_submit p:ctx_id l:nr p:iocbpp
210 io_cancel p:ctx_id p:iocb p:result
211 get_thread_area ?
212 lookup_dcookie ?
213 epoll_create d:size
214 epoll_ctl_old ?
215 epoll_wait_old ?
216 remap_file_pages x:start x:size x:prot x:pgoff x:flags
217 getdents64 f:fd p:dirent u:count
218 set_tid_address p:tidptr
219 restart_syscall
220 semtimedop d:semid p:tsops u:nsops p:timeout
221 fadvise64 f:fd l:offset z:len d:advice
222 timer_create clock:which_clock p:timer_event_spec p:created_timer_id
223 timer_settime d:timer_id x:flags p:new_setting p:old_setting
224 timer_gettime d:timer_id p:setting
225 timer_getoverrun d:timer_id
226 timer_delete d:timer_id
227 clock_settime clock:which_clock p:tp
228 clock_gettime clock:which_clock p:tp
229 clock_getres clock:which_clock p:tp
230 clock_nanosleep clock:which_clock x:flags p:rqtp p:rmtp
231 exit_group d:status
232 epoll_wait f:epfd p:events d:maxevents d:timeout
233 epoll_ctl f:epfd epoll:op f:fd p:event
234 tgkill d:tgid d:pid sig:sig
235 utimes s:filename p:utimes
236 vserver ?
237 mbind x:start x:len x:mode p:nmask x:maxnode x:flags
238 set_mempolicy d:mode p:nmask x:maxnode
239 get_mempolicy p:policy p:nmask x:maxnode x:addr x:flags
240 mq_open s:u_name x:oflag o:mode p:u_attr
241 mq_unlink s:u_name
242 mq_timedsend d:mqdes p:u_msg_ptr z:msg_len u:msg_prio p:u_abs_timeout
243 mq_timedreceive d:mqdes p:u_msg_ptr z:msg_len p:u_msg_prio p:u_abs_timeout
244 mq_notify d:mqdes p:u_notification
245 mq_getsetattr d:mqdes p:u_mqstat p:u_omqstat
246 kexec_load x:entry x:nr_segments p:segments x:flags
247 waitid d:which d:upid p:infop d:options p:ru
248 add_key s:type s:description p:payload z:plen u:ringid
249 request_key s:type s:description p:callout_info u:destringid
250 keyctl d:option x:arg2 x:arg3 x:arg4 x:arg5
251 ioprio_set d:which d:who d:ioprio
252 ioprio_get d:which d:who
253 inotify_init
254 inotify_add_watch f:fd s:pathname x:mask
255 inotify_rm_watch f:fd d:wd
256 migrate_pages d:pid x:maxnode p:old_nodes p:new_nodes
257 openat f:dfd s:filename open:flags o:mode
258 mkdirat f:dfd s:pathname o:mode
259 mknodat f:dfd s:filename o:mode u:dev
260 fchownat f:dfd s:filename u:user u:group at:flag
261 futimesat f:dfd s:filename p:utimes
262 newfstatat f:dfd s:filename p:statbuf at:flag
263 unlinkat f:dfd s:pathname at:flag
264 renameat f:olddfd s:oldname f:newdfd s:newname
265 linkat f:olddfd s:oldname f:newdfd s:newname at:flags
266 symlinkat s:oldname f:newdfd s:newname
267 readlinkat f:dfd s:pathname p:buf d:bufsiz
268 fchmodat f:dfd s:filename o:mode
269 faccessat f:dfd s:filename access:mode
270 pselect6 d:n p:inp p:outp p:exp p:tsp p:sig
271 ppoll p:ufds u:nfds p:tsp p:sigmask z:sigsetsize
272 unshare clone:flags
273 set_robust_list p:head z:len
274 get_robust_list d:pid p:head_ptr p:len_ptr
275 splice f:fd_in p:off_in f:fd_out p:off_out z:len x:flags
276 tee f:fdin f:fdout z:len x:flags
277 sync_file_range f:fd l:offset l:nbytes x:flags
278 vmsplice f:fd p:uiov x:nr_segs x:flags
279 move_pages d:pid x:nr_pages p:pages p:nodes p:status x:flags
280 utimensat f:dfd s:filename p:utimes at:flags
281 epoll_pwait f:epfd p:events d:maxevents d:timeout p:sigmask z:sigsetsize
282 signalfd f:ufd p:user_mask z:sizemask
283 timerfd_create clock:clockid x:flags
284 eventfd u:count
285 fallocate f:fd d:mode l:offset l:len
286 timerfd_settime f:ufd x:flags p:utmr p:otmr
287 timerfd_gettime f:ufd p:otmr
288 accept4 f:fd p:upeer_sockaddr p:upeer_addrlen socktype:flags
289 signalfd4 f:ufd p:user_mask z:sizemask x:flags
290 eventfd2 u:count x:flags
291 epoll_create1 fdflags:flags
292 dup3 f:oldfd d:newfd fdflags:flags
293 pipe2 p:fildes fdflags:flags
294 inotify_init1 fdflags:flags
295 preadv f:fd p:vec x:vlen x:pos_l x:pos_h
296 pwritev f:fd p:vec x:vlen x:pos_l x:pos_h
297 rt_tgsigqueueinfo d:tgid d:pid sig:sig p:uinfo
298 perf_event_open p:attr_uptr d:pid d:cpu f:group_fd x:flags
299 recvmmsg f:fd p:mmsg u:vlen x:flags p:timeout
300 fanotify_init x:flags x:event_f_flags
301 fanotify_mark f:fanotify_fd x:flags x:mask f:dfd s:pathname
302 prlimit64 d:pid u:resource p:new_rlim p:old_rlim
303 name_to_handle_at f:dfd s:name p:handle p:mnt_id at:flag
304 open_by_handle_at f:mountdirfd p:handle open:flags
305 clock_adjtime clock:which_clock p:utx
306 syncfs f:fd
307 sendmmsg f:fd p:mmsg u:vlen x:flags
308 setns f:fd x:flags
309 getcpu p:cpup p:nodep p:unused
310 process_vm_readv d:pid p:lvec x:liovcnt p:rvec x:riovcnt x:flags
311 process_vm_writev d:pid p:lvec x:liovcnt p:rvec x:riovcnt x:flags
312 kcmp d:pid1 d:pid2 d:type x:idx1 x:idx2
313 finit_module f:fd s:uargs x:flags
314 sched_setattr d:pid p:uattr x:flags
315 sched_getattr d:pid p:uattr u:usize x:flags
316 renameat2 f:olddfd s:oldname f:newdfd s:newname x:flags
317 seccomp u:op x:flags p:uargs
318 getrandom p:ubuf z:len x:flags
319 memfd_create s:uname x:flags
320 kexec_file_load f:kernel_fd f:initrd_fd z:cmdline_len p:cmdline x:flags
321 bpf d:cmd p:uattr u:size
322 execveat f:fd s:filename p:argv p:envp at:flags
323 userfaultfd x:flags
324 membarrier d:cmd x:flags d:cpu_id
325 mlock2 x:start z:len x:flags
326 copy_file_range f:fd_in p:off_in f:fd_out p:off_out z:len x:flags
327 preadv2 f:fd p:vec x:vlen x:pos_l x:pos_h x:flags
328 pwritev2 f:fd p:vec x:vlen x:pos_l x:pos_h x:flags
329 pkey_mprotect x:start z:len prot:prot d:pkey
330 pkey_alloc x:flags x:init_val
331 pkey_free d:pkey
332 statx f:dfd s:filename at:flags x:mask p:buffer
333 io_pgetevents p:ctx_id l:min_nr l:nr p:events p:timeout p:usig
334 rseq p:rseq u:rseq_len x:flags u:sig
335 uretprobe
336 uprobe
424 pidfd_send_signal f:pidfd sig:sig p:info x:flags
425 io_uring_setup u:entries p:params
426 io_uring_enter f:fd u:to_submit u:min_complete x:flags p:argp z:argsz
427 io_uring_register f:fd u:opcode p:arg u:nr_args
428 open_tree f:dfd s:filename x:flags
429 move_mount f:from_dfd s:from_pathname f:to_dfd s:to_pathname x:flags
430 fsopen s:fs_name x:flags
431 fsconfig f:fd u:cmd s:key p:value d:aux
432 fsmount f:fs_fd x:flags x:attr_flags
433 fspick f:dfd s:path x:flags
434 pidfd_open d:pid x:flags
435 clone3 p:uargs z:size
436 close_range f:fd u:max_fd x:flags
437 openat2 f:dfd s:filename p:how z:usize
438 pidfd_getfd f:pidfd d:fd x:flags
439 faccessat2 f:dfd s:filename access:mode at:flags
440 process_madvise f:pidfd p:vec z:vlen d:behavior x:flags
441 epoll_pwait2 f:epfd p:events d:maxevents p:timeout p:sigmask z:sigsetsize
442 mount_setattr f:dfd s:path x:flags p:uattr z:usize
443 quotactl_fd f:fd u:cmd u:id p:addr
444 landlock_create_ruleset p:attr z:size x:flags
445 landlock_add_rule f:ruleset_fd d:rule_type p:rule_attr x:flags
446 landlock_restrict_self f:ruleset_fd x:flags
447 memfd_secret x:flags
448 process_mrelease f:pidfd x:flags
449 futex_waitv p:waiters u:nr_futexes x:flags p:timeout d:clockid
450 set_mempolicy_home_node x:start x:len x:home_node x:flags
451 cachestat f:fd p:cstat_range p:cstat x:flags
452 fchmodat2 f:dfd s:filename o:mode at:flags
453 map_shadow_stack x:addr z:size x:flags
454 futex_wake p:uaddr x:mask d:nr x:flags
455 futex_wait p:uaddr x:val x:mask x:flags p:timeout d:clockid
456 futex_requeue p:waiters x:flags d:nr_wake d:nr_requeue
457 statmount p:req p:buf z:bufsize x:flags
458 listmount p:req p:mnt_ids z:nr_mnt_ids x:flags
459 lsm_get_self_attr u:attr p:ctx p:size x:flags
460 lsm_set_self_attr u:attr p:ctx u:size x:flags
461 lsm_list_modules p:ids p:size x:flags
462 mseal x:start z:len x:flags
463 setxattrat f:dfd s:pathname x:at_flags s:name p:uargs z:usize
464 getxattrat f:dfd s:pathname x:at_flags s:name p:uargs z:usize
465 listxattrat f:dfd s:pathname x:at_flags p:list z:size
466 removexattrat f:dfd s:pathname x:at_flags s:name
467 open_tree_attr f:dfd s:filename x:flags p:uattr z:usize
468 file_getattr f:dfd s:filename p:ufattr z:usize x:at_flags
469 file_setattr f:dfd s:filename p:ufattr z:usize x:at_flags
"""
