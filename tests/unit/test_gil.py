"""The interpreter lock's record and report, on waits built by hand."""

from __future__ import annotations

import io

from rich.console import Console

from pprofpy.model.gil import UNSEEN, WAITS, Block, GilRecord, GilSlice, GilThread, Hold, Wait
from pprofpy.model.profile import Collection, Frame, Function
from pprofpy.reports import gil as report

ROOT, WANT, HOLD, OTHER = (Frame(Function(f"app.{name}", name), 7) for name in ("main", "want", "hold", "other"))


def record(*blocks: Block, wait_ns: int = 1000) -> GilRecord:
    """Thread 1 waits four times in `want`, while the threads 2 and 3 hold the lock."""
    return GilRecord(
        threads=(
            GilThread(9, 1, "one", wait_count=4, wait_ns=wait_ns, wait_max_ns=wait_ns // 2),
            GilThread(9, 2, "two", held_on_ns=300, held_off_ns=400),
            GilThread(9, 3, "idle"),
        ),
        waits=(Wait(1, (WANT, ROOT), 4, wait_ns, wait_ns // 2),),
        holds=(Hold(2, (HOLD, ROOT), 300, 400),),
        blocks=blocks,
        slices=(GilSlice(0, 500, 500, 1000), GilSlice(500, 1000, 200, 0)),
        duration_ns=1000,
        collection=Collection(target="app (pid 9)"),
    )


def held(stack: Frame, time_ns: int) -> Block:
    return Block(2, (stack, ROOT), 1, (WANT, ROOT), time_ns)


def test_time_in_which_no_holder_was_seen_is_said_to_be_so() -> None:
    shares = [
        (block and block.holder_stack[0], time_ns) for _, block, time_ns in record(held(HOLD, 600)).waits_by_holder()
    ]

    assert shares == [(HOLD, 600), (None, 400)]


def test_time_charged_to_holders_is_scaled_down_to_the_wait() -> None:
    shares = [time_ns for _, _, time_ns in record(held(HOLD, 900), held(OTHER, 300)).waits_by_holder()]

    assert shares == [750, 250]


def test_the_profile_has_the_holder_above_the_waiter() -> None:
    profile = record(held(HOLD, 750)).to_profile()

    samples = {stack: values for stack, values, _ in profile.samples()}
    assert samples == {(HOLD, ROOT, WAITS, WANT, ROOT): (3, 750), (UNSEEN, WAITS, WANT, ROOT): (1, 250)}
    assert [str(one) for one in profile.sample_types] == ["contentions/count", "delay/nanoseconds"]
    assert {label.key: label.value for _, _, labels in profile.samples() for label in labels} == {
        "thread": "one",
        "pid": 9,
        "tid": 1,
        "holder": "two (2)",
    }


def test_the_report_sums_up_by_thread_and_by_place() -> None:
    table = report.build(record(held(HOLD, 600)))

    assert [thread.name for thread in table.threads] == ["one", "two"]
    assert [(row.place, row.count, row.total_ns, row.max_ns) for row in table.places] == [("app.want:7", 4, 1000, 500)]
    assert [(row.place, row.on_ns, row.off_ns) for row in table.holds] == [("app.hold:7", 300, 400)]
    assert [(row.holder, row.waiter, row.total_ns) for row in table.pairs] == [
        ("app.hold:7", "app.want:7", 600),
        ("[no holder seen]", "app.want:7", 400),
    ]
    assert (table.held_share, table.waiting) == (0.7, 1.0)


def test_each_process_has_a_lock_of_its_own() -> None:
    threads = (GilThread(9, 1, "one", held_on_ns=900), GilThread(8, 2, "two", held_on_ns=800), GilThread(7, 3, "idle"))
    found = GilRecord(
        threads, slices=(GilSlice(0, 1000, 1700, 0),), duration_ns=1000, collection=Collection(target="app")
    )
    console = Console(file=io.StringIO(), width=80)

    report.render(report.build(found), console)

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "The GILs of 2 processes: app and its children" in text
    assert "Held 170.0% of the time" in text
    assert "of 200%" in text
    assert " pid  tid  thread" in text
    assert "   9    1  one" in text
    assert "   8    2  two" in text


def test_the_tables_fit_eighty_columns_and_disarm_names() -> None:
    hostile = Frame(Function("app.\x1b[31m" + "x" * 200), 1)
    evil = GilThread(9, 1, "\x1b]0;evil", wait_ns=10**13, wait_count=10**6, wait_max_ns=10**12)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)

    report.render(
        report.build(
            GilRecord(
                threads=(evil,),
                waits=(Wait(1, (hostile,), 1, 10, 10),),
                blocks=(Block(2, (hostile,), 1, (hostile,), 10),),
                slices=tuple(GilSlice(i * 10, i * 10 + 10, 5, 20) for i in range(200)),
                duration_ns=2000,
            )
        ),
        console,
    )

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_recording_in_which_nobody_waited_has_empty_tables() -> None:
    table = report.build(GilRecord(duration_ns=10))
    console = Console(file=io.StringIO(), width=80)

    report.render(table, console, by_interval=True)

    assert report.to_json(table)["threads"] == []
    assert "0.00 threads waited" in console.file.getvalue()  # type: ignore[attr-defined]
