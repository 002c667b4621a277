"""The command: see the package."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.worker import Outcome, run, try_one

DEFAULT_INPUTS = 1_000_000

_PORTION = 4_000


def main() -> int:
    """Run; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz all readers.")
    parser.add_argument("inputs", nargs="?", type=int, default=DEFAULT_INPUTS, help="how many, over all targets")
    parser.add_argument("--seed", type=int, default=1, help="other inputs for another number")
    parser.add_argument("--only", default="", help="these targets, as in elf,cfi")
    parser.add_argument("--save", type=Path, default=Path("fuzz-findings"), help="the folder for findings")
    parser.add_argument("--replay", type=Path, help="run a saved finding here, with its traceback")
    options = parser.parse_args()
    if options.replay:
        return _replay(options.replay)
    chosen = [TARGETS[name] for name in options.only.split(",") if name] or list(TARGETS.values())
    whole = sum(target.share for target in chosen)
    outcomes = {target.name: Outcome() for target in chosen}
    wanted = {target.name: max(1, options.inputs * target.share // whole) for target in chosen}
    began = time.monotonic()
    while left := [target for target in chosen if outcomes[target.name].inputs < wanted[target.name]]:
        for target in left:
            _one_portion(target, options.seed, outcomes[target.name], wanted[target.name], options.save)
            done = sum(outcome.inputs for outcome in outcomes.values())
            found = sum(len(outcome.findings) for outcome in outcomes.values())
            rate = done / (time.monotonic() - began)
            print(f"\r{done:>10,} inputs, {rate:,.0f} a second, {found} findings  {target.name:<12}", end="", file=sys.stderr, flush=True)  # fmt: skip
    print(file=sys.stderr)
    _print_table(outcomes)
    return int(any(outcome.findings for outcome in outcomes.values()))


def _one_portion(target: Target, seed: int, outcome: Outcome, wanted: int, folder: Path) -> None:
    first, known = outcome.inputs, len(outcome.findings)
    outcome.add(run(target, partial(target.input, seed), first, min(first + _PORTION, wanted)))
    for finding in outcome.findings[known:]:
        folder.mkdir(exist_ok=True)
        path = folder / f"{target.name}.{seed}.{finding.number}"
        path.write_bytes(target.input(seed, finding.number))
        print(f"\n{path}: {finding.what}", file=sys.stderr)


def _print_table(outcomes: dict[str, Outcome]) -> None:
    print(f"{'target':<12} {'inputs':>9} {'refused':>9} {'findings':>8} {'slowest':>8} {'biggest':>8}")
    for name, one in outcomes.items():
        slowest, biggest = f"{one.slowest_s:.2f} s", f"{one.largest_bytes >> 20} MB"
        print(f"{name:<12} {one.inputs:>9,} {one.refused:>9,} {len(one.findings):>8} {slowest:>8} {biggest:>8}")
    inputs, findings = (sum(getattr(one, name) for one in outcomes.values()) for name in ("inputs", "refused"))
    print(f"{'all':<12} {inputs:>9,} {findings:>9,} {sum(len(one.findings) for one in outcomes.values()):>8}")


def _replay(path: Path) -> int:
    what, refused = try_one(TARGETS[path.name.partition(".")[0]], path.read_bytes())
    print(what or ("refused" if refused else "read"))
    return int(bool(what))


if __name__ == "__main__":
    sys.exit(main())
