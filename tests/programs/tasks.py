"""Tasks with known shares, each in a function and a context of its own; runs on Python 3.8 and later.

    tasks.py cpu|wait|threads [uvloop]

50 tasks, task_00 to task_49, take turns. Number i computes `weight(i)` units in `unit_i`, which nobody else calls, or
sleeps that long there; `route` is /route_(i % 20) meanwhile. Tasks from 40 on live for one turn each and are made anew.
`threads` has 4 threads instead, which compute in unit_0 to unit_3 with routes of their own.
"""

import asyncio
import sys
import threading
import time
import types
from contextvars import ContextVar, copy_context

MODE = sys.argv[1]
TASKS, LASTING, ROUTES = 50, 40, 20
UNIT_S = 0.0002
others = [ContextVar(f"other_{number}") for number in range(300)]
route = ContextVar("route", default="nowhere")
number = ContextVar("number")


def weight(i):
    return 1 + i % 5


def unit(i):
    if MODE == "wait":
        time.sleep(UNIT_S * weight(i))
    else:
        x = 0
        for n in range(400 * weight(i)):
            x += n * n


def named(i):
    """A copy of `unit` with a name of its own."""
    name = f"unit_{i:02}"
    code = unit.__code__.replace(co_name=name)
    if hasattr(code, "co_qualname"):
        code = code.replace(co_qualname=name)
    return types.FunctionType(code, globals(), name)


UNITS = [named(i) for i in range(TASKS)]


def enter(i):
    route.set(f"/route_{i % ROUTES:02}")
    number.set(-i if i % 2 else None)


async def deep(i, depth):
    if depth:
        await deep(i, depth - 1)
    else:
        UNITS[i](i)


async def lasting(i):
    enter(i)
    while True:
        await deep(i, 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # those that make tasks take two rounds of the loop for each, too


async def short(i):
    enter(i)
    await deep(i, 1)


async def maker(i):
    """One short task a turn, of the name of its number."""
    while True:
        task = asyncio.ensure_future(short(i))
        task.set_name(f"task_{i:02}")
        await task


async def main():
    for i in range(TASKS):
        task = asyncio.ensure_future(lasting(i) if i < LASTING else maker(i))
        task.set_name(f"task_{i:02}" if i < LASTING else f"maker_{i:02}")
    print("ready", flush=True)
    await asyncio.sleep(1e9)


def thread(i):
    enter(i)
    while True:
        UNITS[i](i)


for variable in others:
    variable.set(variable.name)
if MODE == "threads":
    for i in range(4):
        threading.Thread(target=copy_context().run, args=(thread, i), daemon=True).start()
    print("ready", flush=True)
    time.sleep(1e9)
elif "uvloop" in sys.argv:
    import uvloop

    asyncio.set_event_loop(uvloop.new_event_loop())
    asyncio.get_event_loop().run_until_complete(main())
else:
    asyncio.run(main())
