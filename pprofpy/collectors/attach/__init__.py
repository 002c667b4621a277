"""Running a small piece of Python in a live interpreter, by ptrace, without a debugger.

    answer = run(target, "import gc; result = str(len(gc.get_objects()))")
    int(answer.result)

The code runs in a thread of its own inside the target, in a namespace of its own, and leaves `result` (str or bytes)
behind. See docs/how-it-works.md for the way in, and why it does no harm.
"""

from __future__ import annotations

from pprofpy.collectors.attach.errors import CodeError, NotAnsweredError
from pprofpy.collectors.attach.run import Answer, rehearse, run

__all__ = ["Answer", "CodeError", "NotAnsweredError", "rehearse", "run"]
