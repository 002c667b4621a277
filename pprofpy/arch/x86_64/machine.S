# What runs inside the target, assembled by scripts/machine_code.py into machine_code.py. Position-independent, and
# constant: all that differs between two attaches is data. It needs no tracer to finish: whenever pprofpy dies, the
# borrowed thread goes on through `finish` by itself and leaves nothing behind.

# The frame, on the borrowed thread's own stack below its red zone; rbx and rsp point to it at `borrow`.
# It starts with the saved registers in the order of the kernel's struct user_regs_struct. It is all that this stack must
# have room for, which may be a small one: pthread_create is called on a stack that is mapped for it.
    .set NEW_MASK, 216
    .set OLD_MASK, 224
    .set PTHREAD_CREATE, 232
    .set XSAVE_BYTES, 240
    .set REGION_BYTES, 248
    .set GATE_SIGNAL, 256
    .set REGION, 264            # out: its address, or a negative errno
    .set CREATED, 272           # out: what pthread_create returned
    .set LOOK_IN, 280           # a living tracer finishes; otherwise the thread does by itself
    .set PENDING, 288           # scratch
    .set SHORT_PAUSE, 296       # struct timespec

    .set STACK_BYTES, 0x40000   # only what is touched takes memory

# The region, mapped for one attach; the new thread unmaps it at its end.
    .set READY, 0               # set from outside once the region is filled
    .set CANCEL, 8              # set from outside: nobody waits for the answer any more
    .set STAGE, 16
    .set KEEP, 24               # set from outside: 1 still reading the answer, 2 have it
    .set ANSWER, 32             # address, length
    .set KIND, 48               # address, length
    .set BYTES, 64
    .set THREAD, 72
    .set PAUSE, 80              # struct timespec
    .set PATIENCE, 96           # so many pauses the answer is kept for somebody who reads it
    .set CALLS, 104             # addresses of functions, in this order
    .set PTHREAD_SELF, CALLS
    .set PTHREAD_DETACH, CALLS+8
    .set PY_IS_INITIALIZED, CALLS+16
    .set PY_GILSTATE_ENSURE, CALLS+24
    .set PY_GILSTATE_RELEASE, CALLS+32
    .set PY_DICT_NEW, CALLS+40
    .set PY_RUN_STRING_FLAGS, CALLS+48
    .set PY_DEC_REF, CALLS+56
    .set PY_DICT_GET_ITEM_STRING, CALLS+64
    .set PY_BYTES_AS_STRING, CALLS+72
    .set PY_BYTES_SIZE, CALLS+80
    .set PY_ERR_CLEAR, CALLS+88
    .set PY_EVAL_SAVE_THREAD, CALLS+96
    .set PY_EVAL_RESTORE_THREAD, CALLS+104
    .set ANSWER_NAME, 256
    .set KIND_NAME, 272
    .set ATTRIBUTES, 288        # musl's pthread_attr_t; zeros: none
    .set CODE, 352

# Stages of the new thread.
    .set STARTED, 1
    .set DONE, 2
    .set UNREADY, 3             # there is no initialized interpreter
    .set FAILED, 4              # there is no new thread; ANSWER has the reason

    .set SYS_mmap, 9
    .set SYS_munmap, 11
    .set SYS_rt_sigprocmask, 14
    .set SYS_nanosleep, 35
    .set SYS_rt_sigpending, 127
    .set SYS_gettid, 186
    .set SYS_tkill, 200
    .set SIG_SETMASK, 2
    .set PY_FILE_INPUT, 257

# Where a living tracer looks in: a signal that this process ignores is seen by a tracer and by nobody else.
    .macro gate label
    mov $SYS_gettid, %eax       # as the target's own pid namespace counts
    syscall
    mov %eax, %edi
    mov GATE_SIGNAL(%rbx), %esi
    mov $SYS_tkill, %eax
    syscall
\label:
    .endm

    .text
# -- the borrowed thread: make a region and a thread, and be as before ------------------------------------------------
borrow:
    mov $SYS_rt_sigprocmask, %eax
    mov $SIG_SETMASK, %edi
    lea NEW_MASK(%rbx), %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
blocked:
    mov $STACK_BYTES, %esi
    call map
    mov %rax, REGION(%rbx)
    mov %rax, %r13
    cmp $-4096, %rax
    ja 3f
    lea STACK_BYTES(%r13), %rsp
    sub XSAVE_BYTES(%rbx), %rsp
    xor %eax, %eax
    lea 512(%rsp), %rdi         # the XSAVE header must start as zeros
    mov $8, %ecx
    rep stosq
    or $-1, %eax
    mov %eax, %edx
    xsave64 (%rsp)

    mov REGION_BYTES(%rbx), %rsi
    call map
    mov %rax, REGION(%rbx)
    mov %rax, %r12
    cmp $-4096, %rax
    ja 2f

    gate filled
    cmpq $0, READY(%r12)
    je 1f
    lea THREAD(%r12), %rdi
    xor %esi, %esi
    lea ATTRIBUTES(%r12), %rax
    cmpq $0, (%rax)
    cmovne %rax, %rsi
    lea start(%rip), %rdx
    mov %r12, %rcx
    call *PTHREAD_CREATE(%rbx)
    mov %eax, %eax
    mov %rax, CREATED(%rbx)
    test %eax, %eax
    je 2f                       # from here on the region is the new thread's
    mov %rax, ANSWER(%r12)
    movq $FAILED, STAGE(%r12)
    jmp 2f
1:  mov $SYS_munmap, %eax       # the tracer has died
    mov %r12, %rdi
    mov REGION_BYTES(%rbx), %rsi
    syscall
2:  or $-1, %eax
    mov %eax, %edx
    xrstor64 (%rsp)
    mov %rbx, %rsp
    mov $SYS_munmap, %eax
    mov %r13, %rdi
    mov $STACK_BYTES, %esi
    syscall

3:  cmpq $0, LOOK_IN(%rbx)
    je 4f
    gate finish                 # a living tracer puts everything back here
4:  mov $500, %r12d             # a signal to the process is on its way to another thread: do not snatch it
5:  mov $SYS_rt_sigpending, %eax
    lea PENDING(%rbx), %rdi
    mov $8, %esi
    syscall
    mov OLD_MASK(%rbx), %rax
    not %rax
    and PENDING(%rbx), %rax
    je 6f
    dec %r12d
    je 6f
    mov $SYS_nanosleep, %eax
    lea SHORT_PAUSE(%rbx), %rdi
    xor %esi, %esi
    syscall
    jmp 5b
6:  mov $SYS_rt_sigprocmask, %eax
    mov $SIG_SETMASK, %edi
    lea OLD_MASK(%rbx), %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    lea 8(%rsp), %rsp           # orig_rax
    iretq                       # rip, cs, eflags, rsp, ss at one stroke

# Map so many bytes (rsi): the address, or a negative errno, in rax.
map:
    mov $SYS_mmap, %eax
    xor %edi, %edi
    mov $3, %edx                # PROT_READ | PROT_WRITE
    mov $0x22, %r10d            # MAP_PRIVATE | MAP_ANONYMOUS
    or $-1, %r8
    xor %r9d, %r9d
    syscall
    ret

# -- the new thread: run the code, hand over its answer, and leave nothing ---------------------------------------------
start:
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15                   # 16-byte aligned from here on
    mov %rdi, %rbx
    xor %r13d, %r13d
    call *PTHREAD_SELF(%rbx)
    mov %rax, %rdi
    call *PTHREAD_DETACH(%rbx)
    call *PY_IS_INITIALIZED(%rbx)
    test %eax, %eax
    jne 1f
    movq $UNREADY, STAGE(%rbx)
    call keep
    jmp 4f

1:  call *PY_GILSTATE_ENSURE(%rbx)
    mov %eax, %r12d
    movq $STARTED, STAGE(%rbx)
    mfence
    cmpq $0, CANCEL(%rbx)
    jne 3f
    call *PY_DICT_NEW(%rbx)
    mov %rax, %r13
    test %rax, %rax
    je 2f
    lea CODE(%rbx), %rdi
    mov $PY_FILE_INPUT, %esi
    mov %r13, %rdx
    mov %r13, %rcx
    xor %r8d, %r8d
    call *PY_RUN_STRING_FLAGS(%rbx)
    mov %rax, %rdi
    call *PY_DEC_REF(%rbx)
    call *PY_ERR_CLEAR(%rbx)
    lea ANSWER_NAME(%rbx), %rsi
    lea ANSWER(%rbx), %r15
    call fetch
    lea KIND_NAME(%rbx), %rsi
    lea KIND(%rbx), %r15
    call fetch
2:  call *PY_ERR_CLEAR(%rbx)
    movq $DONE, STAGE(%rbx)
    call *PY_EVAL_SAVE_THREAD(%rbx)
    mov %rax, %r14
    call keep
    mov %r14, %rdi
    call *PY_EVAL_RESTORE_THREAD(%rbx)
3:  mov %r13, %rdi
    call *PY_DEC_REF(%rbx)
    call *PY_ERR_CLEAR(%rbx)
    mov %r12d, %edi
    call *PY_GILSTATE_RELEASE(%rbx)
4:  mov $SYS_munmap, %eax
    mov %rbx, %rdi
    mov BYTES(%rbx), %rsi
    syscall
    xor %eax, %eax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    ret

# Put address and length of the bytes called (rsi) in the namespace r13 into (r15); zeros if there are none.
fetch:
    push %r14
    mov %r13, %rdi
    call *PY_DICT_GET_ITEM_STRING(%rbx)
    mov %rax, %r14
    test %rax, %rax
    je 1f
    mov %rax, %rdi
    call *PY_BYTES_AS_STRING(%rbx)
    test %rax, %rax
    je 1f
    mov %rax, (%r15)
    mov %r14, %rdi
    call *PY_BYTES_SIZE(%rbx)
    mov %rax, 8(%r15)
1:  pop %r14
    ret

# Wait until somebody outside has read the answer, but no longer than PATIENCE pauses after a sign of life.
keep:
    push %r15
1:  mov PATIENCE(%rbx), %r15
2:  xor %eax, %eax
    xchg %rax, KEEP(%rbx)
    cmp $2, %eax
    je 3f
    cmp $1, %eax
    je 1b
    mov $SYS_nanosleep, %eax
    lea PAUSE(%rbx), %rdi
    xor %esi, %esi
    syscall
    dec %r15
    jne 2b
3:  pop %r15
    ret
    .balign 16, 0x90
