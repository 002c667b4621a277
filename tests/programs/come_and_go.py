"""Burns CPU time in threads that live 20 ms each, and in one that stays. Prints `ready` first."""

import threading
import time


def burn(seconds):
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pass


def come_and_go():
    while True:
        pair = [threading.Thread(target=burn, args=(0.02,)) for _ in range(2)]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join()


threading.Thread(target=burn, args=(3600,), name="stays", daemon=True).start()
print("ready", flush=True)
come_and_go()
