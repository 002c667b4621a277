"""Loops in compiled eBPF programs: each ends by a comparison that the verifier of every kernel can bound.

Where the kernel has iterators (Linux 6.4), loops go through these. Verifiers before Linux 6.8 lose the bounds of a
counter that runs to `!= number`, and refuse what the loop reads. Such loops are made by LLVM, not seen in the source
(see probes/loops.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from pprofpy.collectors.kernel import btf
from pprofpy.collectors.kernel.bytecode import INSTRUCTION, kernel_function, put_in_kernel_functions
from tests.kernel_programs import LOOPS, VARIANTS, as_loaded, compiled

CALL, EXIT, JUMP = 0x8, 0x9, 0x0
BOUNDS = {0x2: ">", 0x3: ">=", 0x6: "s>", 0x7: "s>=", 0xA: "<", 0xB: "<=", 0xC: "s<", 0xD: "s<="}
CLASS_32_BIT_JUMP, CLASS_JUMP, LOAD_64_BITS = 6, 5, 0x18
WRITING = (0, 1, 4, 7)
"""Classes of instructions that write a register: LD, LDX, ALU, ALU64."""
ADD_NUMBER, SET_NUMBER = (0x04, 0x07), (0xB4, 0xB7)
FROM_REGISTER = 0x8
KERNEL_FUNCTION = 2
"""In a call, where the register to read would stand: it is no helper's."""


class Instruction(NamedTuple):
    operation: int
    register: int
    other: int
    """The register that is read, where one is."""
    offset: int
    number: int

    @property
    def is_jump(self) -> bool:
        kind = self.operation >> 4
        return self.operation & 7 in (CLASS_32_BIT_JUMP, CLASS_JUMP) and kind not in (CALL, EXIT)

    @property
    def is_comparison(self) -> bool:
        """Is it a jump that depends on the order of two values?"""
        return self.is_jump and self.operation >> 4 in BOUNDS

    def writes(self, register: int) -> bool:
        if self.operation & 7 == CLASS_JUMP and self.operation >> 4 == CALL:
            return register <= 5
        return self.operation & 7 in WRITING and self.register == register


def disassemble(code: bytes) -> list[Instruction]:
    found = [INSTRUCTION.unpack_from(code, at) for at in range(0, len(code), INSTRUCTION.size)]
    return [Instruction(one[0], one[1] & 15, one[1] >> 4, *one[2:]) for one in found]


def successors(code: list[Instruction], at: int) -> list[int]:
    one = code[at]
    if one.operation & 7 == CLASS_JUMP and one.operation >> 4 == EXIT:
        return []
    following = at + (2 if one.operation == LOAD_64_BITS else 1)
    if not one.is_jump:
        return [following]
    target = at + 1 + one.offset
    return [target] if one.operation >> 4 == JUMP else [following, target]


def loops(code: list[Instruction]) -> Iterator[set[int]]:
    """The instructions of each loop: strongly connected parts of the graph of jumps, nested loops apart."""
    yield from _loops_within(code, set(range(len(code))))


def _loops_within(code: list[Instruction], allowed: set[int]) -> Iterator[set[int]]:
    for part in _connected(code, allowed):
        yield part
        inner = part - {min(part)}  # without its first instruction it is no loop any more, but what it contains is
        yield from _loops_within(code, inner)


def _connected(code: list[Instruction], allowed: set[int]) -> Iterator[set[int]]:
    """Parts of more than one instruction in which each leads to each other (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in sorted(allowed):
        if root in index:
            continue
        work = [(root, iter(successors(code, root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            at, following = work[-1]
            for one in following:
                if one not in allowed:
                    continue
                if one not in index:
                    index[one] = low[one] = len(index)
                    stack.append(one)
                    on_stack.add(one)
                    work.append((one, iter(successors(code, one))))
                    break
                if one in on_stack:
                    low[at] = min(low[at], index[one])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    part = set()
                    while True:
                        part.add(top := stack.pop())
                        on_stack.discard(top)
                        if top == at:
                            break
                    if len(part) > 1 or at in successors(code, at):
                        yield part


def is_number(code: list[Instruction], at: int, register: int) -> bool:
    """Does a register hold a constant there? Judged by the last instruction before that writes it."""
    last = next((one for one in reversed(code[:at]) if one.writes(register)), None)
    return last is not None and last.operation in SET_NUMBER


def is_bound(code: list[Instruction], at: int, counters: set[int]) -> bool:
    """Does a jump depend on whether a counter is above or below a constant?"""
    one = code[at]
    if not one.is_comparison:
        return False
    if not one.operation & FROM_REGISTER:
        return one.register in counters
    return any(
        counter in counters and is_number(code, at, limit)
        for counter, limit in ((one.register, one.other), (one.other, one.register))
    )


def is_bounded(code: list[Instruction], loop: set[int]) -> bool:
    """Does a comparison by order of a register that the loop counts up lead out of it?"""
    counters = {code[at].register for at in loop if code[at].operation in ADD_NUMBER and code[at].number > 0}
    exits = [at for at in loop if any(one not in loop for one in successors(code, at))]
    return any(is_bound(code, at, counters) for at in exits)


def words(*instructions: tuple[int, int, int, int]) -> list[Instruction]:
    return disassemble(b"".join(INSTRUCTION.pack(*one) for one in instructions))


def test_a_loop_that_counts_up_to_a_bound_is_told_from_one_that_counts_down() -> None:
    end = (0x95, 0, 0, 0)
    up = words((0xB7, 1, 0, 0), (0x07, 1, 0, 1), (0xA5, 1, -2, 64), end)  # r1 += 1; if r1 < 64 goto -2
    down = words((0x79, 0x21, 0, 0), (0x07, 1, 0, -1), (0x55, 1, -2, 0), end)  # r1 -= 1; if r1 != 0 goto -2

    assert [is_bounded(up, loop) for loop in loops(up)] == [True]
    assert [is_bounded(down, loop) for loop in loops(down)] == [False]


def calls(code: list[Instruction]) -> Iterator[int]:
    """The numbers of the functions of the kernel's (not helpers) that are called."""
    yield from (one.number for one in code if one.operation == 0x85 and one.other == KERNEL_FUNCTION)


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", LOOPS)
def test_without_iterators_every_loop_ends_by_a_bound(variant: str) -> None:
    for function, raw in compiled(variant, iterators=False).bytecode.functions.items():
        code = disassemble(raw)
        unbounded = [sorted(loop) for loop in loops(code) if not is_bounded(code, loop)]

        assert not unbounded, f"{function}: loops from instruction {[loop[0] for loop in unbounded]} on"


@pytest.mark.ebpf(needs="compiler")
def test_there_are_loops_to_be_looked_at() -> None:
    functions = compiled("cpu --native -K", iterators=False).bytecode.functions.values()

    assert sum(1 for raw in functions for _ in loops(disassemble(raw))) > 4


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", VARIANTS)
def test_with_iterators_the_verifier_is_spared_every_loop(variant: str) -> None:
    """All but those whose rounds are few enough to be written out, which are no loops then."""
    for function, raw in as_loaded(compiled(variant)).items():
        code = disassemble(raw)

        for loop in loops(code):
            assert set(calls([code[at] for at in loop])), f"{function}: a loop from instruction {min(loop)} on"


@pytest.mark.ebpf(needs="compiler")
def test_iterators_are_those_of_the_running_kernel() -> None:
    found = compiled("cpu")
    numbers = btf.Btf.of_running_kernel().functions(["bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"])
    if not numbers:
        pytest.skip("this kernel has no iterators (Linux 6.4)")

    called = {number for raw in as_loaded(found).values() for number in calls(disassemble(raw))}

    assert called == set(numbers.values())


def test_a_call_by_place_becomes_one_of_the_kernels_function() -> None:
    place = int(kernel_function(1), 0)
    call, helper = INSTRUCTION.pack(0x85, 0, 0, place), INSTRUCTION.pack(0x85, 0, 0, 14)
    constant = INSTRUCTION.pack(0xB7, 1, 0, place)

    patched = put_in_kernel_functions(call + helper + constant, [4000, 4001])

    assert patched == INSTRUCTION.pack(0x85, 2 << 4, 0, 4001) + helper + constant
