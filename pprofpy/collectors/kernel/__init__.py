"""eBPF programs: real C files (`*.bpf.c`), compiled by bcc and loaded into the running kernel.

The public face is small:

    program = load("sched_latency.bpf.c", layouts={"wait_event": WAIT_EVENT}, parameters={"TGID": 1234})
    program.attach_raw("sched_switch", "on_switch")
    keys, values = program.table("threads", THREAD_KEY, THREAD).items()
    for events in program.events("events", EVENT).read(): ...
    program.close()

Nothing of it outlives the process: the kernel drops programs, attachments and maps with their last file descriptor,
so that even `kill -9` leaves nothing behind. What is written to disk is a cache of compiled programs.

`compiler` finds and drives bcc, `bytecode` is what comes out, `cache` keeps it, `kernel` is the bpf(2) system call,
`refusals` says why that fails, `loader` puts it all together; `btf` knows where things lie in the kernel's structs,
`tables` reads maps and `events` ring buffers into NumPy arrays, `symbols` names kernel addresses.
"""

from pprofpy.collectors.kernel.maps import MapTable
from pprofpy.collectors.kernel.program import Program, load, require

__all__ = ["MapTable", "Program", "load", "require"]
