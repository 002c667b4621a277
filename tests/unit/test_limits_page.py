"""docs/limits.md says what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pprofpy
from pprofpy.collectors import heap, off_cpu
from pprofpy.collectors.cpython import memory, objects, thread_names
from pprofpy.collectors.heapagent import holders, plain
from pprofpy.collectors.pystacks import processes
from pprofpy.collectors.sampling import cpu_options
from pprofpy.collectors.scheduling import recorder
from pprofpy.collectors.unwind import unwinder
from pprofpy.formats import archives, files, limits, source_text
from pprofpy.reports import flamegraph
from pprofpy.reports.losses import WORDS
from pprofpy.system import blocking
from pprofpy.target import named_files, procfs

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
PROBES = Path(pprofpy.__file__).parent / "collectors" / "probes"
MB = 1 << 20


def row(beginning: str) -> str:
    """The limit in the row that begins so."""
    (found,) = [line.split("|")[2].strip() for line in PAGE.splitlines() if line.startswith(f"| {beginning}")]
    return found


def in_c(file: str, before: str) -> int:
    """The number that stands behind these words in a probe's source."""
    (found,) = both_in_c(file, before)
    return found


def both_in_c(file: str, before: str) -> list[int]:
    """The same where there is another number for kernels without iterators, which comes second."""
    return [int(number) for number in re.findall(rf"{re.escape(before)}(\d+)", (PROBES / file).read_text())]


CODES, FEWER_CODES = both_in_c("python_tables.h", "PYTHON_NEW_CODE_FRAMES ")
AWAITING, FEWER_AWAITING = both_in_c("python_awaiting.h", "PYTHON_AWAITING_FRAMES ")


PART_KB = 4 * in_c("native.h", "NATIVE_PAGES ")


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("sampling rate", f"{cpu_options.MAX_RATE_HZ:,} Hz"),
        ("length of a", f"{heap.MAX_DURATION_NS // (24 * 3600 * 10**9)} days"),
        ("processes that are", f"{in_c('sched.h', 'targets, u32, u8, '):,}"),
        ("processes whose", f"{in_c('python_tables.h', 'MAX_PROCESSES '):,}"),
        ("threads at once", f"{in_c('switches.h', 'threads, '):,} (whole system: {recorder._MOST_THREADS:,})"),
        ("threads of a", f"{processes._MAX_THREADS:,}"),
        ("frames of a stack", f"{in_c('python_tables.h', 'PYTHON_MAX_FRAMES ')}"),
        ("new code", f"{CODES} frames ({FEWER_CODES} before Linux 6.4)"),
        ("tasks that await", f"{in_c('python_awaiting.h', 'PYTHON_AWAITING_TASKS ')}, and {AWAITING} frames of theirs "
         f"({FEWER_AWAITING} before Linux 6.4)"),
        ("a function's",
         f"{in_c('python_tables.h', 'NAME_BYTES ')}; {in_c('python_tables.h', 'FILE_BYTES ')} bytes"),
        ("line table", f"{objects._LONGEST_TABLE // MB} MB"),
        ("what `heap --types`",
         f"{holders.EXAMPLES} objects a type, {holders.STEPS} steps, {holders.BUDGET_S:g} s of CPU"),
        ("stacks sent", f"{in_c('python_tables.h', 'RING_PAGES ') * 4096 // MB} MB"),
        ("different places a half second of `cpu`", f"{in_c('cpu.bpf.c', 'samples, '):,}"),
        ("different places a half second of `cpu`", f"{in_c('events.bpf.c', 'hits, '):,}"),
        ("different places of `gil`", f"{in_c('gil.bpf.c', 'waits, '):,}"),
        ("stacks of `sched", f"{in_c('sched_latency.bpf.c', 'stack_waits, '):,}"),
        ("kernel stacks", f"{in_c('kernel_stack.h', 'kernel_stacks, '):,} (`off-cpu`: "
         f"{off_cpu._MOST_KERNEL_STACKS:,})"),
        ("native frames",
         f"{PART_KB * in_c('native.h', 'NATIVE_PARTS ')} KB of the stack, "
         f"{in_c('native.h', 'NATIVE_LOOPS ')} calls from C, {unwinder._MAX_FRAMES:,} frames"),
        ("calls under", f"{in_c('trace.bpf.c', 'pending_calls, '):,}"),
        ("text arguments", f"two a call, {in_c('trace.bpf.c', 'STRING_BYTES ')} bytes each"),
        ("names of threads", f"{thread_names._LONGEST_NAME} characters; {thread_names._MOST_THREADS:,} names"),
        ("time to read", f"{thread_names._SECONDS} s of CPU"),
        ("frames of an", f"{heap._MOST_FRAMES}"),
        ("a library", f"{named_files.MOST_BYTES // MB} MB of it at once"),
        ("`/proc/PID/maps`", f"{procfs._MOST_BYTES_OF_MAPS // MB} MB"),
        ("memory read", f"{memory.MOST_BYTES // MB} MB"),
        ("an answer", f"{plain.MOST_BYTES // MB} MB, a million objects, {plain.MOST_DEPTH} levels"),
        ("what a process", f"{blocking.LONGEST_S:.0f} s"),
        ("a file that", f"{files.LARGEST_INPUT_BYTES >> 30} GB"),
        ("a gzip", f"{limits._LARGEST_RATIO} times its size, {limits._LARGEST_BYTES >> 30} GB "
         f"(`{limits.UNPACKED_BYTES_VARIABLE}`)"),
        ("memory for", f"{limits.MEMORY_FACTOR} times the unpacked file"),
        ("source in", f"{source_text.LARGEST_BYTES // MB} MB"),
        ("an archive", f"{archives.LARGEST_ARCHIVE_BYTES // MB} MB, {archives._MOST_MEMBERS:,} members"),
        ("levels", f"{flamegraph._MOST_LEVELS:,}"),
    ],
)  # fmt: skip
def test_a_limit_on_the_page_is_that_of_the_code(what: str, limit: str) -> None:
    assert row(what) == limit


def test_each_loss_on_the_page_has_words() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 5]
    told = {name for line in rows for name in re.findall(r"`([a-z_]+)`", line.split("|")[4])}

    assert told - set(WORDS) == set()
    assert len(told) > 15
