"""Kill each recording command (-9) a thousand times, and look for anything that is left: `make storm`.

A quarter of the kills hits start-up, half of them the recording, a quarter the end. After each: the target lives,
unstopped and untraced, with its threads, mappings, descriptors, signals and speed as they were; no BPF program, map or
link of ours is left in the kernel, no mount, no process. Most runs are forks of a process that has imported pprofpy
already, which saves half of their time; every tenth starts as users start it.

Usage: python -m benchmarks.kill_storm [--rounds N] [--seconds S] [--targets N] [--json FILE] [COMMAND...]
With --json, counts are added to those that the file holds, so that a storm can be made in parts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

from pprofpy.cli import main as command_line
from tests.storm import COMMANDS, Tally, kill_repeatedly, launch_cold, victims

COLD_SHARE = 0.1


def launch(words: list[str], out: int, error: int) -> int:
    """Start pprofpy, mostly as a fork of ours."""
    if random.random() < COLD_SHARE:
        return launch_cold(words, out, error)
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(error, 2)
        os.closerange(3, 1 << 12)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - by line, else `trace` shows late that it records
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - and ours may be files that know where they are
        command_line.main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> int:
    """Run the storm; the status is 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), help=", ".join(COMMANDS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most so long for each command")
    parser.add_argument("--targets", type=int, default=3, help="processes that are recorded in turn")
    parser.add_argument("--json", type=Path, help="add the counts to this file")
    options = parser.parse_args()
    for name in options.commands:
        import_module(command_line.COMMANDS[COMMANDS[name][0]][0])
    found = False
    with tempfile.TemporaryDirectory(prefix="pprofpy-storm-") as folder:
        os.environ["PPROFPY_DIR"] = f"{folder}/profiles"
        for name in options.commands:
            tally = Tally()
            until_s = time.monotonic() + options.seconds
            with victims(Path(folder), options.targets, tally.wrong) as targets:
                kill_repeatedly(name, targets, options.rounds, launch, tally, until_s)
            show(name, tally)
            if options.json:
                add(options.json, name, tally)
            found = found or bool(tally.wrong)
    return int(found)


def show(name: str, tally: Tally) -> None:
    """One line, and one for each thing that was found."""
    hit = ", ".join(f"{count} {phase}" for phase, count in sorted(tally.hit.items()))
    print(f"{name}: {tally.kills} kills ({hit}), {tally.missed} over before, {len(tally.wrong)} wrong", flush=True)
    for wrong in tally.wrong:
        print(f"  {wrong}", flush=True)


def add(path: Path, name: str, tally: Tally) -> None:
    """Add to the counts of earlier parts."""
    counts = json.loads(path.read_text()) if path.exists() else {}
    entry = counts.setdefault(name, {"hit": {}, "missed": 0, "wrong": []})
    for phase, count in tally.hit.items():
        entry["hit"][phase] = entry["hit"].get(phase, 0) + count
    entry["missed"] += tally.missed
    entry["wrong"] += tally.wrong
    path.write_text(json.dumps(counts, indent=1))


if __name__ == "__main__":
    sys.exit(main())
