"""Two processes that burn: the parent, and one child of a name of its own. Prints `ready` once both do."""

import multiprocessing
import time


def burn(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def parent_work():
    burn(3600)


def child_work(is_up):
    is_up.set()
    burn(3600)


if __name__ == "__main__":
    up = multiprocessing.Event()
    multiprocessing.Process(target=child_work, args=(up,), daemon=True).start()
    up.wait()
    print("ready", flush=True)
    parent_work()
