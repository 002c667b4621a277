"""From file paths to module names, below a target's own root."""

from __future__ import annotations

from pathlib import Path

import pytest

from pprofpy.collectors.cpython.modules import ModuleNames


@pytest.mark.parametrize(
    ("filename", "module"),
    [
        ("/usr/lib/python3.11/threading.py", "threading"),
        ("/usr/lib/python3.11/json/decoder.py", "json.decoder"),
        ("/usr/lib/python3.11/json/__init__.py", "json"),
        ("/venv/lib/python3.12/site-packages/flask/app.py", "flask.app"),
        ("/usr/lib/python3/dist-packages/apt/cache.py", "apt.cache"),
        ("/venv/lib/python3.12/site-packages/numpy/core/_impl.cpython-312-x86_64-linux-gnu.so", "numpy.core._impl"),
        ("/app/bundle.pyz/pkg/mod.py", "pkg.mod"),
        ("/srv/app/worker.py", "worker"),
        ("/usr/bin/pip", "pip"),
        ("worker.py", "worker"),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap"),
        ("<string>", "<string>"),
        ("", ""),
    ],
)
def test_a_path_names_its_module(filename: str, module: str, tmp_path: Path) -> None:
    assert ModuleNames(tmp_path).name(filename) == module


def test_packages_are_told_by_their_init_file_in_the_targets_root(tmp_path: Path) -> None:
    package = tmp_path / "srv" / "shop" / "cart"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()

    assert ModuleNames(tmp_path).name("/srv/shop/cart/price.py") == "shop.cart.price"


def test_a_path_cannot_climb_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    root = tmp_path / "root"
    root.mkdir()

    assert ModuleNames(root).name("/../x.py") == "x"
