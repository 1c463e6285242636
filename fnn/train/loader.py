"""Batches from an iterable of the user's: a generator, a DataLoader, a dataset of grain or tf."""

import base64
import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np

from fnn import tree
from fnn.expect import expect_alike
from fnn.train._given import arrays
from fnn.types import Batch, Pair, PRNGKey


def is_iterable(train: Any) -> bool:
    """Whether `train` hands out batches, and is no pair of arrays.

    >>> is_iterable((1, 2)), is_iterable(iter([])), is_iterable([(1, 2), (1, 2)])
    (False, True, True)
    """
    if isinstance(train, list):  # of pairs; a list of two arrays is not
        return all(isinstance(batch, (tuple, list, Mapping)) for batch in train)
    no = (tuple, Mapping, str, bytes, np.ndarray, jax.Array)
    return isinstance(train, Iterable) and not isinstance(train, no)


class Loader(Batch):
    """The first batch of an iterable, and as a `Source` all of its batches, in its own order.

    Args:
      batches: the iterable; it is read once, one batch for each step.
      batch_size: of each of them.
      steps: how many batches the training needs.

    Raises: ValueError for an iterable that is known to be too short, and for a first batch that is
      no pair or has another size.
    """

    def __new__(cls, x: Any, y: Any, feed: "Feed | None" = None) -> "Loader":
        loader = super().__new__(cls, x, y)
        loader.feed = feed
        return loader

    feed: "Feed | None"

    def batches(
        self, key: PRNGKey, batch_size: int, start_step: int
    ) -> AbstractContextManager[Iterator[Any]]:
        """The batches that are left, for the steps from `start_step` on."""
        assert self.feed is not None
        return nullcontext(self.feed)

    def seek(self, position: Any, step: int) -> None:
        """Go to the stored position of a run that is resumed; see `Feed.seek`."""
        assert self.feed is not None
        self.feed.seek(position, step)

    def expect_position(self) -> None:
        """Warn of a source that a resume cannot go on with, before any training.

        Raises: ValueError for a position that is no JSON.
        """
        where = position(self)
        if where is None:
            assert self.feed is not None
            warnings.warn(
                f"fit: data.train ({self.feed.name}) does not say its position (by get_state and "
                "set_state), so this run cannot be resumed from its store",
                stacklevel=4,
            )
        try:
            json.dumps(where)
        except TypeError as error:
            raise ValueError(
                f"fit: expected a position of data.train that is JSON or bytes, got {where!r}; "
                "return such from get_state or state_dict"
            ) from error


def position(train: Any) -> Any:
    """Where a `Loader` is, as JSON; None for what follows from the step, or is not known.

    >>> position((1, 2)) is None
    True
    """
    return train.feed.position() if isinstance(train, Loader) and train.feed else None


def open_loader(batches: Iterable[Any], batch_size: int, steps: int) -> Loader:
    """Read the first batch of an iterable of pairs (x, y).

    >>> pairs = ((np.ones((4, 2)), np.zeros(4)) for _ in range(3))
    >>> open_loader(pairs, 4, 3).x.shape
    (4, 2)
    """
    with contextlib.suppress(TypeError):  # it has no length, or does not know it
        if (n := len(batches)) < steps:  # type: ignore[arg-type]
            raise ValueError(_too_few(batches, steps, n))
    feed = Feed(batches, steps)
    examples = tree.length(feed.first)
    if examples != batch_size:
        raise ValueError(
            f"batch_size: expected that of the batches of data.train, {examples}, got {batch_size}"
            f"; pass batch_size={examples}"
        )
    return Loader(*feed.first, feed)


class Feed:
    """An iterator over the batches of an iterable, which checks and converts them."""

    def __init__(self, batches: Iterable[Any], steps: int):
        self._given, self._iterator, self._steps = batches, iter(batches), steps
        self._step = 0  # of the batch that is read next
        self.first = self._read()
        self._ahead = [self.first]

    @property
    def name(self) -> str:
        """The type of the iterable."""
        return type(self._given).__name__

    def __iter__(self) -> Iterator[Pair]:
        return self

    def __next__(self) -> Pair:
        return self._ahead.pop() if self._ahead else self._read()

    def position(self) -> Any:
        """Where the iterable is, as JSON; None if it does not say."""
        methods = self._methods()
        if methods is None:
            return None
        position = methods[0]()
        if isinstance(position, bytes):
            return {"base64": base64.b64encode(position).decode()}
        return position

    def seek(self, position: Any, step: int) -> None:
        """Go to a position, that of the batch of `step`.

        Raises: ValueError if the iterable cannot.
        """
        methods = self._methods()
        if methods is None or position is None:
            raise ValueError(
                f"fit: expected a data.train that says its position, to resume at step {step}, got "
                f"{type(self._given).__name__}; use arrays or fnn.data.Streamed, or an iterator "
                "with get_state and set_state (or state_dict and load_state_dict)"
            )
        if isinstance(position, Mapping) and position.keys() == {"base64"}:
            position = base64.b64decode(position["base64"])
        methods[1](position)
        if not _methods_of(self._iterator):
            self._iterator = iter(self._given)
        self._step, self._ahead = step, []

    def _methods(self) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
        return _methods_of(self._iterator) or _methods_of(self._given)

    def _read(self) -> Pair:
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise ValueError(_too_few(self._given, self._steps, self._step)) from None
        where = f"data.train: the batch of step {self._step}"
        pair = _pair(where, batch)
        if self._step and hasattr(self, "first") and _specs(pair) != _specs(self.first):
            _expect_like_first(where, self.first, pair)
        self._step += 1
        return pair


def _methods_of(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if hasattr(thing, get) and hasattr(thing, put):
            return getattr(thing, get), getattr(thing, put)
    return None


def _too_few(batches: Any, steps: int, n: int) -> str:
    return (
        f"data.train: expected a batch for each of {steps} steps, got {n} batches from "
        f"{type(batches).__name__}; train for fewer steps, or pass fnn.data.repeat(...) of what "
        "can be read again, such as a DataLoader"
    )


def _pair(where: str, batch: Any) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        keys = f" with {sorted(batch)}" if isinstance(batch, Mapping) else ""
        raise ValueError(
            f"{where}: expected a pair (x, y), got {type(batch).__name__}{keys}; map them first: "
            "((batch['x'], batch['y']) for batch in loader)"
        )
    try:
        return Batch(*map(arrays, batch))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _specs(pair: Pair) -> list[Any]:
    return [jax.tree.structure(pair), *((a.shape, a.dtype) for a in jax.tree.leaves(pair))]


def _expect_like_first(where: str, first: Pair, pair: Pair) -> None:
    try:
        expect_alike(f"{where} and the first one", first, pair, dtypes=True)
    except ValueError as error:
        raise ValueError(
            f"{error}\nmake all batches alike; a smaller last one is left out by a DataLoader with "
            "drop_last=True"
        ) from None
