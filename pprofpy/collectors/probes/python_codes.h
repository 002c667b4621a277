/* Code objects: telling them apart, and sending those that are new to user space. */

#define PYTHON_WORD(buffer, offset, mask) (*(u64 *)((buffer) + ((offset) & (mask))))
#define PYTHON_HALF_WORD(buffer, offset, mask) (*(u32 *)((buffer) + ((offset) & (mask))))

/* Tells a code object from others that lie, or lay, at the same address. `code` is a copy of its head. */
static inline u32 python_fingerprint(struct python_target *target, u8 *code)
{
    u64 hash = PYTHON_HALF_WORD(code, target->code_first_line, 252);
    if (target->code_version)
        hash |= (u64)PYTHON_HALF_WORD(code, target->code_version, 252) << 32;
    hash = python_mix(hash, PYTHON_WORD(code, target->code_file, 248));
    hash = python_mix(hash, PYTHON_WORD(code, target->code_name, 248));
    hash = python_mix(hash, PYTHON_WORD(code, target->code_table, 248));
    return hash >> 32;
}

/* At most `room` bytes, a power of two. LLVM may compare one copy of a number and pass on another: before Linux 6.4 the
 * verifier then knows no bound. So it sees a mask, which LLVM cannot see through. */
static inline u64 python_bounded(u64 bytes, u64 room)
{
    if (bytes > room)
        bytes = room;
    asm volatile("" : "+r"(bytes));
    return bytes & (2 * room - 1);
}

/* A str: its text goes to `to`, as far as there is room. Returns how many bytes it has. */
static inline u32 python_copy_string(struct python_target *target, u64 string, u8 *to, u32 room, u32 *width)
{
    u64 length = python_read(string + target->object_length);
    u32 state = python_read(string + target->string_state);
    u32 kind = (state >> (target->string_kind_shift & 31)) & 7;
    bool is_ascii = (state >> ((target->string_kind_shift + 4) & 31)) & 1;
    u64 whole = length < 65536 ? length * kind : 65536;
    *width = kind;
    string += is_ascii ? target->string_ascii : target->string_wide;
    if (bpf_probe_read_user(to, python_bounded(whole, room), (void *)string))
        return 0;
    return whole;
}

static inline bool python_send_code(
    struct python_target *target, struct python_code *record, u32 tgid, u64 code, u32 fingerprint)
{
    record->kind = PYTHON_RECORD_CODE;
    record->tgid = tgid;
    record->code = code;
    record->fingerprint = fingerprint;
    record->first_line = python_read(code + target->code_first_line);
    record->table = python_read(code + target->code_table);
    record->name_bytes = python_copy_string(
        target, python_read(code + target->code_name), record->name_text, PYTHON_NAME_BYTES, &record->name_width);
    record->file_bytes = python_copy_string(
        target, python_read(code + target->code_file), record->file_text, PYTHON_FILE_BYTES, &record->file_width);
    u64 bytes = python_read(record->table + target->object_length);
    record->table_bytes = bytes;
    if (bytes >= PYTHON_TABLE_BYTES)
        bytes = 0;
    asm volatile("" : "+r"(bytes)); /* as in python_bounded */
    bytes &= PYTHON_TABLE_BYTES - 1;
    bpf_probe_read_user(record->table_data, bytes, (void *)(record->table + target->bytes_data));
    u64 size = __builtin_offsetof(struct python_code, table_data) + bytes;
    return !python_records.ringbuf_output(record, size, BPF_RB_NO_WAKEUP);
}

/* Send what is new among the leaf-most code objects of a stack. */
static inline void python_send_codes(struct python_walk *walk, struct python_target *target, u32 epoch)
{
    int zero = 0;
    u32 tgid = walk->stack.tgid;
    u32 count = walk->stack.frame_count;
    struct python_code *record = python_codes.lookup(&zero);
    if (!record)
        return;
    LOOP_BELOW(i, PYTHON_NEW_CODE_FRAMES) {
        if (i >= count)
            break;
        struct python_frame *frame = &walk->stack.frames[i];
        u64 key = python_mix(python_mix(tgid, frame->code), frame->fingerprint);
        u32 *seen = python_codes_seen.lookup(&key);
        if (frame->code <= PYTHON_AWAITED_BY || (seen && *seen == epoch))
            continue;
        python_codes_seen.update(&key, &epoch);
        if (!python_send_code(target, record, tgid, frame->code, frame->fingerprint)) {
            python_codes_seen.delete(&key);
            python_count(PYTHON_CODE_LOST);
        }
    }
}
