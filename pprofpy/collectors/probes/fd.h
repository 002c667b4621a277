/* The file that a descriptor of a thread stands for. Needs sched.h; see FD_MEMBERS of kernel/names.py. */
#pragma parameter TASK_FILES FILES_FDT FDT_MAX_FDS FDT_FD FILE_INODE

/* Its address; 0 if there is none. */
static inline u64 file_of_fd(u64 task, u32 fd)
{
    u64 table = read_u64(read_u64(task + TASK_FILES) + FILES_FDT);
    if (fd >= read_u32(table + FDT_MAX_FDS))
        return 0;
    return read_u64(read_u64(table + FDT_FD) + 8ULL * fd);
}
