"""What `off-cpu`, `gil` and `sched-latency` read of the kernel's switches, and sum up."""
