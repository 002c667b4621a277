"""How fast the command answers: `pprofpy --version` against py-spy's, and against Python that only imports click."""

from __future__ import annotations

import sys
import sysconfig

from benchmarks.harness import interleave, ratios, report, spread

ROUNDS = 15


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
    ours, floor = runs["pprofpy --version"], runs["python -c 'import click'"]
    print(f"pprofpy --version / import click: {spread(ratios(ours, floor, 'wall_s'))}")


if __name__ == "__main__":
    main()
