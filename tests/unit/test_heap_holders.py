"""What holds the objects of a heap: run in a program of its own, whose classes forbid to be asked."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from pprofpy.collectors.heapagent import link

PROGRAM = """
import collections, json, sys

class Forbidden(BaseException):
    pass

def forbidden(*_):
    raise Forbidden

class Kind(type):
    __eq__ = __hash__ = __repr__ = __getattribute__ = __instancecheck__ = forbidden

class Mute(metaclass=Kind):
    __eq__ = __hash__ = __repr__ = __str__ = __getattr__ = __bool__ = __len__ = forbidden
    trap = property(forbidden)

class Order(Mute):
    def __init__(self):
        self.trap_for_names = self.number = 1

class Line(Mute):
    __slots__ = ("item",)

class Item(Mute):
    pass

class Cached(Mute):
    pass

class InClass(Mute):
    pass

class Local(Mute):
    pass

class Queued(Mute):
    pass

class Shop(Mute):
    KEPT = [InClass() for _ in range(3000)]

    def __init__(self):
        self.orders = [Order() for _ in range(3000)]

def line():
    made = Line()
    made.item = Item()
    return made

SHOP = Shop()
LINES = {number: line() for number in range(3000)}
CACHE = {"by name": {"here": [Cached() for _ in range(3000)]}}
QUEUE = collections.deque(Queued() for _ in range(3000))

def main():
    mine = [Local() for _ in range(3000)]
    agent = type(sys)("agent")
    exec(sys.argv[1], agent.__dict__)
    count, rows = agent.biggest_types(20)
    print(json.dumps({name[8:-2].rpartition(".")[2]: [number, holders] for name, number, _, holders in rows}))

main()
"""


@pytest.fixture(scope="module")
def holders() -> dict[str, list[object]]:
    agent = link.AGENT[1].read_text()
    done = subprocess.run([sys.executable, "-c", PROGRAM, agent], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("Order", "__main__.SHOP.orders[]"),
        ("Line", "__main__.LINES[]"),
        ("Item", "__main__.LINES[].item"),
        ("Cached", "__main__.CACHE['by name']['here'][]"),
        ("InClass", "__main__.Shop.KEPT[]"),
        ("Queued", "__main__.QUEUE"),
        ("Local", "list[]"),  # locals of running functions are not looked at: that would change their frames
    ],
)
def test_the_way_from_a_global_is_named(kind: str, way: str, holders: dict[str, list[object]]) -> None:
    assert holders[kind] == [3000, [[way, 3]]]


def test_the_two_texts_that_become_one_do_not_get_in_each_others_way() -> None:
    trees = [ast.parse(file.read_text()) for file in link.AGENT]
    first, second = ({name for node in tree.body for name in defined(node)} for tree in trees)

    assert {"say", "objects"} <= first
    assert {"biggest_types", "Walk"} <= second
    assert first & second == {"TYPE_CHECKING", "gc", "sys", "time"}


def defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
