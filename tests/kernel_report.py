"""What other kernels say of our eBPF programs, kept in tests/kernels/results.json and written to docs/kernels.md.

    python -m tests.kernel_report VERSION ARCHITECTURE RELEASE COMPILED SAID

takes in what tests.kernel_programs has compiled and what scripts/kernel_init.c has said of it; without arguments only
the page is written. A refusal counts as what pprofpy tells its user. Ends with status 1 if one comes that is not
expected: of a kernel that everything works on, or one that does not name the Linux that it takes.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pprofpy.collectors.kernel.refusals import refused_program

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "tests" / "kernels" / "results.json", ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- matrix: written by 'make kernels' -->", "<!-- end of matrix -->"

OLD = ("5.10",)
"""Kernels on which not everything works: each refusal must name the Linux that it takes."""

_NAMES_A_VERSION = re.compile(r"this takes Linux \d+\.\d+ or newer")
_LINE = re.compile(r"kernel: (accepted|REFUSED) (.*): (\w+) \(\d+\.\d s\)")
_LOG = "kernel:     "

Results = dict[str, dict[str, Any]]
"""`VERSION ARCHITECTURE` -> release, date, variants: name -> why it is refused, empty if it is not."""


def refusals(compiled: Iterable[str], said: Iterable[str], release: str) -> dict[str, str]:
    """Each variant, and what pprofpy says of the first of its programs that the kernel refuses; empty: it takes all.

    Raises:
        KeyError, ValueError: The kernel says something of programs that were not compiled, or nothing of one that was.
    """
    known = {one["variant"]: one for one in map(json.loads, compiled)}
    found = {name: one["refused"] for name, one in known.items() if "refused" in one}
    for variant, function, log in _judged(said):
        one = known[variant]
        if log is None:
            found.setdefault(variant, "")
        elif not found.get(variant):
            with patch.object(platform, "release", lambda: release):
                error = refused_program(function, one["source"], log, one["helpers"][function])
            found[variant] = error.message
    if missing := known.keys() - found.keys():
        raise ValueError(f"the kernel has said nothing of {', '.join(sorted(missing))}")
    return {name: found[name] for name in known}


def _judged(said: Iterable[str]) -> Iterator[tuple[str, str, str | None]]:
    """Variant, function, and the verifier's log if it is refused."""
    lines = list(said)
    for place, line in enumerate(lines):
        if match := _LINE.match(line):
            verdict, variant, function = match.groups()
            log = []
            for following in lines[place + 1 :]:
                if not following.startswith(_LOG):
                    break
                log.append(following.removeprefix(_LOG))
            yield variant, function, "\n".join(log) if verdict == "REFUSED" else None


def unexpected(version: str, found: dict[str, str]) -> list[str]:
    """Refusals that should not be."""
    return [
        f"{variant}: {message}"
        for variant, message in found.items()
        if message and not (version in OLD and _NAMES_A_VERSION.search(message))
    ]


def matrix(results: Results) -> str:
    """The tables of the page."""
    names = sorted(results, key=lambda name: (name.split()[1], _numbers(results[name]["release"])))
    variants = list(dict.fromkeys(variant for name in names for variant in results[name]["variants"]))
    told = [results[name]["variants"].get(one) for one in variants for name in names]
    reasons = list(dict.fromkeys(filter(None, told)))
    rows = [
        [f"`{variant}`", *(_cell(results[name]["variants"].get(variant), reasons) for name in names)]
        for variant in variants
    ]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    packages = [f"- linux-image-{results[name]['release']}, on {results[name]['date']}" for name in names]
    parts = [_table(["command", *(_title(results[name]) for name in names)], rows)]
    parts += ["\n".join(notes)] if notes else []
    return "\n\n".join([*parts, "Tried:\n\n" + "\n".join(packages), *_truths(results, names)])


def _truths(results: Results, names: list[str]) -> Iterator[str]:
    """Known answers, a table for each kernel on which programs were recorded."""
    for name in names:
        if truths := results[name].get("truths"):
            yield f"### Known answers on Linux {results[name]['truths_release']}, {results[name]['truths_date']}"
            rows = [
                [f"`{command}`", one["said"], "yes" if one["is_right"] else "**no**"] for command, one in truths.items()
            ]
            yield _table(["command", "recorded", "right"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def _title(result: dict[str, Any]) -> str:
    machine = "arm64" if result["release"].endswith("arm64") else "x86-64"
    return f"{_short(result['release'])}, {machine}"


def _short(release: str) -> str:
    return re.split(r"-cloud|\+deb", release)[0]


def _cell(refused: str | None, reasons: list[str]) -> str:
    if refused is None:
        return "not tried"
    return f"refused ({reasons.index(refused) + 1})" if refused else "accepted"


def write_page(results: Results) -> None:
    """Put the tables into the page, whose rest is by hand."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{matrix(results)}\n\n{END}{rest.partition(END)[2]}")


def main(version: str = "", architecture: str = "", release: str = "", compiled: str = "", said: str = "") -> int:
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    problems = []
    if version:
        found = refusals(Path(compiled).read_text().splitlines(), Path(said).read_text().splitlines(), release)
        told = {"release": release, "date": date.today().isoformat(), "variants": found}
        results[f"{version} {architecture}"] = results.get(f"{version} {architecture}", {}) | told
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        problems = unexpected(version, found)
    write_page(results)
    for problem in problems:
        print(f"kernels: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
