/* A system call that waits, with every register full of known values: are they all the same after it?
 * Built as a library by the tests and called through ctypes, which lets go of the interpreter lock meanwhile. */
#include <string.h>

/* number, three arguments, result (out), 16 patterns of 32 bytes and room for as many -> registers that changed */
extern long wait_with_known_registers(long number, long a, long b, long c, long *result, unsigned char *vectors);

__asm__(
    ".globl wait_with_known_registers\n"
    "wait_with_known_registers:\n"
    "push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15; push %r8; push %r9\n"
    "mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi; mov %rcx, %rdx\n"
#define LOAD(n) "vmovdqu 32*" #n "(%r9), %ymm" #n "\n"
#define STORE(n) "vmovdqu %ymm" #n ", 512+32*" #n "(%r9)\n"
#define ALL(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)
    ALL(LOAD)
    "mov $0x1111111111111111, %rbx; mov $0x2222222222222222, %rbp; mov $0x3333333333333333, %r12\n"
    "mov $0x4444444444444444, %r13; mov $0x5555555555555555, %r14; mov $0x6666666666666666, %r15\n"
    "mov $0x7777777777777777, %r8; mov $0x0888888888888888, %r9; xor %r10d, %r10d\n"
    "movq $0x5a5a5a5a, -8(%rsp); movq $0x6b6b6b6b, -128(%rsp)\n"   /* the red zone */
    "syscall\n"
    "after: xor %r11d, %r11d\n"
#define SAME(value, reg) "mov $" #value ", %rcx; cmp %rcx, %" #reg "; setne %cl; movzx %cl, %ecx; add %rcx, %r11\n"
    "push %rax; lea after(%rip), %rax; cmp %rax, %rcx; setne %cl; movzx %cl, %ecx; add %rcx, %r11; pop %rax\n"
    SAME(0x1111111111111111, rbx) SAME(0x2222222222222222, rbp) SAME(0x3333333333333333, r12)
    SAME(0x4444444444444444, r13) SAME(0x5555555555555555, r14) SAME(0x6666666666666666, r15)
    SAME(0x7777777777777777, r8) SAME(0x0888888888888888, r9) SAME(0, r10)
    "cmpq $0x6b6b6b6b, -128(%rsp); setne %cl; movzx %cl, %ecx; add %rcx, %r11\n"
    "pop %r9\n"
    ALL(STORE)
    "pop %r8; mov %rax, (%r8); mov %r11, %rax\n"
    "vzeroupper; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret\n"
    ".section .note.GNU-stack,\"\",@progbits\n.text\n");

/* -> how many registers changed; *result is what the kernel returned */
long changed_registers(long number, long a, long b, long c, long *result)
{
    unsigned char vectors[1024];
    for (int i = 0; i < 512; i++) vectors[i] = (unsigned char)(i * 7 + 13);
    long changed = wait_with_known_registers(number, a, b, c, result, vectors);
    return changed + (memcmp(vectors, vectors + 512, 512) != 0);
}
