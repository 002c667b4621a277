"""The programs that run in the kernel, and the headers that they share."""
