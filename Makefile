# Everything that a fresh Debian or Ubuntu machine needs is installed by the target that needs it.
# Each target may be run again and again; what is there already is left alone.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready
# Which kernels `make kernels` tries.
KERNEL ?= 5.10 6.1 6.12 newest
ARCH   ?= amd64 arm64

FUZZ   ?= 1000000
# Two more than CPUs: tests wait for recordings half of the time.
WORKERS ?= $(shell echo $$(($$(nproc) + 2)))

# Tests start hundreds of programs, and each would compile all modules anew where Python is told not to keep them.
unexport PYTHONDONTWRITEBYTECODE
# Before a command runs that may write nothing.
KEEP_MODULES = $(PYTHON) -m compileall -q pprofpy

.PHONY: help setup demo test wheel image fuzz hostile frameworks kernels kernels-truth lint format docs bench storm clean

help:
	@echo "make demo    profile an example service; leaves demo/cpu.svg, demo/cpu.pb.gz and demo/heap.pb.gz"
	@echo "make test    the whole test suite"
	@echo "make hostile each command in each surroundings: make test tries each with some (PYTEST_ARGS)"
	@echo "make frameworks install gunicorn, uWSGI, Celery ... and run every command against each (FRAMEWORKS=\"uwsgi celery\")"
	@echo "make kernels hand all eBPF programs to other kernels' verifiers, in emulated machines: KERNEL=6.1 ARCH=arm64"
	@echo "make kernels-truth  record programs with known answers on other kernels, in emulated machines: KERNEL=6.12 ARCH=arm64"
	@echo "make fuzz    a million damaged inputs for all readers; FUZZ=10000: so many"
	@echo "make wheel   wheels for x86-64 and arm64, and the sdist, into dist/; the one for this machine is tried"
	@echo "make image   what the Dockerfile installs, in build/image: the test beside a container's application runs it"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff lay out the code"
	@echo "make docs    write the generated parts of docs/ anew"
	@echo "make bench   benchmarks, side by side with other tools"
	@echo "make storm   kill each recording command a thousand times, and look for what it leaves (STORM_ARGS)"
	@echo "make setup   only install what the others need"
	@echo "make clean   remove .venv and everything generated"

setup:
	@scripts/setup.sh runtime
	@$(MAKE) --silent --no-print-directory $(READY)
	@$(PYTHON) scripts/compile_programs.py

$(READY): pyproject.toml scripts/venv.sh hatch_build.py $(wildcard pprofpy/collectors/heapagent/sampler/*) pprofpy/collectors/cpython/versions.py
	@scripts/venv.sh $(VENV)
	@touch $@

demo: setup
	@scripts/demo.sh $(PYTHON)

test: setup
	@scripts/setup.sh tests
	@$(KEEP_MODULES)
	@$(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

hostile: setup
	@scripts/setup.sh tests
	@$(KEEP_MODULES)
	@PPROFPY_HOSTILE=all $(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadgroup tests/hostile tests/integration/test_capabilities.py $(PYTEST_ARGS)

frameworks: setup
	@scripts/setup.sh tests
	@$(PYTHON) -m tests.frameworks $(VENV)/frameworks $(FRAMEWORKS)

kernels: setup
	@scripts/setup.sh kernels
	@scripts/kernels.sh verify $(PYTHON) "$(KERNEL)" "$(ARCH)"

kernels-truth: setup
	@scripts/setup.sh kernels
	@scripts/kernels.sh truth $(PYTHON) "$(KERNEL)" "$(ARCH)"

wheel: setup
	@scripts/setup.sh wheel
	@scripts/wheels.sh $(PYTHON)
	@scripts/try_wheel.sh

image: setup
	@scripts/setup.sh image
	@scripts/image_folder.sh build/image

fuzz: setup
	@$(PYTHON) -m tests.fuzz $(FUZZ)

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: setup
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

docs: setup
	@$(PYTHON) scripts/command_docs.py

bench: setup
	@scripts/setup.sh tests
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(PYTHON) -m "benchmarks.$$(basename $$file .py)" || exit 1; done

storm: setup
	@scripts/setup.sh tests
	@$(PYTHON) -m benchmarks.kill_storm $(or $(STORM_ARGS),--rounds 1000)

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
