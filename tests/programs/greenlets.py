"""Two greenlets that switch all the while, at every depth of their stacks; Python 3.8 and later, with greenlet.

Functions of one are called left_N, those of the other right_N: no stack may have both. Two threads do so.
"""

import threading

from greenlet import greenlet


def compute():
    x = 0
    for i in range(30):
        x += i * i


def make(side):
    """A chain of functions side_0 to side_5 that switch to the other greenlet at each step."""
    source = "".join(
        f"def {side}_{depth}(other, call):\n"
        f"    compute(); other.switch()\n"
        f"    call(compute)\n"
        + (f"    {side}_{depth + 1}(other, call)\n" if depth < 5 else "")
        + "    other.switch(); compute()\n"
        for depth in reversed(range(6))
    )
    found = {"compute": compute}
    exec(source, found)
    return found[f"{side}_0"]


left, right = make("left"), make("right")


def call(function):
    """By way of C: the switch saves a piece of the C stack."""
    sorted([1], key=lambda _: function() or 0)


def switching():
    others = {}

    def left_forever():
        while True:
            left(others["right"], call)

    def right_forever():
        while True:
            right(others["left"], call)

    others["left"], others["right"] = greenlet(left_forever), greenlet(right_forever)
    others["left"].switch()


threading.Thread(target=switching, daemon=True).start()
print("ready", flush=True)
switching()
