"""Profiler traces of a few chunks of a fit, for TensorBoard or Perfetto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from fnn.train.callbacks import Callback, Event, Fold


@contextmanager
def profile(path: str | Path, *, skip: int = 2, chunks: int = 3) -> Iterator[Callback]:
    """A context whose value is a callback that traces some chunks of a fit.

    Args:
      path: a directory for the trace, created if missing.
      skip: chunks before the trace begins. The first one compiles, and with a source on the host
        the second one as well.
      chunks: number of chunks to trace, at least 1; fewer if the fit or the context ends before.

    >>> import tempfile
    >>> with profile(tempfile.mkdtemp()) as recording:      # fit(..., callbacks={'p': recording})
    ...     recording.init
    0
    """
    recording = False

    def end() -> None:
        nonlocal recording
        if recording:
            recording = False
            jax.profiler.stop_trace()

    def update(fold: Fold, event: Event) -> Fold:
        nonlocal recording
        seen = fold.carry + 1
        if seen == skip:
            jax.profiler.start_trace(str(path))
            recording = True
        elif seen == skip + chunks:
            end()
        return fold._replace(carry=seen)

    try:
        yield Callback(update, init=0)
    finally:
        end()
