"""Who is timed when, in a round."""

from collections.abc import Iterable


def in_turn(names: Iterable[str], i: int) -> list[str]:
    """All of them in their order, in round i from the i-th on: none is always the first."""
    every = list(names)
    first = i % len(every)
    return every[first:] + every[:first]
