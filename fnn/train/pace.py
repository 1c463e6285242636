"""How many steps to make in one dispatch, chosen by how long the ones before took."""

import time
from collections.abc import Callable

import jax
import numpy as np

from fnn.measures import Recorded
from fnn.train.chunks import Advance
from fnn.types import TrainState


class Pace:
    """Adapts the chunk length so that each chunk takes about `seconds`.

    The first chunk is a single step, whose time is the compiler's and tells nothing. From the
    second on, a chunk is at most 16 times as long as the one before. A step that takes longer than
    `seconds` makes a chunk by itself.

    Args:
      seconds: to aim at.
      most: steps of a chunk.

    >>> pace = Pace(seconds=0.2, most=100)
    >>> lengths = []
    >>> def advance(state, steps):
    ...     lengths.append(steps)
    ...     return state, {1: {'loss': jnp.zeros(steps)}}
    >>> state = TrainState(step=jnp.int32(0), params={}, model_state=(), opt_state={})
    >>> _ = [pace.time(advance, state, 100) for _ in range(2)]
    >>> lengths, pace.rate > 0
    ([1, 1], True)
    """

    def __init__(
        self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._length, self._compiled = 1, False
        self.rate = 0.0  # steps per second; 0 until it is known

    def time(self, advance: Advance, state: TrainState, most: int) -> tuple[TrainState, Recorded]:
        """The state after a chunk of at most `most` steps, and what these recorded, in NumPy."""
        length = min(self._length, most)
        start = self._clock()
        state, recorded = advance(state, length)
        recorded = jax.tree.map(lambda a: np.array(a[:length]), jax.device_get(recorded))
        seconds = max(self._clock() - start, 1e-9)
        if self._compiled:
            self.rate = length / seconds
            wanted = int(self.rate * self._seconds)
            self._length = max(1, min(wanted, 16 * length, self._most))
        self._compiled = True
        return state, recorded
