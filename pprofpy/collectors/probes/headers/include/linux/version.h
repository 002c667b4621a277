#pragma once
/* Only kprobe programs carry a version, and only kernels before 5.0 compare it. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 0, 0)
