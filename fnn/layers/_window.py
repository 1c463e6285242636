"""Windows that slide over the axes between batch and features: sizes, padding, slices.

The arithmetic that convolution, pooling and patches share, for any number of window axes.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn._arguments import Kind
from fnn.expect import is_integer
from fnn.layers._axes import Size, Sizes, per_axis, sizes_for

Pairs = tuple[tuple[int, int], ...]  # entries before and after, for each window axis

_MODES = ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT")


def _is_padding(value: Any) -> bool:
    if isinstance(value, str):
        return value in _MODES
    if not isinstance(value, Sequence):
        return False
    return all(isinstance(p, Sequence) and len(p) == 2 and all(map(is_integer, p)) for p in value)


def _advice(value: Any) -> str:
    if isinstance(value, str) and value.upper() in _MODES:
        return f"write {value.upper()!r}"
    return "write 'SAME', or ((1, 1), (1, 1)) for images"


_KIND = Kind(
    f"one of {', '.join(map(repr, _MODES))}, or a pair (before, after) for each window axis",
    _is_padding,
    _advice,
)
# See `conv`. With an odd number of entries to add, SAME, CIRCULAR and REFLECT add one more after
# than before.
Padding = Annotated[
    Literal["SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT"] | Sequence[tuple[int, int]], _KIND
]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window; each field has one entry per window axis."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """The number of entries that the dilated window spans along each axis."""
        return tuple(d * (n - 1) + 1 for n, d in zip(self.shape, self.dilation, strict=True))

    @property
    def dimension_numbers(self) -> lax.ConvDimensionNumbers:
        """For XLA: inputs (batch, *sizes, features) and kernels (*window, in, out)."""
        axes = len(self.shape)
        data = (0, axes + 1, *range(1, axes + 1))
        return lax.ConvDimensionNumbers(data, (axes + 1, axes, *range(axes)), data)


def make_window(where: str, x: Array, shape: Sizes, stride: Size, dilation: Size) -> Window:
    """The window over the axes of x between batch and features."""
    shape = sizes_for(where, shape, x)
    return Window(
        shape=shape,
        stride=per_axis(where, "stride", stride, len(shape)),
        dilation=per_axis(where, "dilation", dilation, len(shape)),
    )


def pad_copies(where: str, x: Array, window: Window, padding: Padding) -> tuple[Array, Pairs]:
    """x with the copies of its own entries that `padding` asks for, and the zeros still to add.

    Raises: ValueError if the padding does not fit the window or x, or the window does not fit in
      what results.
    """
    pairs = _pairs(where, x.shape[1:-1], window, padding)
    if padding in ("CIRCULAR", "REFLECT"):
        mode = "wrap" if padding == "CIRCULAR" else "reflect"
        x = jnp.pad(x, ((0, 0), *pairs, (0, 0)), mode=mode)
        pairs = ((0, 0),) * len(pairs)
    output_sizes(where, x.shape[1:-1], window, pairs)
    return x, pairs


def pad_with(x: Array, pairs: Pairs, fill: float = 0) -> Array:
    """x with `fill` before and after along each window axis; negative numbers crop."""
    edges = [(0, 0, 0), *((before, after, 0) for before, after in pairs), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), edges)


def output_sizes(where: str, sizes: Sequence[int], window: Window, pairs: Pairs) -> tuple[int, ...]:
    """The number of positions of the window along each axis, which is at least 1."""
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


def _pairs(where: str, sizes: Sequence[int], window: Window, padding: Padding) -> Pairs:
    overlap = [reach - 1 for reach in window.reach]
    match padding:
        case "SAME":
            return tuple(map(_same, sizes, window.reach, window.stride))
        case "CAUSAL":
            return _causal(where, overlap)
        case "CIRCULAR":
            return tuple((n // 2, n - n // 2) for n in overlap)
        case "REFLECT":
            return _reflect(where, sizes, overlap)
    return explicit_pairs(where, padding, len(sizes))


def explicit_pairs(where: str, padding: Padding, axes: int) -> Pairs:
    """The pairs of `padding`, one for each of the axes; zeros for VALID."""
    if isinstance(padding, str):
        return ((0, 0),) * axes
    if len(padding) != axes:
        raise ValueError(
            f"{where}: expected padding to have one pair (before, after) for each of the {axes} "
            f"window axes, got {padding}; write (0, 0) for an axis without padding"
        )
    return tuple((int(before), int(after)) for before, after in padding)


def _same(size: int, reach: int, stride: int) -> tuple[int, int]:
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _causal(where: str, overlap: Sequence[int]) -> Pairs:
    if len(overlap) != 1:
        raise ValueError(
            f"{where}: expected one window axis with padding 'CAUSAL', got {len(overlap)}; "
            "say which axes are causal by explicit pairs, as in ((2, 0), (1, 1))"
        )
    return ((overlap[0], 0),)


def _reflect(where: str, sizes: Sequence[int], overlap: Sequence[int]) -> Pairs:
    pairs = tuple((n // 2, n - n // 2) for n in overlap)
    if any(after >= size for size, (_, after) in zip(sizes, pairs, strict=True)):
        raise ValueError(
            f"{where}: expected window axes longer than their padding {pairs} with 'REFLECT', got "
            f"{tuple(sizes)}; give larger inputs or use 'SAME'"
        )
    return pairs


def window_slices(x: Array, window: Window) -> Iterator[Array]:
    """For each entry of the window, in row-major order, the entries of x that it meets.

    Each is a strided slice (batch, *out_sizes, features). Sums, maxima and concatenations of these
    are fast on a CPU, derivatives included; XLA's own window reductions are not.
    """
    outputs = output_sizes("window_slices", x.shape[1:-1], window, ((0, 0),) * len(window.shape))
    for offsets in itertools.product(*map(range, window.shape)):
        start = [i * d for i, d in zip(offsets, window.dilation, strict=True)]
        stop = [
            first + (n - 1) * s + 1
            for first, n, s in zip(start, outputs, window.stride, strict=True)
        ]
        yield lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *window.stride, 1))
