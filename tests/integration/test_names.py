"""Names and lines lead to the place, whatever the code is: decorated, nested, made by exec, in an archive."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pprofpy.model.merge import merge_recordings
from pprofpy.model.profile import Frame
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, PYTHONS, Start, beside_others, interpreter
from tests.cpu import let_run, recorder

pytestmark = beside_others

SOURCE = PROGRAMS / "names.py"
PLACES = {
    int(found[1]): (found[2], line)
    for line, text in enumerate(SOURCE.read_text().splitlines(), 1)
    if (found := re.search(r"busy\((\d+)\).*# ([\w.<>]+)$", text))
}
"""Number -> qualified name and line of what calls `busy` with it."""

ELSEWHERE = {13: ("by_exec", "<made up>", 2), 14: ("package_in_zip.module_in_zip.in_zip", "module_in_zip.py", 2)}


def test_there_are_places() -> None:
    assert PLACES.keys() == set(range(1, 13))


@pytest.mark.parametrize("version", PYTHONS)
def test_names_and_lines_lead_to_the_place(start: Start, version: str, tmp_path: Path) -> None:
    process = start(interpreter(version), str(SOURCE), str(tmp_path))
    with recorder(5000) as recording:
        recording.watch(open_target(process.pid))
        let_run(recording, 1.0)
        windows = [recording.window()]
        let_run(recording, 1.0)
        made = merge_recordings([*windows, recording.finish()])

    callers: Counter[Frame] = Counter()
    for sample in made.profile.samples():
        if sample.stack[0].function.name.startswith("names.busy"):
            callers[sample.stack[1]._replace(column=0)] += sample.values[0]
    found = {(frame.function.name, frame.line) for frame in callers}
    qualified = tuple(map(int, version.split("."))) >= (3, 11)
    expected = {(name if qualified else name.rpartition(".")[2], line) for name, line in PLACES.values()}
    seen = {(re.sub(r":\d+$", "", name).removeprefix("names."), line) for name, line in found}

    assert expected <= seen, f"{expected - seen} missing of {seen}"
    in_zip, by_exec = ELSEWHERE[14], ELSEWHERE[13]
    assert any(name == in_zip[0] and line == 2 for name, line in found)
    assert any(name.endswith(by_exec[0]) and line == 2 for name, line in found)
    # Two functions are two: each has a name that no other in its file has.
    by_name: dict[tuple[str, str], set[int]] = {}
    for frame in callers:
        by_name.setdefault((frame.function.name, frame.function.filename), set()).add(frame.function.start_line)
    assert all(len(starts) == 1 for starts in by_name.values()), by_name
    lambdas = {frame.function.name for frame in callers if "<lambda>" in frame.function.name}
    runs = {frame.function.name for frame in callers if re.search(r"\brun\b", frame.function.name)}
    again = {frame.function.name for frame in callers if "redefined" in frame.function.name}
    assert [len(lambdas), len(runs), len(again)] == [2, 2, 2]
