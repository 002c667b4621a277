"""Kill recordings of every kind (-9) at random moments; report what is lacking afterwards, and how far sums are off.

    python -m benchmarks.kill_windows [KILLS [SECONDS [AT_ONCE [KIND ...]]]]

KILLS (20) of each KIND (all), within SECONDS (60) after it has begun, AT_ONCE (12) at the same time, all on one target,
but for heap and py-spy, which allow of none beside them. Windows are as long as usual: at most the last 10 s may be
lacking, and what is there must sum up to what the target says it did.
"""

from __future__ import annotations

import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pprofpy.session.session import WINDOW_NS
from tests.cut_short import KINDS, WITHOUT_EBPF, Metered, Outcome, kill_one

_WINDOW_S = WINDOW_NS / 1e9


def main() -> None:
    """Kill, and print a row for each kind."""
    given = [int(word) for word in sys.argv[1:4]]
    kills, seconds, at_once = (*given, *(20, 60, 12)[len(given) :])
    kinds = sys.argv[4:] or list(KINDS)
    jobs = [(kind, random.uniform(1, seconds)) for kind in kinds for _ in range(kills)]
    random.shuffle(jobs)
    with tempfile.TemporaryDirectory(prefix="pprofpy-kills-") as place, ThreadPoolExecutor(at_once) as pool:
        target = Metered(Path(place))

        def one(number: int) -> Outcome:
            folder = Path(place) / str(number)
            folder.mkdir()
            kind, after_s = jobs[number]
            try:
                return kill_one(kind, folder, after_s, _WINDOW_S, target=None if kind in WITHOUT_EBPF else target)
            except Exception as error:
                return Outcome(kind, after_s, 0, wrong=f"{type(error).__name__}: {str(error)[:200]}")

        try:
            found = list(pool.map(one, range(len(jobs))))
        finally:
            target.end()
    print(f"{'KIND':24} {'KILLS':>5} {'LACKS AT MOST':>14} {'ON AVERAGE':>11} {'SUM OFF AT MOST':>16} {'WRONG':>6}")
    for kind in kinds:
        of_kind = [outcome for outcome in found if outcome.kind == kind]
        lacks = [outcome.lacks_s for outcome in of_kind]
        print(
            f"{kind:24} {len(of_kind):5} {max(lacks):12.1f} s {sum(lacks) / len(lacks):9.1f} s "
            f"{max(outcome.off for outcome in of_kind):15.1%} {sum(bool(outcome.wrong) for outcome in of_kind):6}"
        )
    for outcome in found:
        if outcome.wrong:
            print(f"{outcome.kind}, killed after {outcome.killed_s:.1f} s: {outcome.wrong}")
    raise SystemExit(any(outcome.wrong for outcome in found))


if __name__ == "__main__":
    main()
