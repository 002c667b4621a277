"""Run-queue latency against an independent account: the text of `perf script`, of the same events at the same time."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.model.latency import LatencyRecord, merge_waits
from pprofpy.model.trace import Trace
from tests.conftest import rounds_until_right
from tests.integration.sched_reference import Account, analyse, loading, needs_perf, perf_sched_record
from tests.recorders import latency_record, trace_of
from tests.sight import on_sighted_cpus

pytestmark = [pytest.mark.ebpf, needs_perf]


def record_beside_perf(folder: Path, *load: str) -> tuple[LatencyRecord, Trace, Account]:
    """Both watch the same work. Returns our record, our events, and perf's account of the same time."""
    output = folder / f"{uuid4()}.data"
    with (
        loading(*load, prefix=on_sighted_cpus()) as program,
        perf_sched_record(output),
        SchedRecorder(SchedOptions(Scope(program.pid), trace=True)) as recorder,
    ):
        attached_ns = recorder.now_ns()
        program.work()
        end_ns = recorder.now_ns()
        record = latency_record(recorder.finish())
        trace = trace_of(recorder, record)
    return record, trace, analyse(output, attached_ns, end_ns)


@pytest.mark.parametrize("load", [("messages", "4", "800"), ("periodic", "6", "1000")], ids=lambda load: load[0])
def test_counts_averages_maxima_and_quantiles_are_those_of_perf(tmp_path: Path, load: tuple[str, ...]) -> None:
    losses = []

    def measure() -> list[str]:
        # Given a known load, watched by perf and by us at the same time
        record, trace, account = record_beside_perf(tmp_path, *load)

        # Then all that we say of all threads together is what perf's events say
        ours = merge_waits(one.waits for one in record.threads)
        theirs = np.array([wait for one in record.threads for wait in account.waits[one.tid]])
        (p99_ns,) = ours.quantiles_ns([0.99])
        # On a busy machine perf loses events now and then: then threads leave a CPU that they never got.
        losses.append(sum(account.holes[one.tid] for one in record.threads))
        figures = [
            ("lost", record.collection.dropped, pytest.approx(0, abs=0.002 * len(theirs))),
            ("count", ours.count, pytest.approx(len(theirs), rel=0.005)),
            ("average", ours.avg_ns, pytest.approx(theirs.mean(), rel=0.03)),
            ("longest", ours.max_ns, pytest.approx(theirs.max(), abs=5_000)),
            ("p99", p99_ns, pytest.approx(np.quantile(theirs, 0.99, method="inverted_cdf"), rel=0.05)),
        ]
        # And of each thread
        for thread in (one for one in record.threads if not account.holes[one.tid]):
            waits = np.array(account.waits[thread.tid] or [0])
            figures += [
                (f"{thread.tid}'s count", thread.waits.count, pytest.approx(len(waits), rel=0.005, abs=2)),
                (f"{thread.tid}'s longest", thread.waits.max_ns, pytest.approx(waits.max(), abs=5_000)),
            ]
            assert thread.waits.histogram.total == thread.waits.count

        # And the ordered events sum up to the same
        assert trace.to_profile().values.sum(axis=0).tolist() == record.to_profile().values.sum(axis=0).tolist()
        assert (np.diff(trace.records["ts_ns"].astype(np.int64)) >= 0).all()
        return [f"{name}: {got}, not {expected}" for name, got, expected in figures if got != expected]

    try:
        rounds_until_right(measure, rounds=6)
    except pytest.fail.Exception:
        if min(losses) > 3:
            pytest.skip(f"perf lost {losses} events in its rounds: there is nothing to compare with")
        raise


def test_perf_sees_its_events_while_our_probes_are_attached(tmp_path: Path) -> None:
    # Given a program, perf, and our probes on the same tracepoints, watching the whole machine
    output = tmp_path / "perf.data"
    with (
        loading("messages", "2", "500", prefix=on_sighted_cpus()) as program,
        perf_sched_record(output),
        SchedRecorder(SchedOptions(Scope())) as recorder,
    ):
        true_switches = program.work()
        tids = {one.tid for one in latency_record(recorder.finish()).threads if one.pid == program.pid}

    # Then perf has every switch that the kernel's accounting has (it may itself lose one now and then)
    seen = sum(count for tid, count in analyse(output).switches.items() if tid in tids)
    assert seen == pytest.approx(true_switches, rel=0.005, abs=20)
