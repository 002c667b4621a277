/* What python.h knows and sends: where things lie in each process, threads, stacks, code; and what it failed to do. */

#ifndef PYTHON_MAX_FRAMES
#define PYTHON_MAX_FRAMES 512
#endif
/* So many frames, from the leaf on, are looked at for code that is new; others are read from user space. */
#ifdef BPF_ITER_NUM_NEW
#define PYTHON_NEW_CODE_FRAMES 64
#else
#define PYTHON_NEW_CODE_FRAMES 32 /* more are long for the verifier of Linux 6.1 */
#endif
#ifndef PYTHON_RING_PAGES
#define PYTHON_RING_PAGES 2048
#endif
#ifndef PYTHON_KNOWN
#define PYTHON_KNOWN 65536
#endif
#define PYTHON_MAX_THREADS 448 /* with more, `trace --stacks` is too long for the verifier of Linux 6.1 */
#ifndef PYTHON_MAX_PROCESSES
#define PYTHON_MAX_PROCESSES 4096
#endif
#define PYTHON_NAME_BYTES 256
#define PYTHON_FILE_BYTES 512
#define PYTHON_TABLE_BYTES 4096
#define PYTHON_BEHIND (1ULL << 63) /* a distance, if not on this stack */
#define PYTHON_MAX_VARIABLES 4
#define PYTHON_VALUE_WORDS 16
#define PYTHON_VALUE_BYTES (8 * PYTHON_VALUE_WORDS)

/* Why a thread has no stack, or not all of it. Mirrored in pystacks/stacks.py. */
enum {
    PYTHON_NO_THREAD_STATE, /* a thread that Python knows nothing of, or not yet */
    PYTHON_NO_FRAME,        /* Python knows it, but it runs no Python function */
    PYTHON_UNREADABLE,      /* something that could not be read, or is no frame */
    PYTHON_TRUNCATED,       /* deeper than PYTHON_MAX_FRAMES */
    PYTHON_STACK_LOST,      /* no room in the ring buffer */
    PYTHON_CODE_LOST,
    PYTHON_BUSY, /* an event within an event */
    PYTHON_TOO_MANY_THREADS, /* its state is not among the first PYTHON_MAX_THREADS, and glibc does not tell it */
    PYTHON_CHILD_LOST, /* no room for a child process, or for the news of it */
    PYTHON_LABELS_LOST, /* no room in the ring buffer for the labels of a stack */
    PYTHON_REASONS
};

#define PYTHON_STACK_CUT 1    /* flags of a stack: deeper than shown */
#define PYTHON_STACK_BROKEN 2 /* the rest could not be read */

#define PYTHON_GC_FIRST 1 /* of the youngest generation, the next two */
#define PYTHON_GC_UNKNOWN 4

#define PYTHON_TARGET_FOLLOW 1 /* flags of a target: its children are targets, too */

#define PYTHON_RECORD_STACK 1
#define PYTHON_RECORD_CODE 2
#define PYTHON_RECORD_EXEC 3 /* a target has become another program */
#define PYTHON_RECORD_FORK 4 /* a target has a child, which is a target now */
#define PYTHON_RECORD_LABELS 5

#define PYTHON_AWAITED_BY 1 /* as a frame's code: a task that awaits the one before begins */

/* What a value is. Mirrored in pystacks/labels.py. */
enum { PYTHON_VALUE_ABSENT, PYTHON_VALUE_STR, PYTHON_VALUE_INT, PYTHON_VALUE_NONE, PYTHON_VALUE_OTHER };

/* The values of a stack's labels, in this order. */
enum {
    PYTHON_TASK_NAME,
    PYTHON_TASK_COROUTINE,
    PYTHON_FIRST_VARIABLE,
    PYTHON_VALUES = PYTHON_FIRST_VARIABLE + PYTHON_MAX_VARIABLES
};

/* Where things lie in one process. Offsets are in bytes; pystacks/stacks.py fills it in from
 * cpython/versions.py. */
struct python_target {
    u64 runtime;   /* address of _PyRuntime; 0: no Python, or not yet */
    u64 code_type; /* address of PyCode_Type */
    u64 gil;       /* address of the GIL; 0 if each interpreter points to one */
    u32 flags;
    u16 thread_record; /* how far before what the thread pointer points to pthread_self() lies */
    s16 thread_slot; /* from pthread_self() on, the thread's own state as glibc holds it; 0: unknown */
    u16 interpreters_head;
    u16 runtime_current; /* the state that has the GIL; 0 from 3.12 on */
    u16 interp_next;
    u16 interp_threads;
    u16 interp_gil;
    u16 gil_holder;
    u16 gil_locked;
    u16 thread_next;
    u16 thread_interp;
    u16 thread_id;
    u16 thread_frame;
    u16 thread_cframe; /* 3.10 to 3.12: leads to a structure on the C stack; else 0 */
    u16 thread_status; /* from 3.13 on; else 0 */
    u16 cframe_frame; /* in 3.11 and 3.12 `thread_frame` leads to a structure on the C stack; else 0xffff */
    u16 cframe_previous;
    u16 frame_bytes;
    u16 frame_previous;
    u16 frame_code;
    u16 frame_instruction;
    u16 frame_owner; /* these two: 127, where always a 0 is read, in versions that have none */
    u16 frame_entry; /* 3.11: is it the first of a call from C? */
    u16 frame_generator; /* how far before a generator's frame its state lies */
    u16 code_instructions;
    u16 instruction_is_address; /* a frame holds the address of its instruction; else (0) its number */
    u16 instruction_left;       /* what to shift the difference by to get the instruction's number */
    u16 instruction_right;
    u16 code_bytes;
    u16 code_first_line;
    u16 code_version; /* 0: there is none */
    u16 code_file;
    u16 code_name;
    u16 code_table;
    u16 object_type;
    u16 object_length; /* of str and bytes */
    u16 string_state;
    u16 string_kind_shift;
    u16 string_ascii;
    u16 string_wide;
    u16 bytes_data;
    u16 frame_object; /* 3.11 and 3.12: in a frame */
    u16 generator_runs; /* the state of a generator that runs */
    u16 gc_collecting; /* in PyInterpreterState; 0: unknown */
    u16 gc_in_runtime; /* it lies in _PyRuntimeState instead */
    u16 gc_older; /* how far before it the counts of collections lie; 0: unknown */
    u16 code_flags;
    u16 generator_frame; /* from 3.11 on: how far behind a generator's begin its frame lies */
    u16 frame_of_generator; /* before: in a frame, its generator; else 0 */
};

/* Where python_labels.h finds what labels a process's stacks. Offsets are in bytes. */
struct python_label_source {
    u64 current_tasks; /* the address of a dict; 0: there is none */
    u64 variables[PYTHON_MAX_VARIABLES]; /* addresses; 0: there is none, or not yet */
    u32 hashes[PYTHON_MAX_VARIABLES];
    u16 thread_task; /* from 3.14 on, in a thread's state; else 0 */
    u16 thread_context;
    u16 task_coroutine;
    u16 task_name;
    u16 coroutine_name;
    u16 has_compact_keys; /* so are those of dicts from 3.11 on */
    u16 variable_default;
    u16 task_awaited_by; /* these two: from 3.14 on; else 0 */
    u16 task_awaited_by_is_set;
    u16 function_closure;
    u16 values_kind; /* where instances have their attributes: PYTHON_VALUES_* */
    u16 frame_stack; /* in a frame: the pointer to its stack, or to the top of it; or the depth alone */
    u16 frame_depth; /* in a frame, how deep its stack is; 0: it is not said */
    u16 frame_values; /* where the stack begins in the frame itself */
    u16 awaited_before; /* how far before the top of its stack lies what a coroutine awaits */
    u16 unused;
};

enum { PYTHON_VALUES_POINTED_TO = 1, PYTHON_VALUES_TAGGED, PYTHON_VALUES_INLINE };

struct python_value {
    u32 kind;
    u32 bytes; /* of a str: all of it, also what did not find room */
    u32 width; /* bytes a character */
    u32 unused;
    u64 text[PYTHON_VALUE_WORDS]; /* of a str; of an int its size and digits; else the name of its type */
};

struct python_labels {
    u32 kind;
    u32 tgid;
    u64 id;
    struct python_value values[PYTHON_VALUES];
};

struct python_frame {
    u64 code;
    s32 instruction; /* from the first on, in units of two bytes; before 3.10 of one; below 0: not begun */
    u32 fingerprint;
};

struct python_stack {
    u32 kind;
    u32 tgid;
    u64 id;
    u64 labels; /* the id of its labels; 0: none */
    u64 thread_state;
    u32 tid;
    u32 flags;
    u32 frame_count;
    u32 frame_first; /* those before it do not count */
    u32 thread_frames; /* the frames from this one on are those of tasks that await; 0: there are none */
    u32 task_frames; /* so many of the thread's are the task's, and what it has called */
    u32 collecting; /* the thread collects garbage: PYTHON_GC_*, or the generation; 0: it does not */
    u32 unused;
    struct python_frame frames[PYTHON_MAX_FRAMES]; /* leaf-first; code 0 is none: the interpreter's own frames */
};

struct python_code {
    u32 kind;
    u32 tgid;
    u64 code;
    u64 table; /* address of the line table */
    u32 fingerprint;
    s32 first_line;
    u32 name_bytes;
    u32 name_width; /* bytes a character */
    u32 file_bytes;
    u32 file_width;
    u32 table_bytes; /* all of it; PYTHON_TABLE_BYTES and more are not sent */
    u32 unused;
    u8 name_text[PYTHON_NAME_BYTES];
    u8 file_text[PYTHON_FILE_BYTES];
    u8 table_data[PYTHON_TABLE_BYTES];
};

struct python_process_event {
    u32 kind;
    u32 tgid;
    u32 parent_tgid;
    u32 unused;
};

/* What a walk has found out so far. It is kept in memory and volatile: what goes through memory is forgotten by the
 * kernel's verifier, which else looks at all that follows once for each number of frames. */
struct python_progress {
    u64 hash;
    u64 base;          /* a frame that the chain must lead to */
    u64 leaf_previous; /* what comes after the leaf, if the leaf itself does not say yet */
    u32 is_sure;       /* the chain has led there, or need not */
    u32 is_beyond_coroutines; /* from here on, they are not of the leaf-most chain */
    u64 coroutine;       /* root-most of the leaf-most chain of coroutines */
    u64 outer_coroutine; /* root-most of all */
    u64 coroutine_frames; /* so many frames up to the first of these */
};

/* Where in the chain of awaiting tasks we are. */
struct python_awaiting {
    u64 task;
    u64 frame; /* of one of its coroutines, the next to be taken in; 0: the next task is */
    u64 tasks; /* how many there were */
};

/* The state of a thread, as far as it is known. It is kept in memory for the same reason. */
struct python_search {
    u64 interp;
    u64 thread_state;
    u64 stack_pointer;
    u64 distance; /* of this state */
    u64 other;    /* is it another thread's? */
    u64 own;      /* the best of its own so far */
    u64 own_distance;
    u64 nearest; /* the best of the others' */
    u64 nearest_distance;
    u64 busy;
};

#ifdef NATIVE
/* Where evaluation loops were entered, leaf-first: what is known of the loop's place on the C stack, and how many Python
 * frames lie from the leaf to there. */
struct python_entries {
    u64 addresses[PYTHON_MAX_FRAMES];
    u16 frames[PYTHON_MAX_FRAMES];
    u32 count;
    u32 frame_count;
};
#endif

struct python_walk {
    struct python_stack stack;
    struct python_progress progress;
    struct python_labels labels; /* what follows is more than a text may have: see python_bounded */
    u8 frame[128];
    u8 code[256];
    u64 registers[REGISTERS_WITH_POINTERS];
    struct python_awaiting awaiting;
#ifdef NATIVE
    struct python_entries entries;
#endif
    u32 busy;
    u32 unused;
};

BPF_TABLE("hash", u32, struct python_target, python_targets, PYTHON_MAX_PROCESSES);
BPF_TABLE("lru_hash", u32, u64, python_threads, 16384);
BPF_TABLE("lru_hash", u64, u32, python_stacks_seen, PYTHON_KNOWN);
BPF_TABLE("lru_hash", u64, u32, python_codes_seen, PYTHON_KNOWN);
BPF_PERCPU_ARRAY(python_searches, struct python_search, 1);
BPF_PERCPU_ARRAY(python_walks, struct python_walk, 1);
BPF_PERCPU_ARRAY(python_codes, struct python_code, 1);
BPF_PERCPU_ARRAY(python_missed, u64, PYTHON_REASONS);
BPF_RINGBUF_OUTPUT(python_records, PYTHON_RING_PAGES);
/* Things that were seen before user space forgot them are sent again: [0] is raised by it. */
BPF_ARRAY(python_epoch, u32, 1);

static inline void python_count(int reason)
{
    u64 *count = python_missed.lookup(&reason);
    if (count)
        *count += 1;
}

static inline u64 python_read(u64 address)
{
    u64 value = 0;
    bpf_probe_read_user(&value, sizeof(value), (void *)address);
    return value;
}

static inline u64 python_mix(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 29);
}

/* A watched process, or NULL. One without a runtime is none: only its children are to be. */
static inline struct python_target *python_of(u32 tgid)
{
    struct python_target *target = python_targets.lookup(&tgid);
    return target && target->runtime ? target : NULL;
}

/* The one that runs right now. */
static inline struct python_target *python_current(void)
{
    return python_of(current_ids().tgid);
}
