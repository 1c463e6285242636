"""The axes of x between batch and features: how many there are, and a size for each of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array

Size = int | Sequence[int]  # a stride or dilation: one number for all window axes, or one for each
if TYPE_CHECKING:
    Sizes = Sequence[int]  # of a window: one number for each of its axes
else:
    Sizes = Any  # at run time `stated` refuses a single number, and says what to write
_MISSING = "add a channel axis, x[..., None], or a batch axis, x[None], if x lacks one"


def per_axis(where: str, name: str, value: Size, axes: int) -> tuple[int, ...]:
    """`value` as one positive number for each of `axes` window axes.

    Raises: ValueError, which begins with `where`, for another count or a number below 1.

    >>> per_axis('conv', 'stride', 2, 3)
    (2, 2, 2)
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes or any(v < 1 for v in values):
        raise ValueError(
            f"{where}: expected {name} to be a positive number, or {axes} of them, got {value}; "
            f"give one for each of the {axes} window axes"
        )
    return values


def is_number(value: Any) -> bool:
    """Whether a size is one number, and not one for each axis.

    >>> is_number(np.int64(3)), is_number((3, 3))
    (True, False)
    """
    return isinstance(value, (int, np.integer))


def stated(where: str, name: str, sizes: Any) -> tuple[int, ...]:
    """The sizes of a window as a tuple, whose length is the number of window axes.

    One number does not state over how many axes a window reaches: for x of shape (batch, 28, 28),
    3 could be a window of 3 x 3 on images without a channel axis, or one of 3 on sequences.

    Raises: ValueError, which begins with `where`, for one number, none, or a number below 1.

    >>> stated('conv', 'window', [3, 3])
    (3, 3)
    """
    if is_number(sizes) and sizes > 0:
        raise ValueError(
            f"{where}: expected {name} to have one number for each window axis, got {sizes}; write "
            f"({sizes}, {sizes}) for images {layout(2)}, or ({sizes},) for sequences {layout(1)}"
        )
    fine = isinstance(sizes, Sequence) and len(sizes) > 0
    if not fine or not all(is_number(n) and n > 0 for n in sizes):
        raise ValueError(
            f"{where}: expected {name} to be a positive number for each window axis, got "
            f"{sizes!r}; write (3, 3), of Python ints, for images"
        )
    return tuple(sizes)


def expect_axes(where: str, x: Any, axes: int) -> None:
    """Check that x has so many axes between batch and features.

    Raises: ValueError, which begins with `where`.

    >>> expect_axes('conv', jnp.zeros((32, 28, 28)), 2)
    Traceback (most recent call last):
        ...
    ValueError: conv: expected x of shape (batch, height, width, channels) for 2 window axes, got \
(32, 28, 28); add a channel axis, x[..., None], or a batch axis, x[None], if x lacks one, or give \
a window of 1 axis, for (batch, time, channels)
    """
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
    """Check that x has the shape (batch, height, width, channels).

    Raises: ValueError, which begins with `where`, for another number of axes.

    >>> expect_images('cnn', jnp.zeros((32, 28, 28)))
    Traceback (most recent call last):
        ...
    ValueError: cnn: expected x of shape (batch, height, width, channels), got (32, 28, 28); add \
a channel axis, x[..., None], or a batch axis, x[None], if x lacks one
    """
    if len(x.shape) != 4:
        raise ValueError(
            f"{where}: expected x of shape {layout(2)}, got {tuple(x.shape)}; {_MISSING}"
        )


def layout(axes: int) -> str:
    """The axes of x for a window of so many axes, in words.

    >>> layout(2)
    '(batch, height, width, channels)'
    """
    named = {
        1: "time, channels",
        2: "height, width, channels",
        3: "depth, height, width, channels",
    }
    return f"(batch, {named.get(axes, f'{axes} sizes, channels')})"


def between(where: str, x: Array, ndim: int | None) -> tuple[int, ...]:
    """The axes of x between batch and features, of which there is at least one.

    Raises: ValueError, which begins with `where`, if there is none, or not `ndim` of them.

    >>> between('group_norm', jnp.zeros((1, 8, 8, 3)), None)
    (1, 2)
    """
    if ndim is not None:
        expect_axes(where, x, ndim)
    if x.ndim < 3:
        raise ValueError(
            f"{where}: expected x of shape (batch, *sizes, channels), got {x.shape}; there is no "
            "axis between batch and channels"
        )
    return tuple(range(1, x.ndim - 1))


def sizes_over(where: str, name: str, sizes: Sizes, x: Any) -> tuple[int, ...]:
    """`sizes`, one number for each of the axes of x between batch and features.

    Raises: ValueError, which begins with `where`, if they do not fit; see `stated`.

    >>> sizes_over('resize', 'sizes', (6, 9), jnp.zeros((1, 2, 3, 4)))
    (6, 9)
    """
    sizes = stated(where, name, sizes)
    expect_axes(where, x, len(sizes))
    return sizes
