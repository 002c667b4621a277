/* What is known of every thread that is followed from switch to switch (switches.h). Mirrored by kernel/switches.py. */

enum { UNSEEN, ON_CPU, OFF_CPU };

struct tracked {
    u64 since_ns; /* it is where it is since then */
    u32 tgid;
    u8 where;
    u8 is_dead;
    u16 unused;
    char comm[16];
};

/* How a thread was woken the last time. Mirrored by kernel/switches.py. */
struct wakeup {
    u64 at_ns; /* 0: not since it last ran */
    u64 stack; /* of Python, of the waker; 0: none */
    u32 tid;   /* the waker; 0: none, an interrupt, or not asked for */
    u32 context;
};
