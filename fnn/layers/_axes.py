"""The axes of x between batch and features: their number, and a size for each of them."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Array

from fnn._arguments import Kind

_MISSING = "add a channel axis, x[..., None], or a batch axis, x[None], if x lacks one"


def layout(axes: int) -> str:
    """The axes of x for a window of `axes` axes, in words."""
    named = {
        1: "time, channels",
        2: "height, width, channels",
        3: "depth, height, width, channels",
    }
    return f"(batch, {named.get(axes, f'{axes} sizes, channels')})"


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and bool(value > 0)


def _advice(sizes: Any) -> str:
    # For x of shape (batch, 28, 28), 3 could be a window on images without a channel axis, or one
    # on sequences.
    if _is_size(sizes):
        return (
            f"write ({sizes}, {sizes}) for images {layout(2)}, or ({sizes},) for sequences "
            f"{layout(1)}"
        )
    return "write (3, 3), of Python ints, for images"


_KIND = Kind(
    "a positive integer for each window axis",
    lambda sizes: isinstance(sizes, Sequence) and len(sizes) > 0 and all(map(_is_size, sizes)),
    _advice,
)
Size = int | Sequence[int]  # a stride or dilation: one for all window axes, or one for each
Sizes = Annotated[Sequence[int], _KIND]  # of a window: one for each of its axes


def per_axis(where: str, name: str, value: Size, axes: int) -> tuple[int, ...]:
    """`value` as one positive number for each of `axes` window axes."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or any(v < 1 for v in values):
        raise ValueError(
            f"{where}: expected {name} to be a positive integer, or {axes} of them, got {value}; "
            f"give one for each of the {axes} window axes"
        )
    return values


def expect_axes(where: str, x: Any, axes: int) -> None:
    """Check that x has `axes` axes between batch and features."""
    given = len(x.shape) - 2
    if given == axes:
        return
    other = f"give a window of {given} {'axis' if given == 1 else 'axes'}, for {layout(given)}"
    hints = [_MISSING] * (given < axes) + [other] * (given > 0)
    raise ValueError(
        f"{where}: expected x of shape {layout(axes)} for {axes} window "
        f"{'axis' if axes == 1 else 'axes'}, got {tuple(x.shape)}; {', or '.join(hints)}"
    )


def expect_images(where: str, x: Any) -> None:
    """Check that x has the shape (batch, height, width, channels)."""
    if len(x.shape) != 4:
        raise ValueError(
            f"{where}: expected x of shape {layout(2)}, got {tuple(x.shape)}; {_MISSING}"
        )


def window_axes(where: str, x: Array, ndim: int | None) -> tuple[int, ...]:
    """The axes of x between batch and features: `ndim` of them, or at least one if None."""
    if ndim is not None:
        expect_axes(where, x, ndim)
    if x.ndim < 3:
        raise ValueError(
            f"{where}: expected x of shape (batch, *sizes, channels), got {x.shape}; there is no "
            "axis between batch and channels"
        )
    return tuple(range(1, x.ndim - 1))


def sizes_for(where: str, sizes: Sizes, x: Any) -> tuple[int, ...]:
    """`sizes` as a tuple, one for each of the axes of x between batch and features."""
    expect_axes(where, x, len(sizes))
    return tuple(sizes)
