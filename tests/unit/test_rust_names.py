"""Names of Rust functions: symbols that rustc 1.95 made, held against LLVM's reading of them; and forged ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.rust import rust_name

GENERIC = "_RINvCs6xxl1lAjzDf_1a7generic"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("_RNvCs6xxl1lAjzDf_1a4main", "a::main"),
        ("_RINvCs6xxl1lAjzDf_1a5applyNCNvB2_4mains_0EB2_", "a::apply::<a::main::{closure#1}>"),
        (f"{GENERIC}Ahj4_TsReRSyEEB2_", "a::generic::<[u8; 4], (i16, &str, &[u64])>"),
        (
            f"{GENERIC}FG_RL0_hRL0_eERL0_hINtNtCsgEmfK2I1SDS_4core6option6OptionINtNtBO_6result6ResultuNtNtNtCsjrHSEGnQ3l9_"
            "3std2io5error5ErrorEEEB2_",
            "a::generic::<for<'a> fn(&'a u8, &'a str) -> &'a u8, "
            "core::option::Option<core::result::Result<(), std::io::error::Error>>>",
        ),
        (
            f"{GENERIC}FG_hQL0_aEzFUKCPhOcEuEB2_",
            "a::generic::<for<'a> fn(u8, &'a mut i8) -> !, unsafe extern \"C\" fn(*const u8, *mut char)>",
        ),
        (
            f"{GENERIC}INtNtCslNYArtu3iFV_5alloc5boxed3BoxDNtNtCsgEmfK2I1SDS_4core3fmt5DebugNtNtB14_6marker4SendEL_E"
            "RDNtNtNtNtB14_4iter6traits8iterator8Iteratorp4ItemhEL_EB2_",
            "a::generic::<alloc::boxed::Box<dyn core::fmt::Debug + core::marker::Send>, "
            "&dyn core::iter::traits::iterator::Iterator<Item = u8>>",
        ),
        ("_RNvMs0_Cs6xxl1lAjzDf_1aINtB5_3ArrKjc_Kb1_Kc78_E3lenB5_", "<a::Arr<12, true, 'x'>>::len"),
        ("_RINvCs1_1a1fKan5_KpKc27_E", "a::f::<-5, _, '\\''>"),
        (
            "_RNSNvYNCINvNtCsjrHSEGnQ3l9_3std2rt10lang_startuE0INtNtNtCsgEmfK2I1SDS_4core3ops8function6FnOnceuE9call_once"
            "6vtableCs6xxl1lAjzDf_1a.llvm.687755761458499055",
            "<std::rt::lang_start<()>::{closure#0} as core::ops::function::FnOnce<()>>::call_once::{shim:vtable#0}",
        ),
        ("_RNvNtCs6xxl1lAjzDf_1au9gre_6ka8i3ist", "a::größe::ist"),
        ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
        ("_ZN1a14Point$LT$T$GT$4show17he3bc75a51dce0405E", "a::Point<T>::show"),
        ("_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0eeee98bd8e2c96fE", "<&T as core::fmt::Debug>::fmt"),
        (
            "_ZN3std2rt10lang_start28_$u7b$$u7b$closure$u7d$$u7d$17he39bdf0230cb3880E.llvm.6564890267999410982",
            "std::rt::lang_start::{{closure}}",
        ),
    ],
)
def test_names_read_as_their_authors_wrote_them(symbol: str, name: str) -> None:
    assert readable(symbol) == name


@pytest.mark.parametrize(
    "symbol",
    [
        "_R", "_RESERVED", "_RNG_init", "_Rb_tree_increment",  # C's
        "_RNvC1a", "_RNvC9a1b", "_RB_", "_RNvB5_1a", "_RNvNvC1a1bB2_x",  # cut short, or referring to the right
        "_RINvC1a1bKb2_E", "_RINvC1a1bKc110000_E", "_RINvC1a1bKRe616263_E",  # no such constants
        "_RINvC1a1bRL0_hE", "_RINvC1a1bFGz_EuE",  # no such lifetimes
        "_RNvC1au3___a", "_RNvC1au9zzzzzzzzz",  # no Punycode
        "_ZN3foo17h0123456789abcdefE3bar", "_ZN9foo17h0123456789abcdefE", "_ZN7$WHAT$a17h0123456789abcdefE",
        "_ZN5$ua$x17h0123456789abcdefE", "_ZN8$ud800$x17h0123456789abcdefE",  # no printable characters
    ],
)  # fmt: skip
def test_what_is_not_understood_stays_as_it_is(symbol: str) -> None:
    assert rust_name(symbol) == ""


def doublings(count: int, inner: str) -> str:
    """A tuple of two, of which each is the one before: some bytes for 2 ** count of `inner`."""
    text, last = "INvC1a1b", ""
    for _ in range(count):
        place = len(text)
        text += f"T{last or inner}{last or inner}E"
        last = f"B{in_base_62(place)}_"
    return f"_R{text}E"


def in_base_62(number: int) -> str:
    """As back references have it: `_` alone is 0."""
    digits, rest = "", number - 1
    while True:
        rest, digit = divmod(rest, 62)
        digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
        if not rest:
            return digits


def test_back_references_multiply_up_to_a_limit() -> None:
    assert rust_name(doublings(3, "h")).count("u8") == 2 + 4 + 8


@pytest.mark.parametrize(
    "symbol",
    [
        doublings(40, "h"), doublings(40, "C0"), doublings(40, "NvC00"),
        "_RNvC1a" * 500, "_R" + "NvNv" * 900, "_RMC1a" + "R" * 3_000 + "h", "_RINvC1a1b" + "L_" * 1_900 + "E",
        "_RINvC1a1bL" + "0" * 3_900, "_RNvC1au3900" + "9" * 3_900, "_RNvC1au3900_" + "a9" * 1_950,
        "_RINvC1a1b" + "DG_" * 1_000, "_ZN" + "17h0123456789abcdefE" * 190 + "!", "_ZN" + "1" * 3_900,
        "_R" + "I" * 50_000,
    ],
)  # fmt: skip
def test_names_that_explode_are_given_up_in_time(symbol: str) -> None:
    started = time.monotonic()

    assert len(rust_name(symbol)) <= 4_096

    assert time.monotonic() - started < 10


PARTS = [
    "C1a", "Nv", "NC", "I", "M", "X", "Y", "B_", "B0_", "T", "E", "h", "R", "L_", "s_", "1b", "u3aa1", "D", "FG_",
    "Kj1_", "A", "p", "0",
]  # fmt: skip
SPELLED = st.lists(st.sampled_from(PARTS), max_size=40).map(lambda parts: "_R" + "".join(parts))


@given(symbol=SPELLED | st.from_regex(r"_R[A-Z]\w{0,60}", fullmatch=True))
def test_any_symbol_is_read_or_left(symbol: str) -> None:
    assert rust_name(symbol).isprintable()
