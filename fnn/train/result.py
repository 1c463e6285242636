"""How a fit ends: with a result, or with the error that keeps what is known."""

import enum
from typing import Any, NamedTuple

import numpy as np

from fnn import show
from fnn.types import History, TrainState


class Stop(enum.Enum):
    """Why a fit ended."""

    DONE = "all steps made"
    PATIENCE = "no improvement"
    CALLBACK = "ended by a callback"
    INTERRUPTED = "interrupted"


class FitResult(NamedTuple):
    """What `fit` returns."""

    state: TrainState  # the best one if there was patience, else the last
    history: History
    best_step: int  # updates made at the best evaluation
    stop: Stop
    carries: dict[str, Any]  # the last one of each callback
    signal: int = 0  # that arrived while it trained, such as signal.SIGINT; 0 for none

    def __repr__(self) -> str:
        head = f"FitResult: {self.stop.value}; best evaluation after {self.best_step:,} steps"
        return "\n".join([head, *show.history_lines(self.history), f"  state  {self.state}"])


class NonFiniteError(ArithmeticError):
    """A loss or penalty that turned NaN or infinite. Carries what is known and what is kept.

    step: the step whose loss it was, counted from 0.
    indices: the examples of `data.train` in its batch, int32 (batch_size,); None where `data.train`
      is an iterable of batches.
    state: the state at the last evaluation before it, whose loss was finite; the first state if
      there was none.
    history: up to and with that step.
    """

    def __init__(self, step: int, indices: np.ndarray | None, state: TrainState, history: History):
        self.step, self.indices, self.state, self.history = step, indices, state, history
        loss = float(history.train["loss"][-1])
        seen = "its batch" if indices is None else f"the examples {indices.tolist()}"
        super().__init__(
            f"fit: expected a finite loss, got {loss} at step {step} on "
            f"{seen} of data.train; the state of step {int(state.step)} is kept in "
            "this error's .state (and in the store, if there is one): "
            "lower the lr, clip the gradients, or look at these examples"
        )
