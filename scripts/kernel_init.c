/* The only process of an emulated machine (kernels.sh): hands each eBPF program to this kernel's verifier, says what
 * came of it, and switches the machine off. Static, so that it needs nothing beside it.
 *
 * Reads /programs, which tests/kernel_programs.py writes: records that begin with a letter and a name of 63 bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define LOG_BYTES (1 << 20)
#define WAY_BYTES (64 << 20)
#define SHOWN_BYTES 4000 /* of it */
#define MAPS 64

struct head {
    char letter;
    char name[63];
};

static char said[LOG_BYTES];
static int maps[MAPS], map_count;

static int bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static void close_maps(void)
{
    while (map_count > 0)
        close(maps[--map_count]);
}

static int make_map(FILE *programs, const char *name)
{
    __u32 facts[5];
    if (fread(facts, sizeof(facts), 1, programs) != 1 || map_count == MAPS)
        return 1;
    union bpf_attr attributes = {.map_type = facts[0], .key_size = facts[1], .value_size = facts[2],
        .max_entries = facts[3], .map_flags = facts[4]};
    strncpy(attributes.map_name, name, BPF_OBJ_NAME_LEN - 1);
    int map = bpf(BPF_MAP_CREATE, &attributes);
    if (map < 0)
        printf("kernel: REFUSED map %s: %s\n", name, strerror(errno));
    maps[map_count++] = map;
    return map < 0;
}

static void show_log(void)
{
    for (char *line = strtok(said, "\n"); line; line = strtok(NULL, "\n"))
        printf("kernel:     %s\n", line);
}

/* Load it again for the way that has led to the refusal, and show its last lines. */
static void show_way(union bpf_attr *attributes)
{
    char *way = calloc(1, WAY_BYTES), *line;
    if (!way)
        return;
    attributes->log_level = 1;
    attributes->log_size = WAY_BYTES;
    attributes->log_buf = (unsigned long)way;
    bpf(BPF_PROG_LOAD, attributes);
    size_t length = strlen(way);
    for (line = way + length; line > way && way + length - line < SHOWN_BYTES; line--)
        ;
    for (line = strtok(line, "\n"); line; line = strtok(NULL, "\n"))
        printf("kernel:     %s\n", line);
    free(way);
}

static int load_function(FILE *programs, const char *variant, const char *name)
{
    __u32 facts[2];
    if (fread(facts, sizeof(facts), 1, programs) != 1)
        return 1;
    struct bpf_insn *code = calloc(facts[1], sizeof(*code));
    if (!code || fread(code, sizeof(*code), facts[1], programs) != facts[1])
        return 1;
    for (__u32 i = 0; i < facts[1]; i++)
        if (code[i].code == (BPF_LD | BPF_IMM | BPF_DW) && code[i].src_reg == BPF_PSEUDO_MAP_FD)
            code[i].imm = code[i].imm < map_count ? maps[code[i].imm] : -1;
    union bpf_attr attributes = {.prog_type = facts[0], .insn_cnt = facts[1], .insns = (unsigned long)code,
        .license = (unsigned long)"GPL", .log_level = 4, .log_size = LOG_BYTES, .log_buf = (unsigned long)said};
    strncpy(attributes.prog_name, name, BPF_OBJ_NAME_LEN - 1);
    memset(said, 0, sizeof(said));
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int program = bpf(BPF_PROG_LOAD, &attributes), problem = errno;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double took = end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9;
    printf("kernel: %s %s: %s (%.1f s)%s%s\n", program < 0 ? "REFUSED" : "accepted", variant, name, took,
        program < 0 ? ": " : "", program < 0 ? strerror(problem) : "");
    if (program < 0)
        show_log(), show_way(&attributes);
    free(code);
    close(program);
    return program < 0;
}

int main(void)
{
    struct head head;
    struct utsname system;
    char variant[sizeof(head.name)] = "";
    int refused = 0, loaded = 0;
    struct rlimit no_limit = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_MEMLOCK, &no_limit); /* maps count as locked memory before Linux 5.11 */
    setvbuf(stdout, NULL, _IOLBF, 0);
    uname(&system);
    printf("kernel: Linux %s is up\n", system.release);
    FILE *programs = fopen("/programs", "r");
    while (programs && fread(&head, sizeof(head), 1, programs) == 1) {
        head.name[sizeof(head.name) - 1] = 0;
        if (head.letter == 'V') {
            close_maps();
            strcpy(variant, head.name);
        } else if (head.letter == 'M') {
            refused += make_map(programs, head.name);
        } else {
            refused += load_function(programs, variant, head.name);
            loaded++;
        }
    }
    printf("kernel: done, %d of %d programs refused\n", refused, loaded);
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
