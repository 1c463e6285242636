"""Ctrl-C and SIGTERM as a flag that the loop asks for, so that a fit ends with all saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """A context that gives `interrupted() -> bool`.

    The first signal sets the flag and puts the former handlers back, so that a second one acts at
    once. Outside the main thread, where Python allows no handlers, the flag is never set.
    """
    received = False
    former: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)
        former.clear()

    def handle(number, frame) -> None:
        nonlocal received
        received = True
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, handle)
    try:
        yield lambda: received
    finally:
        restore()
