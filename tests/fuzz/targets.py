"""What is fuzzed: for each target valid inputs, a mutator that knows their structure, and what is done with an input."""

from __future__ import annotations

import gzip
import io
import json
import marshal
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
from rich.console import Console

from pprofpy.cli import show
from pprofpy.collectors.cpython.debugoffsets import TABLE_BYTES, ImplausibleLayoutError, described
from pprofpy.collectors.cpython.linetable import LineTables
from pprofpy.collectors.cpython.versions import VERSIONS, LineTable, UnknownVersionError
from pprofpy.collectors.heapagent import plain, samples, traced_blocks
from pprofpy.collectors.heapagent.frames import Frames
from pprofpy.collectors.pyspy.convert import convert
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.collectors.unwind.cfi import CfiTable
from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.dwarf import CfiError, evaluate
from pprofpy.collectors.unwind.image import Image
from pprofpy.elf import LoadedElf, NotElfError, find_symbols, read_headers, reader_of
from pprofpy.errors import PprofpyError
from pprofpy.events import printfmt, selection
from pprofpy.events.log import Batch, EventLog, summarize
from pprofpy.events.scheduling import calls_by_thread, stacks_at_switches, to_trace
from pprofpy.events.switches import DATA_BYTES, TRACEPOINTS, Known, to_records
from pprofpy.events.tracepoint import Columns, enumerators_of, parse_format
from pprofpy.events.words import Narrator
from pprofpy.formats import FORMATS, archives, chrome, decode, encode, eventlog, pprof, spool
from pprofpy.formats import recording as recordings
from pprofpy.formats.document import DocumentError, parse
from pprofpy.formats.folder import Entry
from pprofpy.formats.protowire import bytes_field
from pprofpy.formats.source_text import LARGEST_BYTES
from pprofpy.model import filters
from pprofpy.model import timeline as timelines
from pprofpy.model.combine import merge, root_by_label
from pprofpy.model.graph import BASE_LABEL, Granularity, build_graph
from pprofpy.model.profile import Collection, Frame, Function, Label, LabelSet, Location, Profile
from pprofpy.model.recording import Recording
from pprofpy.model.table import Table
from pprofpy.model.trace import RECORD
from pprofpy.reports import flamegraph, header, list_recordings, threads, top, traces, tree
from pprofpy.reports import list as listing
from pprofpy.reports import timeline as timeline_report
from pprofpy.reports.source_finder import SourceFinder
from pprofpy.reports.trim import EVERYTHING
from pprofpy.target import Target as Process
from pprofpy.target import open_target, procfs
from pprofpy.target.mounts import parse_served
from pprofpy.target.status import MalformedError
from tests import events
from tests.fuzz.mutate import Mutator, document, lines, numbers, packed, protobuf, raw, several, tokens
from tests.stacks import profile_of


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads what others made.

    Attributes:
        name: Part of the names of saved findings.
        share: How many of a million inputs it gets, about.
        seeds: Makes valid inputs.
        mutate: Makes an input of one.
        run: Reads an input, and does what is done with the result.
        allowed: The errors that it documents; those of pprofpy's own are allowed everywhere.
    """

    name: str
    share: int
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator
    run: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...] = ()

    def input(self, seed: int, number: int) -> bytes:
        """The input of a number: always the same for a seed."""
        random = Random(f"{seed} {self.name} {number}")
        return self.mutate(random, random.choice(_seeds_of(self)))


@cache
def _seeds_of(target: Target) -> Sequence[bytes]:
    return target.seeds()


# -- profiles ------------------------------------------------------------------------------------------------------


def _profile() -> Profile:
    counts: dict[tuple[str, LabelSet], int] = {}
    for i in range(1, 9):
        labels = (Label("thread", f"T{i % 2}"), Label("tid", i), Label("b", i, "bytes"))
        counts[f"main > work_{i % 3} > inner:{i}", labels] = i
    profile = profile_of(counts)
    return replace(profile, drop_frames="inner|(in+)+x", keep_frames="work_.*", comments=("by hand", "#hidden"), doc_url="https://x/",
                   collection=Collection("engine 1", "python 7", 10, 9, 1, notes=("a note",)), time_ns=10**18, duration_ns=10**9)  # fmt: skip


def _inlined() -> Profile:
    profile = _profile()
    locations = [*profile.locations[:2], *(place._replace(lines=place.lines * 3) for place in profile.locations[2:5]),
                 *(Location((), -1, 4096 * i) for i in range(len(profile.locations) - 5))]  # fmt: skip
    return replace(profile, locations=locations)


def _messages() -> list[bytes]:
    base = replace(_profile(), label_sets=[(*labels, Label(BASE_LABEL, "true")) for labels in _profile().label_sets])
    return [gzip.decompress(pprof.write(one)) for one in (_profile(), _inlined(), base)]


def _gzipped(random: Random, data: bytes) -> bytes:
    if random.random() < 0.8:
        return gzip.compress(several(protobuf)(random, data), 1, mtime=0)
    return raw(random, gzip.compress(data, 1, mtime=0))


def _run_reader(data: bytes) -> None:
    decode(data).check_valid()


def _run_views(data: bytes) -> None:
    """All that commands do with a file."""
    profile = decode(data)
    with suppress(PprofpyError):
        profile = filters.prune(profile)
    merge([profile, profile.scale([-1.0] * len(profile.sample_types))])
    profile = merge([profile, profile])
    wanted = filters.Filters(focus="w", hide="^m", tag_focus="tid=1:")
    for one in (profile, filters.apply(profile, wanted)[0], root_by_label(profile, "thread")):
        _show(one, one.value_index(), list(Granularity)[len(data) % len(Granularity)])
    for name in FORMATS:
        with suppress(PprofpyError):
            decode(encode(profile, name))


def _show(profile: Profile, value_index: int, granularity: Granularity) -> None:
    console = Console(file=io.StringIO(), width=80)
    graph = build_graph(profile, value_index, granularity)
    about = header.build(profile, value_index, graph.total)
    for report, built in (
        (top, top.build(about, graph, EVERYTHING)),
        (tree, tree.build(about, graph, EVERYTHING)),
        (traces, traces.build(about, profile, value_index, graph, "minimum")),
    ):
        report.render(built, console)
        json.dumps(report.to_json(built))
    threads.render(threads.build(profile, value_index), console)
    with suppress(PprofpyError):
        listing.render(listing.build(about, profile, value_index, ".", SourceFinder(), "minimum"), console)
    flamegraph.render(flamegraph.build(about, graph)).encode()


def _recordings() -> list[bytes]:
    stacks = [(Frame(Function("f", "f", "/a.py", 1), 3),), ()]
    table = Table({"tid": [1, 2], "name": ["a", "b"], "stack": list(stacks)})
    written = [recordings.write(Recording(kind, _profile(), {"waits": table, "threads": table}, {"nodecount": 5}))
               for kind in ("cpu", "gil", "off-cpu", "sched-latency", "heap", "events", "x")]  # fmt: skip
    return [gzip.decompress(one) for one in written]


def _in_extension(random: Random, data: bytes) -> bytes:
    """Change the document that carries the tables."""
    if random.random() < 0.2:
        return protobuf(random, data)
    start = data.rfind(b'{"schema"')
    changed = document(random, data[start : data.rfind(b"}") + 1])
    return pprof.write(_profile(), changed)


def _run_recording(data: bytes) -> None:
    recording = recordings.read(data)
    with mock.patch("sys.stdout", io.StringIO()), mock.patch("sys.stderr", io.StringIO()):
        for as_json in (False, True):
            with suppress(PprofpyError):
                show.present(recording, "x", as_json=as_json)


def _spools() -> list[bytes]:
    return [recordings.write(Recording("cpu", _profile(), {}, {}))]


def _in_blocks(random: Random, data: bytes) -> bytes:
    blocks = [
        data if random.random() < 0.3 else gzip.compress(protobuf(random, gzip.decompress(data)), 1) for _ in range(3)
    ]
    content = spool.MAGIC + b"".join(struct.pack("<II", len(one), zlib.crc32(one)) + one for one in blocks)
    return numbers(random, content) if random.random() < 0.2 else content


# -- traces --------------------------------------------------------------------------------------------------------


def _run_timeline(timeline: timelines.Timeline) -> None:
    table = timeline_report.build(timeline)
    timeline_report.render(table, Console(file=io.StringIO()))
    json.dumps(timeline_report.to_json(table))
    chrome.write(timeline)


def _event_logs() -> list[bytes]:
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, events.LOG)
    calls = [events.call(2_000, 0, 500, 100, 3, 0x10, 100, fd_name=b"hosts", inode=77), events.call(6_000, 435, 9, 8)]
    strings = [events.call_with_strings(events.call(1_000, 257, 6_500, 3, -100, 0x20), b"/etc/hosts")]
    batch = events.batch([events.switch(5_000, 10, 11, 1), events.waking(7_000, 11, 10)], calls, strings)
    writer.add(replace(batch, symbols={4096: "f"}, stacks={1: ("f", "g (a.py:7)")}))
    writer.end(10_000, Collection("bpf"))
    return [stream.getvalue(), _switch_log()]


def _switch_log() -> bytes:
    """As a recorder of its own writes it."""
    rows = [(1000 * i, 500 * (i % 2), 10 + i % 3, 11 + i % 2, i % 4, i % 3, i % 2, i % 2) for i in range(1, 12)]
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, EventLog(TRACEPOINTS, DATA_BYTES, 500, 10**18))
    records = to_records(np.array(rows, RECORD), lambda tid: Known(10, b"worker", tid < 12))
    writer.add(Batch(records, threads={10: (10, "main"), 11: (10, "worker")}))
    writer.end(20_000, Collection("bpf"))
    return stream.getvalue()


def _in_log(random: Random, data: bytes) -> bytes:
    """Change what is in the blocks, with the right checksums; or the blocks."""
    if random.random() < 0.1:
        return several(raw, numbers)(random, data)
    changed, position = bytearray(data[: len(eventlog.MAGIC)]), len(eventlog.MAGIC)
    while position + 12 <= len(data):
        tag, size, _ = struct.unpack_from("<4sII", data, position)
        content = zlib.decompress(data[position + 12 : position + 12 + size])
        if random.random() < 0.5:
            content = _block_mutator(tag)(random, content)
        block = zlib.compress(content, 1)
        for _ in range(random.choice((1, 1, 1, 1, 0, 2))):
            changed += struct.pack("<4sII", tag, len(block), zlib.crc32(block)) + block
        position += 12 + size
    return bytes(changed)


def _block_mutator(tag: bytes) -> Mutator:
    sizes = {b"RECS": 112, b"CALL": 176, b"STRS": 688}
    return packed(f"<{sizes[tag]}s") if tag in sizes else document


def _run_event_log(data: bytes) -> None:
    reader = eventlog.EventReader(io.BytesIO(data))
    batches = list(reader.batches())
    narrator = Narrator(reader.log)
    for batch in batches:
        for part in batch.sliced(2):
            narrator.lines(part)
        len(batch.where(tids=frozenset({10}), slower_than_ns=10))
    summarize(reader.log, batches)
    trace = to_trace(reader.log, batches, reader.duration_ns, reader.collection)
    list(trace.events())
    trace.to_profile().check_valid()
    _run_timeline(timelines.build(trace, calls_by_thread(reader.log, batches), stacks_at_switches(reader.log, batches)))
    eventlog.read(data).check_valid()


_DESCRIPTIONS = [
    f'''name: test
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:unsigned long flags;\toffset:32;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:40;\tsize:4;\tsigned:0;
\tfield:__u8 addr[16];\toffset:44;\tsize:16;\tsigned:0;
\tfield:void * ip;\toffset:64;\tsize:8;\tsigned:0;

print fmt: {text}
'''.encode()
    for text in (
        '"comm=%s pid=%d flags=%s %s", REC->comm, REC->pid, (REC->flags & 3) ? __print_flags(REC->flags, "|", { 1, "A" }, { 2, "B" }) : "R", __get_str(name)',
        '"%-10s %#llx %pI6c %ps %c", __print_symbolic(REC->pid & 0xff, { 0, "zero" }, { 1, "one" }), (u64)REC->flags << 3, REC->addr, (void *)REC->ip, REC->pid',
        '"%s len %u %03d %5lu", __print_hex(REC->addr, 4), __get_dynamic_array_len(name), (int)sizeof(u32) * -(s16)REC->pid / 7 % 3, REC->flags >> 2 ^ ~1UL',
    )
]  # fmt: skip


def _run_description(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    point = parse_format("test", text, {"ABC": 5, "I_DIRTY": 2**64 - 1})
    enumerators_of(text)
    printfmt.symbol_fields(point)
    formatter = printfmt.compile_format(point, {0: "f"})
    width = max(point.size, 8)
    raw_records = np.frombuffer(Random(len(data)).randbytes(5 * width), np.uint8).reshape(5, width)
    formatter(Columns(raw_records))


def _run_selection(data: bytes) -> None:
    words = data.decode("utf-8", "replace").split("\n")
    selection.matching(words[:4], words[2:])


# -- files and tables of targets -----------------------------------------------------------------------------------

_LIBRARY = Path(samples.__file__).with_name("sampler.so")


def _library() -> list[bytes]:
    content = _LIBRARY.read_bytes()
    headers = read_headers(reader_of(content))
    assert headers.unwinding, "the library that the project builds has unwinding tables"
    return [content]


def _in_elf(random: Random, data: bytes) -> bytes:
    """Change headers, tables of sections, symbols or unwinding: code does not matter."""
    headers = read_headers(reader_of(data))
    section_at = int.from_bytes(data[40:48], "little")
    places = [(0, 64), (64, 56 * 12), (section_at, len(data) - section_at)]
    places += [
        (one.offset, min(one.size, 1 << 14)) for one in headers.sections if one.kind in (2, 3, 6, 11, 0x6FFFFFF6)
    ]
    places += [(headers.unwinding, 4096)] * 3
    start, size = random.choice(places)
    changed = several(numbers, numbers, raw)(random, data[start : start + size])
    return data[:start] + changed + data[start + size :]


_SYMBOLS = ("PyInit", "pprofpy_start", "malloc", "_PyRuntime")


def _run_elf(data: bytes) -> None:
    read = reader_of(data)
    find_symbols(read, read_headers(read), _SYMBOLS)
    with suppress(NotElfError):
        LoadedElf(read, 0).functions(_SYMBOLS)
    image = Image("/lib/x.so", data)
    for address in (0, 0x1000, 0x1100, 0x1500, 0x2000, 2**63, 2**64 - 1):
        image.function(address)
        with suppress(NotElfError):
            image.bias(address, 0x1000)
        with suppress(CfiError):
            image.row(address)


def _tables() -> list[bytes]:
    """`.eh_frame_hdr` at 0 with three entries, `.eh_frame` behind it: what compilers write, by hand."""
    common = b"\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0"
    bodies = [
        b"\x44\x0e\x10\x86\x02\x43\x0d\x06\x02\x50\x0c\x07\x08",
        b"\x0f\x03\x77\x08\x06\x10\x06\x02\x76\x00\x0a\x42\x0e\x18\x0b\x2e\x10",
        b"\x03\x00\x01\x0e\x80\x01\x04\x00\x00\x01\x00\x12\x07\x02\x14\x06\x01\x16\x06\x02\x70\x00",
    ]
    place = 12 + 8 * len(bodies)
    entries = struct.pack("<I", len(common)) + common
    index = struct.pack("<BBBBiI", 1, 0x1B, 3, 0x3B, place - 4, len(bodies))
    for number, body in enumerate(bodies):
        at = place + len(entries)
        start = 0x1000 * (number + 1)
        index += struct.pack("<ii", start, at)
        content = struct.pack("<IiI", at + 4 - place, start - (at + 8), 0x100) + b"\0" + body
        entries += struct.pack("<I", len(content)) + content
    return [index + entries]


def _run_cfi(data: bytes) -> None:
    table = CfiTable(lambda address, size: data[max(address, 0) : max(address, 0) + max(size, 0)], 0)
    for address in (0x0FFF, 0x1000, 0x1005, 0x2001, 0x3010, 0x30FF, 2**63):
        with suppress(CfiError):
            row = table.row(address)
            for _, rule in row.saved if row else ():
                evaluate(rule.expression, [address] * 17, lambda word: word ^ 0xFF, 4096)


def _run_expression(data: bytes) -> None:
    evaluate(data, [2**64 - 1 - i for i in range(17)], lambda word: word, 7)


def _run_lines(data: bytes) -> None:
    for form in LineTable:
        tables = LineTables(form)
        for first_line in (1, 2**31, -5):
            for instruction in (-1, 5, 1000, 2**63 - 1):
                assert 0 <= tables.line(data, first_line, instruction) <= 2**31


_MANGLED = (b"_Z3addii", b"_ZNSt6vectorIiSaIiEE9push_backERKi", b"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE.llvm.123",
            b"_ZNK5boost6spirit2qi4ruleIN9__gnu_cxx17__normal_iteratorIPKcSsEEFvvENS_11unused_typeES8_E5parseE",
            b"_ZZN1AC1EvENKUlT_E_clIiEEDaS0_.cold", b"_ZGVbN2v_sin.part.0.isra.1", b"_Z1fIJiiiEEvDpT_", b"__Z4mainv",
            b"_ZNSt8functionIFvvEEC2IZ4mainEUlvE_vEEOT_", b"_RNvC6_123foo3bar")  # fmt: skip


def _run_names(data: bytes) -> None:
    readable(data.decode("utf-8", "replace"))


def _debug_offsets() -> list[bytes]:
    found = []
    for minor in (13, 14, 15):
        members = [8 * (i + 1) for i in range(TABLE_BYTES // 8)]
        members[0:3] = [int.from_bytes(b"xdebugpy", "little"), 3 << 24 | minor << 16 | 0xF0, 0]
        found.append(struct.pack(f"<{len(members)}Q", *members))
    return found


def _run_offsets(data: bytes) -> None:
    for version in (*VERSIONS, (3, 7), (3, 99), (4, 0)):
        with suppress(ImplausibleLayoutError, UnknownVersionError):
            described(version, data)


_PROC = (
    b"Name:\tpython\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nNSpid:\t7\t1\nThreads:\t3\n"
    b"ShdPnd:\t0000000000000000\nSigIgn:\t0000000001001000\nSigCgt:\t0000000180000002\nCapEff:\t000001ffffffffff\nSeccomp:\t0\nx86_Thread_features:\tshstk wrss\n",
    b"7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 12345 1 2 3\n",
    b"00400000-00401000 r-xp 00000000 08:01 42                         /usr/bin/python3.11\n"
    b"7f0000000000-7f0000001000 rw-p 00001000 00:00 0\n7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n",
    b"0::/user.slice\n4:cpu,cpuacct:/a:b\n",
    b"202 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffc 0x7f11\n",
    b"[<0>] futex_wait_queue+0x60/0x90\n[<0>] do_futex+0x1/0x2\n",
    b"100 200 300\n", b"python\0-c\0pass\0",
    b"5600-7f00 ---p 00000000 00:00 0 [rollup]\nRss:                1024 kB\nPrivate_Dirty:        12 kB\n",
)  # fmt: skip


def _run_proc(data: bytes) -> None:
    with mock.patch.object(procfs, "_content", return_value=data):
        found = procfs.status(7)
        for name in ("name", "state", "pid", "parent", "tracer", "user", "inner_id", "seccomp", "pending_signals", "caught_signals",
                     "ignored_signals", "thread_count", "capabilities", "cpu_features"):  # fmt: skip
            with suppress(MalformedError):
                getattr(found, name)
        for read in (procfs.stat, procfs.comm, procfs.thread_name, procfs.command_line, procfs.control_groups, procfs.system_call,
                     procfs.kernel_stack, procfs.run_queue_ns, procfs.mappings, procfs.memory_sums):  # fmt: skip
            with suppress(MalformedError):
                read(7)


def _readings() -> list[bytes]:
    stacks = np.array([(1, 0, 0, 0), (2, 0, 0, 0), (3, 0, 2, 0), (4, 2, 1, 1)], "u8,u4,u2,u2").tobytes()
    cells = np.array(
        [(2, 7, 1024, 100, 1024, 100), (3, 8, 2048, 10, 0, 0), (0, 0, 1, 1, 1, 1)], "u4,u4,i8,i8,i8,i8"
    ).tobytes()
    tables = ([("/a.py", "f", 1), ("<string>", "<module>", 1)], [(0, 3), (1, 1)], stacks, np.array([0, 1, 0], "u4").tobytes(), cells,
              np.arange(7, dtype="i8").tobytes(), 1, [(7, "main")], [(9,)])  # fmt: skip
    sums = [((("/a.py", 3), ("/b.py", 1)), 2, 100, 0), ((("<unknown>", 0),), 1, 5, 1)]
    return [marshal.dumps(tables, 4), marshal.dumps((100, True), 4) + _BETWEEN + marshal.dumps(sums, 4)]


_BETWEEN = b"<next>"


def _run_agent(data: bytes) -> None:
    """One piece for the sampler's tables, several for traces."""
    frames = Frames(Path("/nonexistent"))
    pieces = data.split(_BETWEEN)
    if len(pieces) == 1:
        samples.to_profile(samples.SamplerTables.of(_decoded(pieces)), frames, {7: (70, "k")}).check_valid()
    else:
        traced_blocks.to_profile(traced_blocks.TracedBlocks.of(_decoded(pieces)), frames).check_valid()


def _decoded(pieces: list[bytes]) -> Iterator[object]:
    return (plain.decode(piece) for piece in pieces)


def _spied() -> list[bytes]:
    frames = [{"name": "process 12:python x", "file": None, "line": None}, {"name": "thread (34): worker"},
              {"name": "f", "file": "/x/y.py", "line": 5}, {"name": "g", "file": "y.so", "line": 1}, {"name": "0x7f00"}]  # fmt: skip
    profiles = [{"samples": [[0, 1, 2], [0, 1, 3, 4]], "weights": [1, 1]}, {"samples": [[1, 2]]}]
    return [json.dumps({"shared": {"frames": frames}, "profiles": profiles}).encode()]


@cache
def _ourselves() -> Process:
    return open_target(os.getpid())


def _run_spied(data: bytes) -> None:
    """What py-spy says of a target that may have misled it."""
    options = CpuOptions(subprocesses=True, native=True, idle=len(data) % 2 == 0)
    convert(parse(data), options, _ourselves(), {34: 35}).check_valid()


def _run_summary(data: bytes) -> None:
    entry = Entry(Path("/x/cpu-y-1.pb.gz"), 1, 0, recordings.read_summary(data[: pprof.SUMMARY_WITHIN_BYTES]))
    list_recordings.render([entry], "/x", Console(file=io.StringIO(), width=80))
    json.dumps(list_recordings.to_json([entry], "/x"))


def _summaries() -> list[bytes]:
    return [recordings.write(Recording(kind, _profile(), {}, {})) for kind in ("cpu", "gil", "x")]


def _in_summary(random: Random, data: bytes) -> bytes:
    if random.random() < 0.2:
        return several(raw)(random, data)
    return gzip.compress(bytes_field(pprof.SUMMARY_FIELD, document(random, pprof.read_summary(data))), 1, mtime=0)


_MOUNTS = (
    b"36 35 0:98 / /mnt/dead rw,noatime master:1 - fuse.sshfs x rw,user_id=1000,group_id=1000\n"
    b"37 35 0:99 /a\\040b /mnt/b rw - fuse /dev/fuse rw,user_id=0\n38 35 8:1 / / rw - ext4 /dev/root rw\n",
    b"pos:\t0\nflags:\t02100000\nmnt_id:\t36\nino:\t7\n",
)


def _run_mounts(data: bytes) -> None:
    list(parse_served(data))
    with suppress(MalformedError):
        procfs.parse_mount_number(data)


def _archives() -> list[bytes]:
    found = []
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(buffer := io.BytesIO(), "w", packing) as archive:
            archive.writestr("shop/cart.py", "def price():\n    return 7\n" * 20)
            archive.writestr("__main__.py", "import shop.cart\n")
        found.append(buffer.getvalue())
    return [*found, b"#!/usr/bin/env python3\n" + found[0]]


def _run_archive(data: bytes) -> None:
    for path in ("/srv/app.pyz/shop/cart.py", "/srv/a.zip/__main__.py"):
        _, name = archives.split(path) or ("", "")
        with suppress(OSError):
            assert len(archives.member(data, name)) <= LARGEST_BYTES


# -- the list ------------------------------------------------------------------------------------------------------

TARGETS = {
    target.name: target
    for target in (
        Target("pprof", 80_000, _messages, several(protobuf, protobuf, raw), _run_reader),
        Target("gzip", 20_000, _messages, _gzipped, _run_reader),
        Target("speedscope", 60_000, lambda: [encode(_profile(), "speedscope")], several(document), _run_reader),
        Target("collapsed", 80_000, lambda: [encode(_profile(), "collapsed"), b"# x\nf (/a (1).py:3);g (b.py:9) 42\n"],
               several(lines, raw), _run_reader),
        Target("views", 3_000, _messages, several(protobuf), _run_views),
        Target("recording", 4_000, _recordings, _in_extension, _run_recording),
        Target("spool", 8_000, _spools, _in_blocks, lambda data: recordings.read(data).profile.check_valid()),
        Target("eventlog", 25_000, _event_logs, _in_log, _run_event_log),
        Target("tracepoint", 48_000, lambda: _DESCRIPTIONS, several(tokens, lines, raw), _run_description),
        Target("selection", 10_000, lambda: [b"sched:*\n!futex\nopenat,read\nsched:sched_switch\nblock:x"], several(lines, raw), _run_selection),
        Target("elf", 60_000, _library, _in_elf, _run_elf, (NotElfError, CfiError)),
        Target("cfi", 160_000, _tables, several(numbers, raw), _run_cfi, (CfiError,)),
        Target("expression", 80_000, lambda: [b"\x77\x08\x06", b"\x08\x07\x0e\0\0\0\0\0\0\0\1\x1e\x24\x23\x05"], several(raw), _run_expression, (CfiError,)),
        Target("linetable", 40_000, lambda: [(lambda a, b=1: a).__code__.co_linetable, bytes(range(256)), b"\xe8\x7f\x7f" * 9],
               several(raw, numbers), _run_lines),
        Target("demangle", 137_000, lambda: _MANGLED, several(tokens, raw), _run_names),
        Target("offsets", 60_000, _debug_offsets, several(numbers), _run_offsets, (ImplausibleLayoutError,)),
        Target("proc", 40_000, lambda: _PROC, several(lines, raw), _run_proc, (MalformedError,)),
        Target("agent", 60_000, _readings, several(numbers, raw), _run_agent),
        Target("pyspy", 20_000, _spied, document, _run_spied, (DocumentError,)),
        Target("summary", 20_000, _summaries, _in_summary, _run_summary),
        Target("archive", 20_000, _archives, several(numbers, raw), _run_archive),
        Target("mounts", 15_000, lambda: _MOUNTS, several(lines, raw), _run_mounts, (MalformedError,)),
    )
}  # fmt: skip
