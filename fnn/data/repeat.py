"""Endless repetition of a re-iterable, such as a DataLoader."""

from collections.abc import Iterable, Iterator
from typing import Any


def repeat(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches of an iterable, endlessly: it is iterated anew after its last batch.

    For a `fit` of several epochs of a DataLoader, which reshuffles in each.

    Raises: ValueError, while iterating, for an epoch without batches, such as the second one of a
      generator.

    >>> batches = repeat([1, 2])
    >>> [next(batches) for _ in range(5)]
    [1, 2, 1, 2, 1]
    """
    epoch = 0
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"data.repeat: expected batches in epoch {epoch}, got none from "
                f"{type(batches).__name__}; give what can be read more than once, which a "
                "generator cannot"
            )
        epoch += 1
