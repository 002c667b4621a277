"""What the library's functions return: a recording, as soon as it has begun; and what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pprofpy.formats import files
from pprofpy.formats.recording import write
from pprofpy.model.profile import Profile, Stack
from pprofpy.model.recording import Recording
from pprofpy.model.table import Cell, Table
from pprofpy.running import Running

Column = NDArray[np.generic]

_PROCESS = re.compile(r"(.*) \(pid (\d{1,9})\b", re.DOTALL)
"""As `Target` puts a process into words."""


class Recorded:
    """A recording that was begun, one of its windows, or one that was loaded.

    A recording goes on while the program does other things. `windows` yields what is new as it comes; everything else
    waits for the end. In a `with` statement, it ends with that.

    Args:
        made: What it holds, or who is making it.
    """

    def __init__(self, made: Recording | Running) -> None:
        self._made = made

    def windows(self) -> Iterator[Recorded]:
        """Yield the windows that were not yielded yet, each soon after it has ended, until the recording has ended.

        All of them together are the recording. If they are not fetched, some dozens are kept, then merged. A loaded
        recording is one window.

        Raises:
            PprofpyError: The recording failed; raised after the last window.
        """
        if isinstance(self._made, Running):
            yield from map(Recorded, self._made.windows())
        else:
            yield self

    def stop(self) -> None:
        """End the recording soon; what was recorded is kept."""
        if isinstance(self._made, Running):
            self._made.stop()

    def wait(self) -> Recording:
        """Wait for the end of the recording.

        Raises:
            PprofpyError: The recording failed.
        """
        return self._made.whole() if isinstance(self._made, Running) else self._made

    @property
    def kind(self) -> str:
        """The command that records the same, as in `off-cpu`; empty if another program wrote the file."""
        return self.wait().kind

    @property
    def profile(self) -> Profile:
        """The samples, with the time, the length, and how they were collected and what was lost."""
        return self.wait().profile

    @property
    def tables(self) -> Mapping[str, Table]:
        """What a profile cannot hold, by name; `tables["waits"].columns` is a dictionary of lists."""
        return self.wait().tables

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if isinstance(self._made, Running):
            self._made.join()

    def columns(self) -> dict[str, Column]:
        """The samples, one row each, for `pandas.DataFrame` or `pyarrow.table`.

        Returns:
            `stack`: the functions, outermost first, with `;` between them; then one column a label (as `thread`,
            `tid`), empty where a sample has no such label; then one of int64 a sample type, named with its unit as
            in `cpu_nanoseconds`.
        """
        profile = self.profile
        stacks = [_folded(profile.stack_frames(index)) for index in range(len(profile.stacks))]
        found: dict[str, Column] = {"stack": np.array(stacks, object)[profile.sample_stacks]}
        for key in dict.fromkeys(label.key for labels in profile.label_sets for label in labels):
            values = [{label.key: label.value for label in labels}.get(key, "") for labels in profile.label_sets]
            found[key] = _typed(values)[profile.sample_labels]
        for place, (kind, unit) in enumerate(profile.sample_types):
            found[f"{kind}_{unit}"] = profile.values[:, place]
        return found

    def table(self, name: str) -> dict[str, Column]:
        """A table's columns, as `columns` gives the samples; stacks are folded in the same way.

        Raises:
            KeyError: There is no table of this name.
        """
        return {key: _typed(values) for key, values in self.tables[name].columns.items()}

    def save(self, path: str | Path = "", *, force: bool = False) -> Path:
        """Write a pprof file that `pprofpy show`, `load` and `go tool pprof` read.

        Args:
            path: Where to; by default a new file in the profile folder, where the commands look.
            force: Replace a file that pprofpy did not write.

        Returns:
            The file.

        Raises:
            OutputError: It could not be written; nothing half-written is left.
        """
        data = write(self.wait())
        if path:
            files.save(data, Path(path), force=force)
            return Path(path)
        process = _PROCESS.match(self.profile.collection.target)
        name, pid = (process[1], int(process[2])) if process else ("", 0)
        return files.save_recording(data, files.name_of(self.kind or "profile", name, pid) + ".pb.gz")


def load(path: str | Path) -> Recorded:
    """Read a recording, or a profile that another program wrote: such has no kind and no tables.

    Raises:
        ProfileFormatError: It cannot be read.
    """
    return Recorded(files.read_recording(str(path)))


def _folded(stack: Stack) -> str:
    return ";".join(frame.function.name for frame in reversed(stack))


def _typed(values: Sequence[Cell | str]) -> Column:
    """Numbers as NumPy's, all else as objects: texts, and stacks as texts."""
    if values and all(type(value) in (int, float, bool) for value in values):
        return np.array(values)
    found = np.empty(len(values), object)
    found[:] = [_folded(value) if isinstance(value, tuple) else value for value in values]
    return found
