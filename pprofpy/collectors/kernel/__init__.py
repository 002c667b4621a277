"""eBPF programs: real C files (`*.bpf.c`), compiled when the package is built, and loaded into the running kernel.

The public face is small:

    program = load(ProbeSource("sched_latency.bpf.c", {"wait_event": WAIT_EVENT}), {"TGID": 1234, ...})
    program.attach_raw("sched_switch", "on_switch")
    keys, values = program.table("threads", THREAD_KEY, THREAD).items()
    events = program.events("events", EVENT).read()
    program.close()

Nothing of it outlives the process: the kernel drops programs, attachments and maps with their last file descriptor,
so that even `kill -9` leaves nothing behind. What is written to disk is a cache of programs that bcc had to compile.

`source` is what is compiled, `shipped` has what came with the package, `compiler` drives bcc, `cache` keeps what it has
compiled; `bytecode` is what comes out of either, into which `program` puts the values of parameters: where things lie
in the kernel's structs (`btf`, `types`, `scheduler`), whom to watch (`scope`). `syscall` is bpf(2), `refusals` says why
it fails. `maps` and `ring` read tables and ring buffers into NumPy arrays, `merging` several buffers in order of time,
`kallsyms` names kernel addresses.
"""

from pprofpy.collectors.kernel.maps import MapTable
from pprofpy.collectors.kernel.program import Program, load, require

__all__ = ["MapTable", "Program", "load", "require"]
