"""Code that is hard to name, each piece busy for the same time; each has a number of its own: N in `busy(N)`.

The line of each call of `busy` says what the frame is called. Python 3.8 and later.

    names.py FOLDER     into which it writes an archive with a module
"""

import functools
import sys
import zipfile
from pathlib import Path


def busy(number):
    x = 0
    for n in range(3000):
        x += n * number
    return 0


def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@decorated
@decorated
def behind_decorators():
    busy(1)  # behind_decorators


class First:
    def run(self):
        busy(2)  # First.run

    @property
    def attribute(self):
        return busy(3)  # First.attribute


class Second:
    def run(self):
        busy(4)  # Second.run

    @staticmethod
    def static():
        busy(5)  # Second.static


def outer():
    def inner():
        busy(6)  # outer.<locals>.inner

    inner()
    (lambda: busy(7))()  # outer.<locals>.<lambda>
    (lambda: busy(8))()  # outer.<locals>.<lambda>
    sum(busy(9) for _ in range(1))  # outer.<locals>.<genexpr>


def with_class():
    class Body:
        busy(10)  # with_class.<locals>.Body


def redefined():
    busy(11)  # redefined


first_definition = redefined


def redefined():
    busy(12)  # redefined


made = {"busy": busy}
exec(compile("def by_exec():\n    busy(13)  # by_exec\n", "<made up>", "exec"), made)

archive = Path(sys.argv[1]) / "library.zip"
with zipfile.ZipFile(archive, "w") as file:
    file.writestr("package_in_zip/__init__.py", "")
    file.writestr("package_in_zip/module_in_zip.py", "def in_zip(busy):\n    busy(14)  # in_zip\n")
sys.path.insert(0, str(archive))
from package_in_zip.module_in_zip import in_zip  # noqa: E402

print("ready", flush=True)
while True:
    behind_decorators()
    First().run()
    made["attribute"] = First().attribute
    Second().run()
    Second.static()
    outer()
    with_class()
    first_definition()
    redefined()
    made["by_exec"]()
    in_zip(busy)
