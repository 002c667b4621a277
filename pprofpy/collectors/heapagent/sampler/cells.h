/* Adding to the tables: places in code, stacks of them, and a cell for each stack in each thread. */

static uint32_t intern_place(PyObject *code, int32_t where)
{
    uint32_t at = mix((uintptr_t)code ^ ((uint64_t)where << 40)) % HASH_SIZE;
    for (; tables->place_hash[at]; at = (at + 1) % HASH_SIZE) {
        Place *place = &tables->places[tables->place_hash[at] - 1];
        if (place->code == code && place->where == where) return tables->place_hash[at] - 1;
    }
    if (tables->places_count == MAX_PLACES) return NONE;
    Py_IncRef(code); /* so that its address stays its own */
    tables->places[tables->places_count] = (Place){code, where, 0};
    tables->place_hash[at] = tables->places_count + 1;
    return tables->places_count++;
}

static uint32_t intern_stack(const uint32_t *places, int depth, int truncated)
{
    uint64_t hash = depth;
    for (int i = 0; i < depth; i++) hash = mix(hash ^ places[i]) + i;
    uint32_t at = hash % HASH_SIZE;
    for (; tables->stack_hash[at]; at = (at + 1) % HASH_SIZE) {
        StackEntry *stack = &tables->stacks[tables->stack_hash[at] - 1];
        if (stack->hash == hash && stack->depth == depth && !memcmp(tables->frames + stack->first, places, depth * 4))
            return tables->stack_hash[at] - 1;
    }
    if (tables->stacks_count == MAX_STACKS || tables->frames_count + depth > MAX_FRAMES) return NONE;
    memcpy(tables->frames + tables->frames_count, places, depth * 4);
    tables->stacks[tables->stacks_count] = (StackEntry){hash, tables->frames_count, depth, truncated};
    tables->frames_count += depth;
    tables->stack_hash[at] = tables->stacks_count + 1;
    return tables->stacks_count++;
}

static uint32_t intern_cell(uint32_t stack, uint32_t tid)
{
    uint32_t at = mix(((uint64_t)tid << 32) | stack) % HASH_SIZE;
    for (; tables->cell_hash[at]; at = (at + 1) % HASH_SIZE) {
        Cell *cell = &tables->cells[tables->cell_hash[at] - 1];
        if (cell->stack == stack && cell->tid == tid) return tables->cell_hash[at] - 1;
    }
    if (tables->cells_count == MAX_CELLS) return NONE;
    tables->cells[tables->cells_count] = (Cell){.stack = stack, .tid = tid};
    tables->cell_hash[at] = tables->cells_count + 1;
    return tables->cells_count++;
}

static int begin_interning(void)
{
    for (int tries = 0; tries < 1000; tries++) {
        int32_t nobody = 0;
        if (__atomic_compare_exchange_n(&interning, &nobody, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return 1;
        if (tries > 100) syscall(SYS_sched_yield);
    }
    return 0;
}

/* Stack 0 stands for allocations outside Python, stack 1 for those whose stack found no room; cell 1 is for the rest. */
enum { OUTSIDE, NO_ROOM };

static uint32_t cell_here(void)
{
    PyObject *codes[MAX_DEPTH];
    int32_t wheres[MAX_DEPTH];
    uint32_t places[MAX_DEPTH], stack = OUTSIDE;
    char *thread = attached_thread();
    int truncated = 0, depth = thread ? walk_frames(thread, codes, wheres, max_depth, &truncated, read_directly) : 0;
    if (!begin_interning()) {
        ADD(counters[BUSY], 1);
        return NO_ROOM;
    }
    if (depth > 0) {
        for (int i = 0; i < depth && stack != NO_ROOM; i++)
            if ((places[i] = intern_place(codes[i], wheres[i])) == NONE) stack = NO_ROOM;
        if (stack != NO_ROOM) stack = intern_stack(places, depth, truncated);
        if (stack == NONE || stack == NO_ROOM) stack = NO_ROOM, ADD(counters[LOST_STACKS], 1);
    } else {
        ADD(counters[NO_STACK], 1);
    }
    if (truncated) ADD(counters[TRUNCATED], 1);
    uint32_t cell = intern_cell(stack, mine.tid);
    if (cell == NONE) cell = NO_ROOM, ADD(counters[LOST_STACKS], 1);
    STORE(interning, 0);
    return cell;
}
