"""The customers of shop.py: each orders over a connection of its own, again and again, until the shop closes.

python examples/customers.py PORT [COUNT]
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import threading

ITEMS_AN_ORDER = 60


def buy(port: int, number: int) -> None:
    chance = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            items = [
                {"name": f"item-{chance.randrange(500)}", "count": chance.randrange(1, 5), "price": chance.randrange(9)}
                for _ in range(ITEMS_AN_ORDER)
            ]
            connection.request("POST", "/order", json.dumps({"number": chance.randrange(1000), "items": items}))
            connection.getresponse().read()


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    for number in range(count):
        threading.Thread(target=buy, args=(port, number), name=f"customer-{number}").start()


if __name__ == "__main__":
    main()
