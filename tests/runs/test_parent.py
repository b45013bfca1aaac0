"""A process that was started ends when the one that has started it does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

CODE = """
import signal, sys, time
from oneformer.runs.parent import end_with_parent

def ended(*_):
    print("saved", flush=True)
    {after}

signal.signal(signal.SIGTERM, ended)
end_with_parent(0.2)
print("begun", flush=True)
time.sleep(100)
"""


def begun(after: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", CODE.format(after=after)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_a_closed_input_lets_it_save_what_it_has_and_end() -> None:
    assert begun("sys.exit(7)").communicate(timeout=20) == ("saved\n", None)


def test_one_that_does_not_end_by_itself_is_ended() -> None:
    start = time.monotonic()
    process = begun("signal.pause()")
    assert process.communicate(timeout=20)[0] == "saved\n"
    assert process.returncode == 1 and time.monotonic() - start < 10


def test_without_an_end_of_the_input_it_goes_on() -> None:
    process = begun("sys.exit(7)")
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
