/* What is going on: the recording, the control file, and what each thread has left until its next sample. */

/* What a thread's countdown has left is compared with `due`, which is higher in each recording: the same comparison tells
 * that a sample is due, and that the countdown is of an earlier recording or has not begun. */
#define SPAN ((int64_t)1 << 40)  /* more than any countdown: `rate` is 2^34 at most */
#define NOT_DUE (INT64_MIN / 4)  /* due: no recording */
#define NEVER (INT64_MAX / 4)    /* left: it is a thread of ours */
#define NESTED (INT64_MAX / 2)   /* left: within an allocation that counts already */
#define AT_ONCE (INT64_MIN / 2)  /* left: also when there is no recording */
#define PROBE UINT32_MAX

enum { RAW, MEM, OBJ, NUMPY, DOMAINS };
static Allocator originals[DOMAINS] __attribute__((aligned(64))); /* often read: apart from what is often written */
static Allocator *numpy_allocator;
static uint32_t on; /* the number of the recording; 0: none */
static int64_t due = NOT_DUE;

static int32_t users __attribute__((aligned(64))); /* threads inside the tables */
static uint32_t generation; /* of the latest recording */
static int32_t readable;    /* read() may come in, though no recording is on */
static int32_t interning;   /* somebody adds to them */
static double rate;
static int max_depth;
static int control_fd = -1;
static uint64_t control_inode;

static struct {
    PyObject **codes;
    uint32_t count;
} garbage; /* references that could not be given back yet */

typedef struct {
    int64_t left;       /* bytes until the next sample, above `due` */
    uint32_t recording; /* that `left` belongs to; PROBE: see begin_probe() */
    uint32_t tid;
    uint64_t seed;
    void *probed;       /* see begin_probe() */
    int probes;
} Countdown;

LOCAL_FAST Countdown mine;

/* fstat() is no name of its own in glibc before 2.33. */
static uint64_t inode_of(int fd)
{
    struct stat about;
    return fd < 0 || syscall(SYS_fstat, fd, &about) ? 0 : about.st_ino;
}
