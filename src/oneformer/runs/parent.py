"""The process that has started this one -> its end, with which this one ends in good order too."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(grace_s: float) -> None:
    """From now on this process gets SIGTERM when its standard input closes, and ends at the latest `grace_s` later.

    The other end of the standard input closes with the process that holds it, whatever has killed that.
    """
    threading.Thread(target=_watch, args=(grace_s,), daemon=True).start()


def _watch(grace_s: float) -> None:
    while os.read(0, 1):  # past the buffer of sys.stdin: Python may not end while a thread reads through that
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)
