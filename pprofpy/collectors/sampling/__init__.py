"""CPU samples from the kernel: Python alone, with native frames, and all of the wall-clock time."""
