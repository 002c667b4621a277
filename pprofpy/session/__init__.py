"""One loop for every recording: a Session drives recorders, and yields what they found window by window.

Nothing here is the command line's: no signals, no environment, no rule about threads. The command line, a live view or
an HTTP endpoint only start a Session and consume its windows.
"""

from __future__ import annotations

from pprofpy.session.recorder import Recorder
from pprofpy.session.session import FOREVER, Session, Stop

__all__ = ["FOREVER", "Recorder", "Session", "Stop"]
