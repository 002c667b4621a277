"""Waits for ever in one function; prints `ready` first."""

import time


def wait_for_ever():
    time.sleep(3600)


print("ready", flush=True)
wait_for_ever()
