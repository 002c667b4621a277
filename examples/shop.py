"""A small shop on HTTP, with customers of its own: something real to profile.

    python examples/shop.py [--seconds N] [--customers N] [--port N]

Four worker threads serve orders over HTTP; a second process, the customers, sends them without end. It prints where it
serves, and at its end how its own clock (CPU time of each thread) splits the work, so that a profile can be checked:

    price_basket     about 45 %   compares every item with every offer: the thing to mend
    render_receipt   about 30 %   builds HTML piece by piece
    read_order       about 15 %   reads JSON
    sign_receipt     about 10 %   hashes in C

Further faults, for other views of a profiler:

    remember_customer  leaks: each order keeps 4 KiB for ever (up to 256 MiB)
    reserve_stock      holds the lock of the warehouse while it sleeps: others wait, and use no CPU
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict

WORKERS = 4
ITEMS_AN_ORDER = 60
READINGS, COPIES, SIGNERS = 12, 9, 10
OFFERS = [(f"item-{number}", 0.9) for number in range(500)]
MEMORY_BYTES, MEMORY_LIMIT_BYTES = 4 << 10, 256 << 20

warehouse = threading.Lock()
customers_seen: list[bytes] = []
spent_s: defaultdict[tuple[int, str], float] = defaultdict(float)  # by thread, so that no two write to one place


def serve_order(body: bytes) -> bytes:
    """One request: what the worker threads do all day."""
    order = timed(read_order, body)
    total = timed(price_basket, order)
    receipt = timed(render_receipt, order, total)
    signature = timed(sign_receipt, receipt)
    remember_customer(signature)
    reserve_stock(order)
    return receipt.encode()


def timed(step, *arguments):
    """Run a step and add its CPU time to our own account."""
    start = time.thread_time()
    try:
        return step(*arguments)
    finally:
        spent_s[threading.get_ident(), step.__name__] += time.thread_time() - start


def read_order(body: bytes) -> dict:
    for _ in range(READINGS):  # a careful reader checks each order several times
        order = json.loads(body)
    return order


def price_basket(order: dict) -> float:
    total = 0.0
    for item in order["items"]:
        price = item["price"] * item["count"]
        for name, factor in OFFERS:
            if item["name"] == name:
                price *= factor
        total += price
    return total


def render_receipt(order: dict, total: float) -> str:
    page = "<html><body><table>"
    for _ in range(COPIES):  # one for each department
        for item in order["items"]:
            cells = [str(item[key]).replace("<", "&lt;") for key in ("name", "count", "price")]
            page += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return page + f"</table>total {total:.2f}</body></html>"


def sign_receipt(receipt: str) -> bytes:
    signature, page = hashlib.sha256(b"shop"), receipt.encode()
    for _ in range(SIGNERS):
        for start in range(0, len(page), 2000):
            signature.update(page[start : start + 2000])
    return signature.digest()


def remember_customer(signature: bytes) -> None:
    if len(customers_seen) * MEMORY_BYTES < MEMORY_LIMIT_BYTES:
        customers_seen.append(signature * (MEMORY_BYTES // len(signature)))  # the leak


def reserve_stock(order: dict) -> None:
    if order["number"] % 10 == 0:
        with warehouse:
            time.sleep(0.005)


class Desk(http.server.BaseHTTPRequestHandler):
    """Where orders arrive."""

    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        receipt = serve_order(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", str(len(receipt)))
        self.end_headers()
        self.wfile.write(receipt)

    def log_message(self, *arguments) -> None:
        """A shop that logs every order would be profiled for its logging."""


class Shop(http.server.HTTPServer):
    """An HTTP server with a fixed number of worker threads, each with a name."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Desk)
        for number in range(1, WORKERS + 1):
            threading.Thread(target=self.work, name=f"worker-{number}", daemon=True).start()

    def work(self) -> None:
        while True:
            connection, address = self.socket.accept()
            try:
                self.finish_request(connection, address)
            except OSError:
                pass  # the customer has gone
            finally:
                self.shutdown_request(connection)


def buy(port: int, number: int) -> None:
    """One customer: orders over a connection that stays open, until the shop closes."""
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


def run_customers(port: int, count: int) -> None:
    """The second process."""
    customers = [
        threading.Thread(target=buy, args=(port, number), name=f"customer-{number}") for number in range(count)
    ]
    for customer in customers:
        customer.start()


def run_shop(arguments: argparse.Namespace) -> None:
    """The first process: serve until told to stop, then give an account."""
    closing = threading.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, lambda *_: closing.set())
    shop = Shop(arguments.port)
    visit = [sys.executable, __file__, "--customers", str(arguments.customers), "--visit", str(shop.server_port)]
    with subprocess.Popen(visit, start_new_session=True) as customers:
        print(f"serving on http://127.0.0.1:{shop.server_port}, process {os.getpid()}", flush=True)
        closing.wait(arguments.seconds)
        customers.kill()
    give_account()


def give_account() -> None:
    """What each step has cost by the threads' own clocks: the truth that a profile is to find."""
    steps: defaultdict[str, float] = defaultdict(float)
    for (_, name), seconds in list(spent_s.items()):
        steps[name] += seconds
    whole_s = sum(steps.values()) or 1.0
    for name, seconds in sorted(steps.items(), key=lambda entry: -entry[1]):
        print(f"{name:16} {seconds:7.2f} s  {100 * seconds / whole_s:4.1f} %")
    print(f"{len(customers_seen)} customers remembered, {len(customers_seen) * MEMORY_BYTES >> 10} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=None, help="close after so long (default: never)")
    parser.add_argument("--customers", type=int, default=WORKERS, help="each keeps one worker busy (default: 4)")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--visit", type=int, metavar="PORT", help="be the customers of the shop on this port")
    arguments = parser.parse_args()
    if arguments.visit:
        run_customers(arguments.visit, arguments.customers)
    else:
        run_shop(arguments)


if __name__ == "__main__":
    main()
