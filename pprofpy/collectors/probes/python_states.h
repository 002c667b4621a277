/* Which PyThreadState the current thread is in, and who has the interpreter lock. */

static inline u64 python_leaf_frame(struct python_target *target, u64 thread_state)
{
    u64 frame = python_read(thread_state + target->thread_frame);
    if (frame && target->cframe_frame != PYTHON_NO_CFRAME)
        frame = python_read(frame + target->cframe_frame);
    return frame;
}

/* What glibc's pthread_self() says: the same in all pid namespaces, unlike a thread's number. */
static inline u64 python_thread_ident(struct python_target *target)
{
    u64 ident = 0;
    bpf_probe_read_kernel(&ident, sizeof(ident), (void *)(bpf_get_current_task() + TASK_THREAD_POINTER));
    return ident - target->thread_record;
}

/* A thread that has gone from one interpreter into another has a state with frames in each. How far is this one from
 * being the innermost, the one that it is in right now? The smallest number wins; of equal ones the first that is listed,
 * which is that of the newest interpreter.
 *
 * - From 3.13 on, the state that a thread was in last is marked.
 * - From 3.10 to 3.12 a state that runs leads to a structure on the C stack: the innermost is the nearest.
 * - Before, all that is known is the state that has, or had, the GIL. */
static inline u64 python_distance(struct python_target *target, u64 thread_state, u64 stack_pointer)
{
    if (target->thread_status)
        return ~python_read(thread_state + target->thread_status) & PYTHON_STATUS_BOUND;
    if (target->thread_cframe)
        return python_read(thread_state + target->thread_cframe) - stack_pointer;
    if (python_read(target->runtime + target->runtime_current) == thread_state)
        return 0;
    return python_read(target->gil + target->gil_holder) != thread_state;
}

/* Is it known without a look at the others? */
static inline bool python_is_innermost(struct python_target *target, u64 thread_state)
{
    return target->thread_status && !python_distance(target, thread_state, 0);
}

static inline u64 python_first_interp(struct python_target *target)
{
    return python_read(target->runtime + target->interpreters_head);
}

static inline bool python_is_only_interp(struct python_target *target)
{
    u64 interp = python_first_interp(target);
    return interp && !python_read(interp + target->interp_next);
}

/* Take in one state, or go on to the next interpreter. */
static inline void python_look_at_state(volatile struct python_search *search, struct python_target *target, u64 ident)
{
    u64 here = search->thread_state;
    if (!here) {
        search->interp = python_read(search->interp + target->interp_next);
        search->thread_state = python_read(search->interp + target->interp_threads);
        return;
    }
    search->thread_state = python_read(here + target->thread_next);
    search->other = python_read(here + target->thread_id) ^ ident;
    if (search->other && !target->thread_cframe)
        return;
    search->distance = ~0ULL; /* a state without frames is better than none */
    if (python_leaf_frame(target, here))
        search->distance = python_distance(target, here, search->stack_pointer);
    if (search->other) {
        if (search->distance >= search->nearest_distance)
            return;
        search->nearest = here;
        search->nearest_distance = search->distance;
    } else if (!search->own || search->distance < search->own_distance) {
        search->own = here;
        search->own_distance = search->distance;
    }
}

/* A thread may also be in a state that another thread has made, and that bears the name of that one (until 3.12). But
 * what lies between here and a thread's own structure on the C stack is on its stack. */
static inline u64 python_find_thread_state(struct python_target *target, u64 interp, u64 ident)
{
    int zero = 0;
    struct python_search *search = python_searches.lookup(&zero);
    if (!search)
        return 0;
    if (search->busy) {
        python_count(PYTHON_BUSY);
        return 0;
    }
    search->busy = 1;
    search->interp = interp;
    search->thread_state = python_read(interp + target->interp_threads);
    search->own = 0;
    search->nearest_distance = PYTHON_BEHIND;
    search->stack_pointer = entry_register(entry_registers(), REGISTER_STACK_POINTER);
    LOOP_BELOW(i, PYTHON_MAX_THREADS) {
        if (!((volatile struct python_search *)search)->interp)
            break;
        python_look_at_state(search, target, ident);
    }
    if (!search->own && search->interp) { /* there are more than we went through */
        u64 held = target->thread_slot ? python_read(ident + target->thread_slot) : 0;
        if (held && python_read(held + target->thread_id) == ident)
            search->own = held;
        else if (held || !target->thread_slot)
            python_count(PYTHON_TOO_MANY_THREADS);
        search->nearest_distance = PYTHON_BEHIND;
    }
    u64 own = search->own, own_distance = search->own_distance, nearest_distance = search->nearest_distance;
    u64 found = own && nearest_distance < own_distance && own_distance < PYTHON_BEHIND ? search->nearest : own;
    search->busy = 0;
    return found;
}

/* The current thread's PyThreadState; 0 if Python knows nothing of this thread. */
static inline u64 python_thread_state(struct python_target *target)
{
    u32 tid = current_ids().tid;
    u64 ident = python_thread_ident(target), *known = python_threads.lookup(&tid);
    /* A state that has no frame may have been left: C threads take a new one for each call into Python. */
    if (known && python_read(*known + target->thread_id) == ident && python_leaf_frame(target, *known) &&
        (python_is_innermost(target, *known) || python_is_only_interp(target)))
        return *known;
    u64 found = python_find_thread_state(target, python_first_interp(target), ident);
    if (found)
        python_threads.update(&tid, &found);
    return found;
}

/* The address of the GIL that a thread needs; 0 if unknown. */
static inline u64 python_gil(struct python_target *target, u64 thread_state)
{
    if (target->gil)
        return target->gil;
    u64 interp = python_read(thread_state + target->thread_interp);
    return interp ? python_read(interp + target->interp_gil) : 0;
}

/* Until 3.11 a thread changes from one interpreter to another without a word to the lock: its holder is only the last
 * state that had to take it. */
static inline bool python_holds_gil(struct python_target *target, u64 thread_state)
{
    u64 gil = python_gil(target, thread_state), holder = 0;
    if (!gil || !(u32)python_read(gil + target->gil_locked))
        return false;
    if (target->runtime_current)
        holder = python_read(target->runtime + target->runtime_current);
    if (!holder)
        holder = python_read(gil + target->gil_holder);
    return holder == thread_state;
}
