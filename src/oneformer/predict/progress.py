"""How many images are done -> a progress line on stderr: rewritten on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from oneformer.runs.log import colour_wanted

log = logging.getLogger(__name__)

EVERY_S = 10.0  # between log lines where the line cannot be written over


class Progress:
    """Counts images; a context manager that gives the terminal's line back at the end.

    Args:
        what: the work in one word, at the start of the line.
        total: images in all; 0 when that is not known.
        quiet: count only, say nothing (all processes but the first).
        clock: seconds, rising.
    """

    def __init__(
        self, what: str, total: int, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._clock = clock
        self._began = self._said = clock()
        self._quiet = quiet
        self._live = not quiet and colour_wanted()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self.done:
            sys.stderr.write("\n")
            sys.stderr.flush()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._began

    @property
    def images_per_s(self) -> float:
        """Mean speed so far."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def eta_s(self) -> float:
        """Seconds left at the mean speed so far; 0 before the first image."""
        return (self.total - self.done) / self.images_per_s if self.done else 0.0

    def text(self) -> str:
        """The line."""
        if not self.total:
            return f"{self.what} {self.done} images  {self.images_per_s:.2f} images/s"
        eta = timedelta(seconds=round(self.eta_s))
        return f"{self.what} {self.done}/{self.total} images  {self.images_per_s:.2f} images/s  eta {eta}"

    def add(self, images: int) -> None:
        """Note that so many more images are done."""
        self.done += images
        now = self._clock()
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{self.text()}")
            sys.stderr.flush()
        elif not self._quiet and (now - self._said >= EVERY_S or 0 < self.total <= self.done):
            self._said = now
            log.info("%s", self.text())
