"""Tracepoint records in words: the kernel's own format strings and C expressions, on records built by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.events.printfmt import compile_format, field_list, symbol_fields
from pprofpy.events.tracepoint import Columns, Tracepoint, enumerators_of, parse_format

COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""


def tracepoint(print_format: str, *fields: str, **constants: int) -> Tracepoint:
    """A tracepoint with these fields: `offset size signed declaration`."""
    described = ""
    for field in fields:
        offset, size, signed, declared = field.split(" ", 3)
        described += f"\tfield:{declared};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"
    text = f"name: test\nID: 7\nformat:\n{COMMON}\n{described}\nprint fmt: {print_format}\n"
    return parse_format("group", text, constants)


def words(point: Tracepoint, *records: bytes, symbols: dict[int, str] | None = None) -> list[str]:
    """The records in words; each is what follows the common fields."""
    width = max(len(record) for record in records)
    raw = np.array([list(bytes(8) + record.ljust(width, b"\0")) for record in records], np.uint8)
    return compile_format(point, symbols)(Columns(raw))


def test_a_description_is_read_field_by_field() -> None:
    point = tracepoint(
        '"x"',
        "8 16 0 char comm[16]",
        "24 4 1 pid_t pid",
        "28 4 0 __data_loc char[] name",
        "32 8 0 const char * path",
        "40 8 0 unsigned long args[1]",
    )

    assert (point.name, point.number, point.size) == ("group:test", 7, 48)
    assert [field.name for field in point.fields] == ["comm", "pid", "name", "path", "args"]
    assert [field.is_text for field in point.fields] == [True, False, True, False, False]
    assert [field.is_number for field in point.fields] == [False, True, False, True, False]
    assert point.has_dynamic_fields


def test_what_is_no_description_is_refused() -> None:
    with pytest.raises(ProfileFormatError):
        parse_format("group", "hello")


@pytest.mark.parametrize(
    ("conversion", "value", "shown"),
    [
        ("%d", -1, "-1"),
        ("%u", -1, "4294967295"),
        ("%llu", -1, "18446744073709551615"),
        ("%lx", -1, "ffffffffffffffff"),
        ("%#x", 255, "0xff"),
        ("%03d", 7, "007"),
        ("%hhu", 257, "1"),
        ("%zu", 12, "12"),
        ("%c", 65, "A"),
        ("%c", 27, "\\x1b"),
        ("%o", 8, "10"),
        ("%p", 0xFFFF888012345678 - (1 << 64), "0xffff888012345678"),
    ],
)
def test_numbers_take_the_width_and_sign_of_their_conversion(conversion: str, value: int, shown: str) -> None:
    point = tracepoint(f'"{conversion}", REC->x', "8 8 1 long x")

    assert words(point, struct.pack("<q", value)) == [shown]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("REC->x >> 20", 0xFFFFFFFFFFF),
        ("(REC->x & 0xff) == 255 ? 10 : 20", 10),
        ("!REC->x || 0", 0),
        ("(u8)REC->x", 255),
        ("(int)REC->x", -1),
        ("(unsigned short)(REC->x + 2)", 1),
        ("REC->x / 3", 0x5555555555555555),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 << 10 | 1", 1025),
        ("~0UL & 0xf", 15),
        ("REC->x > 5", 1),
        ("__builtin_expect(!!(3), 1)", 1),
        ("sizeof(u64) * 2", 16),
        ("'A'", 65),
        ("MY_CONSTANT + 1", 43),
    ],
)
def test_expressions_follow_the_rules_of_c(expression: str, value: int) -> None:
    point = tracepoint(f'"%lld", {expression}', "8 8 0 u64 x", MY_CONSTANT=42)

    assert words(point, b"\xff" * 8) == [str(value)]


def test_flags_and_symbols_are_named_and_what_is_unknown_is_not_hidden() -> None:
    point = tracepoint(
        '"%s %s", __print_flags(REC->f, "|", {1, "READ"}, {2 | 4, "BOTH"}, {0, ((void *)0)}), '
        '__print_symbolic(REC->s, { 0, "HI" }, { 1U << 4, "TIMER" })',
        "8 4 0 unsigned int f",
        "12 4 0 unsigned int s",
    )

    shown = words(point, *(struct.pack("<II", f, s) for f, s in [(1, 0), (7, 16), (9, 3), (0, 0)]))

    assert shown == ["READ HI", "READ|BOTH TIMER", "READ|0x8 0x3", " HI"]


def test_a_table_of_unknown_constants_leaves_the_number() -> None:
    with_names = '"%s", __print_flags(REC->f, "|", {I_DIRTY, "DIRTY"})'

    assert words(tracepoint(with_names, "8 4 0 int f"), struct.pack("<I", 5)) == ["0x5"]
    assert words(tracepoint(with_names, "8 4 0 int f", I_DIRTY=4), struct.pack("<I", 5)) == ["DIRTY|0x1"]
    assert enumerators_of(f"print fmt: {with_names}") == {"I_DIRTY"}


def test_text_is_cut_at_its_end_and_made_safe() -> None:
    point = tracepoint('"comm=%s name=%s"' + ", REC->comm, __get_str(name)", "8 16 0 char comm[16]",
                       "24 4 0 __data_loc char[] name")  # fmt: skip
    comm, name = b"a\x1b[31m\0rubbish".ljust(16, b"!"), b"new\nline \xff\0"

    record = comm + struct.pack("<I", len(name) << 16 | 28) + name

    assert words(point, record, comm + struct.pack("<I", 1 << 16 | 28) + b"\0") == [
        "comm=a\\x1b[31m name=new\\nline \\xff",
        "comm=a\\x1b[31m name=",
    ]


def test_text_that_was_cut_off_says_so() -> None:
    point = tracepoint('"%s", __get_str(name)', "8 4 0 __data_loc char[] name")

    (shown,) = words(point, struct.pack("<I", 500 << 16 | 12) + b"x" * 100)

    assert shown == "x" * 100 + "…"


def test_relative_locations_arrays_and_addresses() -> None:
    point = tracepoint(
        '"%s %s %pI4 %pI6c %pM %s", __get_rel_str(name), __print_hex(REC->raw, 3), REC->v4, REC->v6, REC->mac, '
        "__print_array(__get_dynamic_array(n), __get_dynamic_array_len(n) / 2, 2)",
        "8 4 0 __rel_loc char[] name",
        "12 3 0 u8 raw[3]",
        "15 4 0 __u8 v4[4]",
        "19 16 0 __u8 v6[16]",
        "35 6 0 u8 mac[6]",
        "41 4 0 __data_loc u16[] n",
    )
    fixed = b"\x01\x02\xff" + bytes([127, 0, 0, 1]) + bytes(10) + b"\xff\xff\x7f\0\0\x01" + bytes(range(6))
    place = struct.pack("<I", 4 << 16 | 45)

    record = struct.pack("<I", 3 << 16 | 37) + fixed + place + b"\x05\0\x00\x01hi\0"

    assert words(point, record) == ["hi 01 02 ff 127.0.0.1 ::ffff:127.0.0.1 00:01:02:03:04:05 {0x5,0x100}"]


def test_addresses_of_functions_are_named_where_the_names_are_known() -> None:
    point = tracepoint('"from %pS to %ps", (void *)REC->ip, REC->other', "8 8 0 u64 ip", "16 8 0 void * other")
    record = struct.pack("<QQ", 0xFFFFFFFF81000000, 5)

    assert words(point, record, symbols={0xFFFFFFFF81000000: "do_it"}) == ["from do_it to 0x5"]
    assert [field.name for field in symbol_fields(point)] == ["ip", "other"]


def test_only_the_argument_that_is_not_understood_is_left_out() -> None:
    point = tracepoint('"age=%lu pid=%d"' + ", (jiffies - REC->x) * 1000 / 250, REC->x", "8 4 1 int x")

    assert words(point, struct.pack("<i", 3)) == ["age=? pid=3"]


@pytest.mark.parametrize("broken", ['"%d"', "REC->x", '"%d" REC->x', '"%n", REC->x', '"', "", '"%s", ({ int y = 1; })'])
def test_a_description_that_is_not_understood_becomes_a_list_of_fields(broken: str) -> None:
    point = tracepoint(broken, "8 4 1 int x", "12 8 0 void * p", "20 2 0 char c[2]", "22 2 0 u8 raw[2]")

    shown = words(point, struct.pack("<iQ2s2s", -3, 0xABC, b"hi", b"\x01\x02"))

    assert shown in (["x=-3 p=0xabc c=hi raw=0102"], ["?"])
    assert field_list(point)(Columns(np.zeros((0, 24), np.uint8))) == []


@pytest.mark.parametrize(
    "hostile", ['"%d", ' + "(" * 5000 + "1" + ")" * 5000, '"%999999999d", REC->x', '"%d", ' + "9" * 5000, '"%d", 1 / 0']
)
def test_a_hostile_description_does_no_harm(hostile: str) -> None:
    assert words(tracepoint(hostile, "8 4 1 int x"), struct.pack("<i", 5)) in (["x=5"], ["?"], ["0"])


def test_many_records_are_many_lines_in_their_order() -> None:
    point = tracepoint('"%d"' + ", REC->x", "8 4 1 int x")

    assert words(point, *(struct.pack("<i", number) for number in range(1000))) == [str(one) for one in range(1000)]
