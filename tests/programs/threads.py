"""Starts as many short threads as its argument says, one after the other. Prints `ready`, then waits for a line."""

import os
import sys
import threading


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        thread = threading.Thread(target=os.getppid)
        thread.start()
        thread.join()


if __name__ == "__main__":
    main()
