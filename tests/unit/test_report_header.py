"""What stands above each table."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pprofpy.model.profile import Collection, Mapping, Profile
from pprofpy.reports import header
from tests.stacks import profile_of


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def lines(profile: Profile, filters: dict[str, str] | None = None) -> list[str]:
    return header.lines(header.build(profile, 1, profile.total(1), filters), "minimum")


def test_a_bare_profile_has_little_to_say() -> None:
    assert lines(replace(profile_of({"a": 1}), mappings=[])) == ["Type: cpu"]


def test_all_that_is_known_is_said_in_the_order_of_go() -> None:
    profile = replace(
        profile_of({"a": 150}),
        mappings=[Mapping("/usr/bin/server", build_id="cafe")],
        comments=("by hand", "#hidden"),
        doc_url="https://example.invalid/doc",
        time_ns=1_700_000_000_000_000_000,
        duration_ns=3_000_000_000,
    )

    assert lines(profile) == [
        "File: server",
        "Build ID: cafe",
        "by hand",
        "Type: cpu",
        "Doc: https://example.invalid/doc",
        "Time: 2023-11-14 22:13:20 UTC",
        "Duration: 3s, Total samples = 1.50s (50.00%)",
    ]


def test_filters_in_force_are_listed_and_long_ones_cut() -> None:
    found = lines(profile_of({"a": 1}), {"focus": "a", "show-from": "b" * 100})

    assert found[-3:] == ["Active filters:", "   focus=a", "   show_from=" + "b" * 70 + "…"]


def test_losses_are_said_as_far_as_they_are_known() -> None:
    notes, basis = ("Clock jumped.",), ("Idle, too.",)
    collection = Collection("py-spy 1", "pid 7 (app)", asked=1000, got=990, late=8, errors=1, notes=notes, basis=basis)

    samples = "Samples: about 1,000 expected, 990 taken, 8 late, 1 error"
    assert header.losses(collection) == [samples, "Note: Clock jumped."]
    assert header.losses(collection, verbose=True) == [
        "Recorded: pid 7 (app), py-spy 1",
        samples,
        "Note: Idle, too.",
        "Note: Clock jumped.",
    ]


@pytest.mark.parametrize(
    ("collection", "words"),
    [
        (Collection(), ""),
        (Collection(dropped=0), "Samples: 0 dropped"),
        # CPU time divided by the period: chance, and its rounding, may give more
        (Collection(asked=154, got=159, late=0, errors=0), "Samples: about 154 expected, 159 taken, 0 late, 0 errors"),
    ],
)
def test_a_whole_profile_needs_no_line_unless_one_asks(collection: Collection, words: str) -> None:
    assert header.losses(collection) == []
    assert header.losses(collection, verbose=True) == ([words] if words else [])


@pytest.mark.parametrize("time_ns", [2**63 - 1, -(2**63), 10**30])
def test_an_absurd_time_is_no_crash(time_ns: int) -> None:
    assert any(line.startswith("Time: ") for line in lines(replace(profile_of({"a": 1}), time_ns=time_ns)))
