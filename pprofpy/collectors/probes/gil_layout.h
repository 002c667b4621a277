/* Where things lie in the interpreter lock. Needs MUTEX_BYTES of arch/: the C library's.
 *
 * Source: struct _gil_runtime_state, Include/internal/pycore_gil.h, the same from 3.8 to 3.15 with glibc: interval,
 * last_holder, locked, switch_number, cond, mutex, switch_cond, switch_mutex. */
#ifndef GIL_LAYOUT_H
#define GIL_LAYOUT_H

#define COND_BYTES 48
#define GIL_HOLDER 8
#define GIL_SWITCH_NUMBER 24
#define GIL_COND 32
#define GIL_SWITCH_COND (GIL_COND + COND_BYTES + MUTEX_BYTES)
#define GIL_END (GIL_SWITCH_COND + COND_BYTES + MUTEX_BYTES)
#endif
