"""How fast the command answers: `pprofpy --version` against py-spy's, and against Python that only imports click.

`pprofpy --help` may take at most 1.2 times as long as `python -c 'import click'`: fails if the median is above that.
"""

from __future__ import annotations

import sys
import sysconfig
from statistics import median

from benchmarks.harness import interleave, ratios, report, spread

ROUNDS = 40
LIMIT = 1.2


def main() -> None:
    """Run all, print the ratios."""
    scripts = sysconfig.get_path("scripts")
    runs = interleave(
        {
            "pprofpy --version": [f"{scripts}/pprofpy", "--version"],
            "pprofpy --help": [f"{scripts}/pprofpy", "--help"],
            "python -c 'import click'": [sys.executable, "-c", "import click"],
            "py-spy --version": [f"{scripts}/py-spy", "--version"],
        },
        ROUNDS,
    )
    report(runs)
    floor = runs["python -c 'import click'"]
    for name in ("pprofpy --version", "pprofpy --help"):
        for figure in ("wall_s", "cpu_s"):
            print(f"{name} / import click, {figure}: {spread(ratios(runs[name], floor, figure))}")
    helps = median(ratios(runs["pprofpy --help"], floor, "wall_s"))
    if helps > LIMIT:
        raise SystemExit(f"pprofpy --help takes {helps:.2f} times as long as importing click, more than {LIMIT}")


if __name__ == "__main__":
    main()
