"""Where the program begins: the installed command, and `python -m pprofpy`.

Nothing may be imported before Ctrl-C and closed standard streams are taken care of: imports take a tenth of a second.
"""

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, there from the start
import os
import sys

_had_handler = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # else it is ignored: in the background
if _had_handler:
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(130))

from pprofpy.system.interrupts import end_at_once  # noqa: E402

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main() -> None:
    """Run the command line; exit with the status that the README's table gives."""
    if _had_handler:
        _signal.signal(_signal.SIGINT, end_at_once)
    _open_standard_streams()
    from pprofpy.cli.main import main as run

    try:
        run()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status)  # all is closed and said: what Python does at its end could only be interrupted


def _open_standard_streams() -> None:
    """Where one was closed (`>&-`), the next file that we open would take its place, and get what is printed."""
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
