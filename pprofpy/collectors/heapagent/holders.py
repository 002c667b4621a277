"""Which types of objects take most memory, and what holds them: `shop.Shop.orders[]`. Runs inside the target.

This text is sent along with `agent.py`, and the same holds for it: nothing is imported that is not built into every
interpreter, no code of the program's own runs (no `__repr__`, no property, no `__hash__`), and nothing is changed: not
even a `__dict__` is asked for where the interpreter would have to make one.

The way from an object to a global is walked backwards, through `gc.get_referrers`. Each call of it reads all of the
heap while the program waits. So there are few: some examples of each type, together, and a few steps up.
"""

import gc
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the target may not have it, and shall not get it from us
    from typing import Any

GC_HEAD_BYTES = 16
LONGEST_TYPE_NAME = 4096
EXAMPLES = 3  # of each type
STEPS = 5  # up from an object
AT_ONCE = 20  # objects whose holders are looked for in one call
MOST_AT_A_STEP = 60
MOST_HOLDERS = 2  # of an object that are followed
MOST_ENTRIES = 1_000_000  # of a container that is searched
MOST_BYTES = 1 << 20  # of another object that is searched
MOST_NAMES = 200  # of attributes that are tried
BUDGET_S = 3.0  # of CPU time, after which nothing is followed any more
SHORT_DICT = 50  # the keys of longer ones are data, not names
LONGEST_KEY = 100
LONGEST_PATH = 200
DICT = ".__dict__"
IS_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by Python code, or like one

namespace_of = type.__dict__["__dict__"].__get__
bases_of = type.__dict__["__mro__"].__get__
flags_of = type.__dict__["__flags__"].__get__
Function, Member, Module = type(lambda: None), type(type.__dict__["__basicsize__"]), type(sys)
globals_of = namespace_of(Module)["__dict__"].__get__
PASSING = type(sys._getframe()), type(len)
SEQUENCES = list, tuple, set, frozenset


def biggest_types(limit: int) -> "tuple[int, list[Any]]":
    """The types that take most memory; the number of objects, and (type, count, bytes, [(holder, examples)]) of each.

    Only objects that the garbage collector knows: no strings, no numbers. Sizes without what they refer to.
    """
    basic = type.__dict__["__basicsize__"].__get__
    found: dict[int, list[Any]] = {}  # by id: a class may have a hash of its own
    everything = gc.get_objects()
    for thing in everything:
        kind = type(thing)
        entry = found.get(id(kind))
        if entry is None:
            size = basic(kind) + GC_HEAD_BYTES if has_own_sizeof(kind) else 0
            entry = found[id(kind)] = [kind, 0, 0, [], size]
        entry[1] += 1
        entry[2] += entry[4] or sys.getsizeof(thing, 0)
        if not entry[1] & (entry[1] - 1):  # the 1st, 2nd, 4th, 8th ...: the last of these are spread over all
            entry[3].append(thing)
    count = len(everything)
    del everything, thing
    biggest = sorted(found.values(), key=lambda entry: -entry[2])[:limit]
    rows = [(entry[0], entry[1], entry[2], entry[3][-EXAMPLES:]) for entry in biggest]
    del entry
    found.clear()
    biggest.clear()
    walk = Walk([thing for row in rows for thing in row[3]], rows)
    walk.up_from()
    return count, [(name_of(row[0]), row[1], row[2], walk.holders_of(row[3])) for row in rows]


def name_of(kind: type) -> str:
    """What a type is called, without asking its own class."""
    return type.__repr__(kind)[:LONGEST_TYPE_NAME]


def has_own_sizeof(kind: type) -> bool:
    """Would sys.getsizeof() run code of the program's? Not if the first `__sizeof__` up the bases is one of C's."""
    for base in bases_of(kind):
        method = namespace_of(base).get("__sizeof__")
        if method is not None:
            return type(method) is not type(object.__sizeof__)
    return True


def is_one_of(kind: type, kinds: "tuple[type, ...]") -> bool:
    """`in` would ask the classes' own class whether they are equal."""
    return any(kind is one for one in kinds)


class Walk:
    """The way from some objects up to what holds them.

    Args:
        things: The objects.
        rows: What of ours refers to them, in the last item of each.
    """

    def __init__(self, things: "list[Any]", rows: "list[Any]") -> None:
        self.level = things
        self.known: dict[int, Any] = {id(thing): thing for thing in things}  # keeps them alive
        self.up: dict[int, list[Any]] = {}  # id of an object -> a holder, how it calls it, another holder ...
        self.globals = globals_by_id()
        self.names: dict[int, list[str]] = {}
        self.deadline_s = time.thread_time() + BUDGET_S
        ours = [self, self.__dict__, things, rows, self.known, self.up, self.globals, self.names, globals()]
        self.ours = {id(ours), *map(id, ours), *map(id, rows), *(id(row[-1]) for row in rows)}

    def up_from(self) -> None:
        """Find the holders of the objects, the holders of these, and so on."""
        for _ in range(STEPS):
            level, self.level = self.level[:MOST_AT_A_STEP], []
            self.ours.update((id(level), id(self.level)))
            while level and time.thread_time() < self.deadline_s:
                some = tuple(level[:AT_ONCE])  # of a list, the call would make a tuple that refers to them, too
                del level[:AT_ONCE]
                self.find_holders(some)
                time.sleep(0)  # the program's turn

    def find_holders(self, some: "tuple[Any, ...]") -> None:
        """Note who holds these, and by what name."""
        wanted = {id(thing) for thing in some}
        for holder in gc.get_referrers(*some):
            if holder is some or id(holder) in self.ours or is_one_of(type(holder), PASSING):
                continue
            for thing_id, name in self.names_in(holder, wanted):
                held = self.up.get(thing_id)
                if held is None:
                    held = self.up[thing_id] = []
                    self.ours.add(id(held))
                is_global = id(holder) in self.globals
                held[:0] = [holder, name] if is_global else []
                held += [] if is_global else [holder, name]
                if is_global or len(held) >= 2 * MOST_HOLDERS:
                    wanted.discard(thing_id)
                if not is_global and id(holder) not in self.known:
                    self.known[id(holder)] = holder
                    self.level.append(holder)
            if not wanted or time.thread_time() > self.deadline_s:
                break

    def names_in(self, holder: "Any", wanted: "set[int]") -> "list[tuple[int, str]]":
        """What a holder calls those of these objects that it refers to: (id, name)."""
        kind = type(holder)
        found: list[tuple[int, str]] = []
        try:
            if kind is dict and len(holder) <= MOST_ENTRIES:
                for key, value in holder.items():
                    if id(value) in wanted:
                        found.append((id(value), key[:LONGEST_KEY] if type(key) is str else ""))
            elif is_one_of(kind, SEQUENCES):
                if len(holder) <= MOST_ENTRIES:
                    found = [(id(thing), "[]") for thing in holder if id(thing) in wanted]
            elif (kind is not dict and has_own_sizeof(kind)) or sys.getsizeof(holder, 0) <= MOST_BYTES:
                things = [thing for thing in gc.get_referents(holder) if id(thing) in wanted]
                found = [(id(thing), self.attribute(holder, thing)) for thing in things]
                self.ours.add(id(things))
        except RuntimeError:  # the program has changed it meanwhile
            pass
        return list(dict(found).items())

    def attribute(self, holder: "Any", thing: "Any") -> str:
        """How an object calls what it refers to: `.name`, `__dict__`, or nothing if it does not say."""
        kind = type(holder)
        if flags_of(kind) & IS_HEAP_TYPE and not issubclass(kind, type):
            for name in self.names_of(kind):
                if value_of(holder, name) is thing:
                    return "." + name
        return DICT if type(thing) is dict else ""

    def names_of(self, kind: type) -> "list[str]":
        """What the attributes of a class's objects may be called: slots, and the names that its methods use."""
        known = self.names.get(id(kind))
        if known is not None:
            return known
        found: dict[str, None] = {}
        for base in bases_of(kind):
            for name, value in list(namespace_of(base).items()):
                if type(value) is Member:
                    found[name] = None
                elif type(value) is Function:
                    found.update(dict.fromkeys(value.__code__.co_names))
        names = self.names[id(kind)] = list(found)[:MOST_NAMES]
        self.ours.add(id(names))
        return names

    def holders_of(self, things: "list[Any]") -> "list[tuple[str, int]]":
        """The ways to some objects, and to how many of them each leads: the most common first."""
        ways: dict[str, int] = {}
        for thing in things:
            way, _ = self.way_to(thing, STEPS)
            if way:
                ways[way[-LONGEST_PATH:]] = ways.get(way[-LONGEST_PATH:], 0) + 1
        return sorted(ways.items(), key=lambda item: -item[1])

    def way_to(self, thing: "Any", steps: int) -> "tuple[str, bool]":
        """How a program reaches an object, and whether that begins at a global; else it begins with a type."""
        best = "", False
        held = self.up.get(id(thing), []) if steps else []
        for holder, name in zip(held[::2], held[1::2]):  # noqa: B905 - Python 3.8
            if id(holder) in self.globals:
                return self.globals[id(holder)] + "." + (name or "?"), True
            if type(holder) is dict:
                owner = next((one for one, link in self.pairs(holder) if link == DICT), None)
                if owner is None:
                    start, is_global = self.start(holder, steps)
                    is_name = name and len(holder) <= SHORT_DICT
                    way = start + ("[" + repr(name) + "]" if is_name else "[]")
                else:
                    start, is_global = self.start(owner, steps)
                    way = start + "." + (name or "?")
            else:
                start, is_global = self.start(holder, steps)
                way = start + name
            if is_global:
                return way, True
            best = best if best[0] else (way, False)
        return best

    def pairs(self, thing: "Any") -> "list[tuple[Any, str]]":
        """The holders of an object, each with the name by which it holds it."""
        held = self.up.get(id(thing), [])
        return [(held[place], held[place + 1]) for place in range(0, len(held), 2)]

    def start(self, holder: "Any", steps: int) -> "tuple[str, bool]":
        """How the way to what an object holds begins."""
        if issubclass(type(holder), type):
            return bare_name(holder), True
        way, is_global = self.way_to(holder, steps - 1)
        return (way, True) if is_global else (bare_name(type(holder)), False)


def globals_by_id() -> "dict[int, str]":
    """Id of each module's globals -> its name."""
    found = {}
    for name, module in list(sys.modules.items()):
        if issubclass(type(module), Module) and type(name) is str:
            found[id(globals_of(module))] = name
    return found


def bare_name(kind: type) -> str:
    """`shop.Order`."""
    return name_of(kind)[len("<class '") : -len("'>")]


def value_of(holder: "Any", name: str) -> "Any":
    """An attribute as it lies in an object; None if it is not there, or code of the program's would tell."""
    for base in bases_of(type(holder)):
        namespace = namespace_of(base)
        if name in namespace:
            member = namespace[name]
            if type(member) is not Member:
                return None
            break
    try:
        return object.__getattribute__(holder, name)
    except (AttributeError, TypeError):
        return None
