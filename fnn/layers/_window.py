"""Windows that slide over the axes between batch and features: sizes, padding, views.

The arithmetic that convolution, pooling and patches share, for any number of window axes.
"""

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.layers._axes import Size, Sizes, per_axis, sizes_over

Pairs = tuple[tuple[int, int], ...]  # entries before and after, for each window axis


class Padding(enum.Enum):
    """What lies beyond the edges, for windows that reach over them.

    SAME: zeros on both sides (one more after than before, if their number is odd), as many as
    give ceil(size / stride) outputs. VALID: nothing; the window stays inside. CAUSAL: zeros
    before the first entry, for one window axis: no output sees a later input. CIRCULAR: the other
    end. REFLECT: the mirror image without the edge itself. The last three add reach - 1 entries,
    whatever the stride; CIRCULAR and REFLECT divide them between the sides as SAME does.
    """

    SAME = "same"
    VALID = "valid"
    CAUSAL = "causal"
    CIRCULAR = "circular"
    REFLECT = "reflect"


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window; each field has one entry per window axis."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """How many entries the window spans along each axis, holes included."""
        return tuple(d * (n - 1) + 1 for n, d in zip(self.shape, self.dilation, strict=True))

    @property
    def dimension_numbers(self) -> lax.ConvDimensionNumbers:
        """For XLA: inputs (batch, *sizes, features) and kernels (*window, in, out)."""
        axes = len(self.shape)
        data = (0, axes + 1, *range(1, axes + 1))
        return lax.ConvDimensionNumbers(data, (axes + 1, axes, *range(axes)), data)


def make_window(where: str, x: Array, shape: Sizes, stride: Size, dilation: Size) -> Window:
    """The window over the axes of x between batch and features.

    Raises: ValueError, which begins with `where`, if the numbers do not fit the axes of x.

    >>> make_window('conv', jnp.zeros((1, 8, 8, 3)), (3, 3), 1, 2).reach
    (5, 5)
    """
    shape = sizes_over(where, "window", shape, x)
    axes = len(shape)
    return Window(
        shape=shape,
        stride=per_axis(where, "stride", stride, axes),
        dilation=per_axis(where, "dilation", dilation, axes),
    )


def extend(
    where: str, x: Array, window: Window, padding: Padding | Sequence[tuple[int, int]]
) -> tuple[Array, Pairs]:
    """x with the copies of its own entries that `padding` asks for, and the zeros still to add.

    Raises: ValueError, which begins with `where`, if the padding does not fit the window or x, or
      the window does not fit in what results.

    >>> window = make_window('conv', jnp.zeros((1, 6, 3)), (3,), 2, 1)
    >>> extend('conv', jnp.zeros((1, 6, 3)), window, Padding.SAME)[1]
    ((0, 1),)
    """
    pairs = _pairs(where, x.shape[1:-1], window, padding)
    if padding in (Padding.CIRCULAR, Padding.REFLECT):
        mode = "wrap" if padding is Padding.CIRCULAR else "reflect"
        x = jnp.pad(x, ((0, 0), *pairs, (0, 0)), mode=mode)
        pairs = ((0, 0),) * len(pairs)
    output_sizes(where, x.shape[1:-1], window, pairs)
    return x, pairs


def output_sizes(where: str, sizes: Sequence[int], window: Window, pairs: Pairs) -> tuple[int, ...]:
    """How many places the window takes along each axis.

    Raises: ValueError, which begins with `where`, if there is none.

    >>> window = make_window('conv', jnp.zeros((1, 6, 3)), (3,), 2, 1)
    >>> output_sizes('conv', (6,), window, ((0, 1),))
    (3,)
    """
    padded = [n + before + after for n, (before, after) in zip(sizes, pairs, strict=True)]
    if any(n < reach for n, reach in zip(padded, window.reach, strict=True)):
        raise ValueError(
            f"{where}: expected at least {window.reach} entries along the window axes, got "
            f"{tuple(padded)} with padding; give larger inputs, more padding or a smaller window"
        )
    return tuple(
        (n - reach) // stride + 1
        for n, reach, stride in zip(padded, window.reach, window.stride, strict=True)
    )


def _pairs(
    where: str,
    sizes: Sequence[int],
    window: Window,
    padding: Padding | Sequence[tuple[int, int]],
) -> Pairs:
    overlap = [reach - 1 for reach in window.reach]
    match padding:
        case Padding.SAME:
            return tuple(map(_same, sizes, window.reach, window.stride))
        case Padding.CAUSAL:
            return _causal(where, overlap)
        case Padding.CIRCULAR:
            return tuple((n // 2, n - n // 2) for n in overlap)
        case Padding.REFLECT:
            return _reflect(where, sizes, overlap)
    return explicit_pairs(where, padding, len(sizes))


def explicit_pairs(where: str, padding: Padding | Sequence[tuple[int, int]], axes: int) -> Pairs:
    """The pairs that `padding` spells out; none for Padding.VALID.

    Raises: ValueError, which begins with `where`, unless there is a pair for each of the axes.

    >>> explicit_pairs('conv', Padding.VALID, 2)
    ((0, 0), (0, 0))
    """
    if padding is Padding.VALID:
        return ((0, 0),) * axes
    if isinstance(padding, Padding) or len(padding) != axes or any(len(p) != 2 for p in padding):
        raise ValueError(
            f"{where}: expected a Padding, or one pair (before, after) for each of the {axes} "
            f"window axes, got {padding}"
        )
    return tuple((int(before), int(after)) for before, after in padding)


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    places = -(-size // stride)
    total = max((places - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _causal(where: str, overlap: Sequence[int]) -> Pairs:
    if len(overlap) != 1:
        raise ValueError(
            f"{where}: expected one window axis with Padding.CAUSAL, got {len(overlap)}; "
            "say which axes are causal by explicit pairs, as in ((2, 0), (1, 1))"
        )
    return ((overlap[0], 0),)


def _reflect(where: str, sizes: Sequence[int], overlap: Sequence[int]) -> Pairs:
    pairs = tuple((n // 2, n - n // 2) for n in overlap)
    if any(after >= size for size, (_, after) in zip(sizes, pairs, strict=True)):
        raise ValueError(
            f"{where}: expected window axes longer than their padding {pairs} with "
            f"Padding.REFLECT, got {tuple(sizes)}; give larger inputs or use Padding.SAME"
        )
    return pairs


def views(x: Array, window: Window) -> Iterator[Array]:
    """For each place inside the window, in row-major order, the entries of x that it meets.

    Each is a strided slice (batch, *places, features). Sums, maxima and concatenations of these
    are what a CPU does quickly, derivatives included; XLA's own window reductions are not.

    >>> window = make_window('pool', jnp.zeros((1, 5, 1)), (2,), 2, 1)
    >>> [view.ravel().tolist() for view in views(jnp.arange(5.0).reshape(1, 5, 1), window)]
    [[0.0, 2.0], [1.0, 3.0]]
    """
    places = output_sizes("views", x.shape[1:-1], window, ((0, 0),) * len(window.shape))
    for offsets in itertools.product(*map(range, window.shape)):
        start = [i * d for i, d in zip(offsets, window.dilation, strict=True)]
        stop = [
            first + (n - 1) * s + 1
            for first, n, s in zip(start, places, window.stride, strict=True)
        ]
        yield lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.stride, 1))
