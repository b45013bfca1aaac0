"""Settings of the terminal -> where and how log lines appear: on stderr, coloured only where that is wanted."""

from __future__ import annotations

import logging
import os
import sys

from oneformer.errors import without_secrets


def colour_wanted() -> bool:
    """stderr is a terminal and neither NO_COLOR nor TERM=dumb forbids colours."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def set_up_logging(*, verbose: bool = False) -> None:
    """Send the log of this package to stderr: INFO and above, DEBUG when `verbose`; calling again replaces it."""
    logger = logging.getLogger("oneformer")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    handler = _handler()
    handler.addFilter(_hide_secrets)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


def _handler() -> logging.Handler:
    if colour_wanted():
        try:
            from rich.console import Console
            from rich.logging import RichHandler
        except ImportError:
            pass
        else:
            return RichHandler(console=Console(stderr=True), show_path=False, log_time_format="[%X]", markup=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    return handler


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Mask logins and signatures of addresses in what is about to be shown."""
    record.msg, record.args = without_secrets(record.getMessage()), None
    return True
