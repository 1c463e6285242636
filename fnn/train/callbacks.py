"""Callbacks, and early stopping."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fnn.advice import refuse
from fnn.expect import expect_alike
from fnn.train._given import expect_state
from fnn.train.state import copied
from fnn.types import History, TrainState


class Event(NamedTuple):
    """What a fit has seen since the event before.

    There is one after each chunk of steps, and each evaluation ends a chunk. Where the evaluations
    are follows from the arguments of the fit; where the other chunks end, from the machine's speed.
    """

    step: int  # updates made so far
    steps: int  # updates to make in all
    train: dict[str, np.ndarray]  # metrics of the steps since the event before, by name: (n, ...)
    train_steps: dict[str, np.ndarray]  # the steps of what is not measured at each, as in History
    valid: dict[str, float]  # of the evaluation at this step, the loss first; {} if there was none
    read_history: Callable[[], History]

    @property
    def history(self) -> History:
        """All so far, as `fit` returns it; put together when it is asked for."""
        return self.read_history()


class Fold(NamedTuple):
    """Input and output of a callback."""

    state: TrainState  # of the fit, which goes on with the one that comes back
    carry: Any  # the callback's own
    stop: bool = False  # True ends the fit here


class Callback(NamedTuple):
    """A fold `update(fold, event) -> fold` with its first carry.

    What it returns says all that it does: another carry, another state of the training (units
    pruned, weights averaged), or `stop=True`. A callback that must give the same on every machine
    acts only `if event.valid`, or collects from `event.train`, however that is cut.

    The state is overwritten by the next step: what is to be kept of it has to be copied.

    >>> def update(fold, event):                      # ends the fit at a validation loss below 0.1
    ...     return fold._replace(carry=event.valid, stop=event.valid.get('loss', 1.0) < 0.1)
    >>> below = Callback(update, init={})
    >>> fold = Fold(state=None, carry=below.init)
    >>> event = Event(5, 9, train={}, train_steps={}, valid={'loss': 0.05}, read_history=None)
    >>> below.update(fold, event).stop
    True
    """

    update: Callable[[Fold, Event], Fold]
    init: Any = None  # JSON, where the fit has a store: it is kept there, and read at a resume


Callbacks = Mapping[str, Callback]  # in the order in which they see each event
Carries = dict[str, Any]
NO_CALLBACKS: Callbacks = MappingProxyType({})


def see(
    callbacks: Callbacks, carries: Carries, state: TrainState, event: Event
) -> tuple[TrainState, Carries, bool]:
    """The state, the carries, and whether to stop, after all callbacks have seen `event`.

    Raises: ValueError for a state that the fit cannot go on with.
    """
    carries, stops = dict(carries), False
    for name, callback in callbacks.items():
        given = Fold(state, carries[name])
        folded = callback.update(given, event)
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
    """The changed state, checked, in buffers that no two of its leaves share."""
    where = f"callbacks[{name!r}]: the states before and after it"
    expect_alike(where, before, after, dtypes=True)
    if int(after.step) != int(before.step):
        raise ValueError(
            f"callbacks[{name!r}]: expected the step to stay {int(before.step)}, got "
            f"{int(after.step)}; it says which batch comes next"
        )
    return copied(after)


def expect_callbacks(callbacks: Any) -> None:
    """Raise for what is not a mapping of names to callbacks."""
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
    """Raise for a carry that a store cannot keep."""
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
    """What has been seen so far: the best score, when, and the evaluations without a better one.

    >>> state = EarlyStopping()
    >>> for step, loss in [(10, 1.0), (20, 0.5), (30, 0.6), (40, 0.49)]:
    ...     state = state.see(step, loss, min_delta=0.05)
    >>> state.best, state.best_step, state.since_best
    (0.5, 20, 2)
    """

    best: float = float("inf")
    best_step: int = 0  # 0 before the first evaluation
    since_best: int = 0  # evaluations

    def see(self, step: int, score: float, *, min_delta: float = 0.0) -> "EarlyStopping":
        """The state after one more evaluation; lower is better, and NaN never is."""
        if score < self.best - min_delta or (self.best_step == 0 and score == score):
            return EarlyStopping(best=score, best_step=step, since_best=0)
        return EarlyStopping(
            best=self.best, best_step=self.best_step, since_best=self.since_best + 1
        )

    def exhausted(self, patience: int | None) -> bool:
        """Whether there were `patience` evaluations without a better score; never for None."""
        return patience is not None and self.since_best >= patience

    def as_json(self) -> dict[str, Any]:
        """For the meta data of a checkpoint; `EarlyStopping(**...)` reads it back."""
        return asdict(self)
