"""Compiled programs that come with the package: only what was built is loaded into the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.collectors import programs
from pprofpy.collectors.kernel import compiler, program
from pprofpy.collectors.kernel import shipped as shipping
from pprofpy.collectors.kernel.bytecode import Bytecode, MapShape
from pprofpy.collectors.kernel.shipped import TamperedError, file_name, is_any_shipped, keep, shipped
from pprofpy.collectors.kernel.source import CompilerInput, ProbeSource
from pprofpy.errors import NotPossibleError
from tests.fake_kernel import FakeKernel

BUILT = Bytecode({"on_switch": bytes(16)}, (MapShape("threads", 1, 4, 8, 16, 0),), ("TGID",))
UNIT = CompilerInput.of(ProbeSource("gil.bpf.c"), iterators=False)
OTHER = CompilerInput.of(ProbeSource("gil.bpf.c"), iterators=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to others")


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled programs, with one in it."""
    folder = tmp_path / "compiled"
    monkeypatch.setattr(shipping, "COMPILED", folder)
    keep(UNIT, BUILT)
    return folder


def test_what_was_built_is_taken(package: Path) -> None:
    assert shipped(UNIT) == BUILT
    assert shipped(OTHER) is None
    assert [path.name for path in package.iterdir()] == [file_name(UNIT)]


def test_a_program_is_known_by_all_that_the_compiler_is_given() -> None:
    source = ProbeSource("gil.bpf.c")
    units = [UNIT, OTHER, CompilerInput.of(source.plus({}, MORE=1), iterators=False)]

    assert len({unit.digest for unit in units}) == 3
    assert CompilerInput.of(source, iterators=False).digest == UNIT.digest


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def change(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"AAAA", b"AAAB", 1))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def exchange(file: Path) -> None:
    """Put another program in its place, whole as it is."""
    keep(OTHER, BUILT)
    file.with_name(file_name(OTHER)).rename(file)


def link(file: Path) -> None:
    file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(file.with_suffix(".elsewhere"))


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def let_others_write(file: Path) -> None:
    file.chmod(0o646)


def let_others_exchange(file: Path) -> None:
    file.parent.chmod(0o757)


def give_away(file: Path) -> None:
    os.chown(file, 65534, 65534)


@pytest.mark.parametrize(
    "tamper",
    [
        cut, change, empty, exchange, link, make_pipe, let_others_write, let_others_exchange,
        pytest.param(give_away, marks=needs_root),
    ],
)  # fmt: skip
def test_what_may_not_be_what_was_built_is_not_loaded(tamper: Callable[[Path], None], package: Path) -> None:
    tamper(package / file_name(UNIT))

    with pytest.raises(TamperedError, match=r"not used|cannot be read") as error:
        shipped(UNIT)
    assert "pip install" in error.value.hint


def test_without_it_bcc_compiles_and_the_user_is_told(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel(monkeypatch)
    monkeypatch.setattr(program, "require", lambda: None)
    monkeypatch.setattr(program, "loop_iterator", dict)
    monkeypatch.setattr(program, "compiled", lambda _: BUILT)

    with program.load(UNIT.source, {"TGID": 1}) as found:
        assert not found.remarks
    with program.load(UNIT.source.plus({}, MORE=1), {"TGID": 1}) as found:
        assert found.remarks == ["bcc has compiled gil.bpf.c: it does not come with this pprofpy in the form needed"]
    for path in package.iterdir():
        path.unlink()
    with program.load(UNIT.source, {"TGID": 1}) as found:  # a checkout that was not set up: bcc always compiles
        assert not found.remarks
    assert not is_any_shipped()
    assert kernel.calls["create_map"] == 3


def test_without_it_and_without_bcc_the_error_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_BCC_PLACES", ())

    with pytest.raises(NotPossibleError, match="bcc") as error:
        compiler.compiled(OTHER)

    assert "python3-bpfcc" in error.value.hint
    with pytest.raises(NotPossibleError, match="bcc"):
        programs.origin()
