"""Callbacks, and early stopping."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fnn._messages import refuse
from fnn.expect import expect_alike
from fnn.train._inputs import expect_state
from fnn.train.state import copied
from fnn.types import History, TrainState


class Event(NamedTuple):
    """The progress of a fit since the previous event.

    There is one after each chunk of steps; each evaluation ends a chunk. The positions of the
    evaluations follow from the arguments of the fit, those of other chunks from the speed.
    """

    step: int  # updates made so far
    steps: int  # updates to make in all
    train: dict[str, np.ndarray]  # metrics of the steps since the previous event: (n, ...)
    train_steps: dict[str, np.ndarray]  # steps of metrics with an interval, as in History
    valid: dict[str, float]  # of the evaluation at this step, the loss first; {} without one
    read_history: Callable[[], History]

    @property
    def history(self) -> History:
        """The history so far, as `fit` returns it; built on access."""
        return self.read_history()


class Fold(NamedTuple):
    """Input and output of a callback."""

    state: TrainState  # of the fit, which continues with the returned one
    carry: Any  # the callback's own
    stop: bool = False  # True ends the fit here


class Callback(NamedTuple):
    """A fold `update(fold, event) -> fold` with its initial carry.

    The returned fold is its only effect: another carry, another training state (pruned units,
    averaged weights), or `stop=True`. A callback whose result must not depend on the speed of the
    machine acts only `if event.valid`, or accumulates `event.train` regardless of the chunks.

    The next step overwrites the state: copy the parts to keep.

    >>> def update(fold, event):                      # ends the fit at a validation loss below 0.1
    ...     return fold._replace(carry=event.valid, stop=event.valid.get('loss', 1.0) < 0.1)
    >>> below = Callback(update, init={})
    >>> fold = Fold(state=None, carry=below.init)
    >>> event = Event(5, 9, train={}, train_steps={}, valid={'loss': 0.05}, read_history=None)
    >>> below.update(fold, event).stop
    True
    """

    update: Callable[[Fold, Event], Fold]
    init: Any = None  # JSON, where the fit has a store, which saves the carry for a resume


Callbacks = Mapping[str, Callback]  # called in this order
Carries = dict[str, Any]
NO_CALLBACKS: Callbacks = MappingProxyType({})


def run_callbacks(
    callbacks: Callbacks, carries: Carries, state: TrainState, event: Event
) -> tuple[TrainState, Carries, bool]:
    """Runs all callbacks on `event`: the new state, the carries, and whether to stop."""
    carries, stops = dict(carries), False
    for name, callback in callbacks.items():
        folded = callback.update(Fold(state, carries[name]), event)
        if not isinstance(folded, Fold):
            raise ValueError(
                f"callbacks[{name!r}]: expected a Fold from update(fold, event), got "
                f"{type(folded).__name__}; return fold._replace(...), or fold itself"
            )
        expect_state(f"callbacks[{name!r}]", folded.state)
        if folded.state is not state:
            state = _accepted(name, state, folded.state)
        carries[name], stops = folded.carry, stops or bool(folded.stop)
    return state, carries, stops


def _accepted(name: str, before: TrainState, after: TrainState) -> TrainState:
    """The state that a callback changed, checked, in new buffers."""
    where = f"callbacks[{name!r}]: the states before and after it"
    expect_alike(where, before, after, dtypes=True)
    if int(after.step) != int(before.step):
        raise ValueError(
            f"callbacks[{name!r}]: expected the step to stay {int(before.step)}, got "
            f"{int(after.step)}; it says which batch comes next"
        )
    return copied(after)


def expect_callbacks(callbacks: Any) -> None:
    """Raises unless `callbacks` maps names to callbacks."""
    if not isinstance(callbacks, Mapping):
        hint = "give each a name and wrap its function in Callback"
        refuse("fit", "callbacks={name: Callback(...)}", callbacks, hint)
    for name, callback in callbacks.items():
        if not isinstance(name, str):
            refuse("callbacks", "names that are strings", name, "name each callback by a string")
        if not isinstance(callback, Callback):
            where = f"callbacks[{name!r}]"
            refuse(where, "a Callback", callback, "wrap its function in Callback")


def expect_json(carries: Carries) -> None:
    """Raises for a carry that a store cannot save."""
    for name, carry in carries.items():
        try:
            json.dumps(carry)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"callbacks[{name!r}]: expected a carry of JSON, since the fit has a store, got "
                f"{type(carry).__name__} ({error}); make its numbers floats or ints"
            ) from error


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """The best score so far, its step, and the number of evaluations without a better one.

    >>> state = EarlyStopping()
    >>> for step, loss in [(10, 1.0), (20, 0.5), (30, 0.6), (40, 0.49)]:
    ...     state = state.update(step, loss, min_delta=0.05)
    >>> state.best, state.best_step, state.since_best
    (0.5, 20, 2)
    """

    best: float = float("inf")
    best_step: int = 0  # 0 before the first evaluation
    since_best: int = 0  # evaluations

    def update(self, step: int, score: float, *, min_delta: float = 0.0) -> "EarlyStopping":
        """The state after one more evaluation; lower is better, and NaN never is."""
        if score < self.best - min_delta or (self.best_step == 0 and score == score):
            return EarlyStopping(best=score, best_step=step, since_best=0)
        return replace(self, since_best=self.since_best + 1)

    def exhausted(self, patience: int | None) -> bool:
        """Whether `patience` evaluations had no better score; False for None."""
        return patience is not None and self.since_best >= patience
