"""Kernel events as data: what each kind looks like, and how a record of it becomes words.

    tracepoint     a tracepoint's fields, from the kernel's own description of it
    printfmt       its `print fmt`, a C expression, evaluated for many records at once
    syscalls       system calls: numbers, names, arguments, results
    constants      names of the bits and numbers that system calls take
    log            EventLog: batches of recorded events, and what was lost
    words          an event as a line of text

Collectors fill an EventLog, reports and formats read it. Nothing here touches the machine.
"""
