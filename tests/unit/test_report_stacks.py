"""Stacks in one line, chains of waiting and waking, and how the off-CPU report reads them."""

from __future__ import annotations

import io

from rich.console import Console

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Label, Profile, Stack
from pprofpy.model.waits import OFF_CPU_TYPES, chain, unchain
from pprofpy.reports import off_cpu
from pprofpy.reports.stack_lines import one_line

LIBRARY = "/usr/lib/python3.11/threading.py"


def frame(name: str, line: int, file: str = "/srv/app.py") -> Frame:
    return Frame(Function(name, name.rpartition(".")[2], file), line)


WAIT = frame("threading.Condition.wait", 320, LIBRARY)
GET = frame("app.take", 7)
START = frame("threading.Thread._bootstrap", 9, LIBRARY)
PUT = frame("app.put", 12)
REASON = Frame(Function("[lock]"))


def profile_of(*samples: tuple[Stack, str, str, int]) -> Profile:
    """(stack, reason, waker, ns) each."""
    builder = ProfileBuilder(OFF_CPU_TYPES)
    for stack, reason, waker, time_ns in samples:
        facts: dict[str, str | int] = {
            "state": "sleeping",
            "reason": reason,
            "thread": "python",
            "tid": 7,
            "pid": 5,
            "waker": waker,
        }
        builder.add(stack, (1, time_ns), tuple(Label(key, value) for key, value in facts.items()))
    return builder.build()


def test_a_chain_comes_apart_as_it_was_put_together() -> None:
    blocked, waker = (REASON, WAIT, GET), (PUT, START)
    assert unchain(chain(blocked, waker)) == (blocked, waker)
    assert unchain(blocked) == (blocked, ())


def test_a_line_begins_at_the_leaf_and_leaves_out_how_threads_start() -> None:
    assert one_line((WAIT, GET, START)) == "threading.Condition.wait:320 < app.take:7"


def test_a_narrow_line_still_has_the_users_own_code() -> None:
    assert one_line((WAIT, WAIT, WAIT, GET, PUT), 45) == "threading.Condition.wait:320 … app.take:7"
    assert one_line((GET, PUT, PUT, PUT), 22) == "app.take:7 …"


def test_the_place_is_the_users_own_line_and_a_chain_joins_threads_only() -> None:
    # Given a wait for another thread, and one for a timer
    by_thread = chain((REASON, WAIT, GET, START), (PUT, START)), "lock", "python (8)", 3_000_000
    by_timer = chain((REASON, GET), (Frame(Function("[timer/irq]")),)), "sleep", "timer/irq", 1_000_000

    report = off_cpu.build(profile_of(by_thread, by_timer), by_waker=True)

    assert [(row.place, row.reason, row.waker) for row in report.places] == [
        ("app.take:7", "lock", "python (8)"),
        ("app.take:7", "sleep", "timer/irq"),
    ]
    (row,) = report.chains
    assert (row.blocked, row.woken_by, row.total_ns) == ((WAIT, GET, START), (PUT, START), 3_000_000)
    assert report.total_ns == 4_000_000
    assert off_cpu.to_json(report)["chains"][0]["woken_by"][0] == {
        "function": "app.put",
        "file": "/srv/app.py",
        "line": 12,
    }


def test_both_ends_of_a_chain_are_printed() -> None:
    by_thread = chain((REASON, WAIT, GET), (PUT,)), "lock", "python (8)", 3_000_000
    output = io.StringIO()

    off_cpu.render(off_cpu.build(profile_of(by_thread)), Console(file=output, width=80))

    waited, ended = output.getvalue().splitlines()[-2:]
    assert waited == "   3ms      1  3ms  lock    threading.Condition.wait:320 < app.take:7"
    assert ended == "            ended by  app.put:12"
