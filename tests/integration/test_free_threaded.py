"""Free-threaded builds: what runs at the same time is seen so; those that are not known are refused in words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from pprofpy.collectors.cpython.lock import runs_with_lock
from pprofpy.collectors.cpython.runtime import find_runtime
from pprofpy.model.profile import Sample
from pprofpy.target import open_target, procfs
from tests.conftest import BURN_AND_REST, PROGRAMS, CommandLine, Start, beside_others, interpreter, rounds_until_right
from tests.cpu import by_thread, differences, let_run, names_in, poll_until, recorder, shares
from tests.integration.test_cpu_bpf import impossible_path, is_incomplete
from tests.unit.test_cpython_proof import word

FREE = "3.13t"
SHARES = {"half": 50.0, "third": 30.0, "seventh": 15.0, "rest": 5.0}
ENOUGH = 20_000
"""So many samples of a thread are wanted: by chance alone, half of them may be off by a third of a percent."""

needs_silence = pytest.mark.ebpf


# -- a real one ----------------------------------------------------------------------------------------------------


def runnable_threads(pid: int) -> int:
    return sum(procfs.stat(pid, tid).state == "R" for tid in procfs.tids(pid))


@needs_silence
def test_threads_in_parallel_have_their_own_stacks_and_shares(start: Start) -> None:
    program = start(interpreter(FREE), str(PROGRAMS / "parallel.py"))
    found: dict[str, list[Sample]] = {"burner_0": [], "burner_1": []}
    runnable: list[int] = []
    with recorder(10_000) as recording:
        recording.watch(open_target(program.pid))

        def never_but_look() -> bool:
            runnable.append(runnable_threads(program.pid))
            return False

        def measure() -> list[str]:
            poll_until(recording, never_but_look, 1.5)
            profile = recording.window().profile
            assert not profile.collection.errors
            for samples in by_thread(profile).values():
                for sample in samples:
                    name = next(str(label.value) for label in sample.labels if label.key == "thread")
                    found.setdefault(name, []).append(sample)
            wrong = []
            for name in ("burner_0", "burner_1"):
                count = sum(sample.values[0] for sample in found[name])
                wrong += [] if count >= ENOUGH else [f"{count} samples of {name}"]
                wrong += differences(name, shares(found[name]), SHARES, tolerance=0.5)
            return wrong

        rounds_until_right(measure, rounds=60)

    assert runnable.count(2) > 0.8 * len(runnable)  # with a lock, one of them would wait for it
    for name in ("burner_0", "burner_1"):
        of_others = [sample.stack for sample in found[name] if sample.stack and name not in names_in(sample.stack)]
        assert of_others == []


@needs_silence
def test_no_stack_of_threads_in_parallel_is_shown_that_never_was(start: Start) -> None:
    program = start(interpreter(FREE), str(PROGRAMS / "paths.py"), "3600", "3")
    with recorder(10_000) as recording:
        recording.watch(open_target(program.pid))
        let_run(recording, 2)
        program.kill()  # it would take the CPUs from those who look at its stacks
        profile = recording.finish().profile

    samples = [one for one in profile.samples() if one.stack[-1].function.name != "[no Python stack]"]
    assert len(by_thread(profile)) == 3
    assert sum(one.values[0] for one in samples) > 2_000
    assert [names for sample in samples if (names := impossible_path(sample))] == []
    assert sum(one.values[0] for one in samples if is_incomplete(one)) <= 0.002 * sum(one.values[0] for one in samples)


@beside_others
def test_the_engine_of_choice_is_the_kernels_and_doctor_knows(cli: CommandLine, start: Start) -> None:
    program = start(interpreter(FREE), *BURN_AND_REST)

    recorded = cli("cpu", "--pid", str(program.pid), "-d", "500ms")
    examined = cli("doctor", "--pid", str(program.pid))

    assert "engine: eBPF" in recorded.stderr
    assert "burn.half" in recorded.stdout
    assert "the kernel walked" in examined.stdout


# -- its lock ------------------------------------------------------------------------------------------------------


@beside_others
def test_a_lock_that_is_off_is_refused_in_words(cli: CommandLine, start: Start) -> None:
    program = start(interpreter(FREE), *BURN_AND_REST)

    for words in (["gil"], ["cpu", "--gil"], ["cpu", "--gil", "--engine", "bpf"]):
        done = cli(*words, "--pid", str(program.pid), "-d", "300ms")

        assert done.returncode == 4, (words, done.stderr)
        assert "runs without an interpreter lock: it is a free-threaded build" in done.stderr
        assert "pprofpy off-cpu" in done.stderr


@beside_others
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_lock_that_an_extension_module_switches_on_is_recorded(
    cli: CommandLine, start: Start, tmp_path: Path
) -> None:
    library(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); print('ready', flush=True); sys.stdin.readline()\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import with_lock, threading\n"
        "def spin():\n"
        "    while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "print(sys._is_gil_enabled(), flush=True)\n"
        "spin()"
    )
    program = start(interpreter(FREE), "-c", code, stdin=PIPE)
    target = open_target(program.pid)
    assert not runs_with_lock(find_runtime(target))

    assert program.stdin
    assert program.stdout
    program.stdin.write("\n")
    program.stdin.flush()
    assert program.stdout.readline() == "True\n"
    done = cli("gil", "--pid", str(program.pid), "-d", "500ms")

    assert runs_with_lock(find_runtime(target))
    assert done.returncode == 0, done.stderr
    assert "<string>.spin" in done.stdout
    assert "its interpreter lock is on since PYTHON_GIL, -X gil or an extension module has asked for it" in done.stdout


def library(folder: Path) -> None:
    """Compile a module that does not say that it can do without the lock."""
    source = folder / "with_lock.c"
    source.write_text(
        "#include <Python.h>\n"
        'static PyModuleDef module = {PyModuleDef_HEAD_INIT, "with_lock", 0, -1};\n'
        "PyMODINIT_FUNC PyInit_with_lock(void) { return PyModule_Create(&module); }\n"
    )
    python = interpreter(FREE)
    include = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"], text=True
    ).strip()
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", "-o", folder / "with_lock.so", source], check=True)


# -- one that is not known -----------------------------------------------------------------------------------------


@pytest.fixture
def unknown(start: Start) -> Popen[str]:
    """A Python that says that it is a free-threaded one, of a version whose layout without a lock is not known."""
    return start(interpreter("3.14"), str(PROGRAMS / "newer.py"), f"{word('3.14', 'free_threaded')}=1")


@beside_others
def test_commands_that_need_its_stacks_refuse_it(unknown: Popen[str], cli: CommandLine) -> None:
    for words in (["cpu", "--engine", "bpf"], ["gil"], ["events", "-e", "page-faults"], ["trace", "--stacks"]):
        done = cli(*words, "--pid", str(unknown.pid), "-d", "300ms")

        assert done.returncode == 4, (words, done.stderr)
        assert "free-threaded Python 3.14 is not known" in done.stderr


@beside_others
def test_commands_that_can_do_without_go_on_and_say_so(unknown: Popen[str], cli: CommandLine) -> None:
    for words in (["off-cpu"], ["sched-latency", "--stacks"]):
        done = cli(*words, "--pid", str(unknown.pid), "-d", "500ms")

        assert done.returncode == 0, (words, done.stderr)
        assert "free-threaded Python 3.14 is not known" in done.stdout + done.stderr


@beside_others
def test_doctor_knows(unknown: Popen[str], cli: CommandLine) -> None:
    examined = cli("doctor", "--pid", str(unknown.pid))

    assert "free-threaded Python 3.14 is not known" in examined.stdout
