"""A block of code -> the same without the trainer's chatter: its tips, and warnings about what we do on purpose."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero", "lightning")


@contextmanager
def quiet() -> Iterator[None]:
    """While open, Lightning reports errors only; levels and filters are as before afterwards."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        # A step that the gradient scaler leaves out looks to torch like a schedule that runs ahead.
        warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\)` before `optimizer\.step")
        # Gradients of bias tables with one head come in another memory order than their bucket's; the numbers agree.
        warnings.filterwarnings("ignore", message=r"Grad strides do not match bucket view strides")
        # No part of the network writes into what another has given it; tests/train/test_sharded.py compares gradients.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
