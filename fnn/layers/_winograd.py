"""Winograd's convolution: windows of 3 x 3 with 16 products where there were 36.

Two neighboring outputs of a window of three are made of four products instead of six: sums of
the inputs, times sums of the kernel, summed. Along both axes, tiles of 2 x 2 outputs are made of
16 instead of 36. Over batch, tiles and features these are 16 products of matrices. The factors are
1 and 1/2 alone, so that the result is as exact as the plain one; the larger tiles, with fewer
products still, are not. An infinite input makes all outputs of its tiles NaN or infinite, not those
of its windows alone. Source: Lavin & Gray 2015, arXiv:1509.09308, section 4.1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.autodiff import varying_like
from fnn.layers._window import Pairs

Grid = Sequence[Sequence[Any]]

# Measured: the 16 sums of so many bytes of input and output still pass through a core's cache.
_BYTES = 9 * 2**20


def winograd(zeros: Pairs, x: Array, kernel: Array, mirrored: bool = False) -> Array:
    """`convolve` for windows of 3 x 3 without strides or holes.

    Args:
      mirrored: whether the kernel is turned round along its window axes and takes outputs to
        inputs, as it does in the gradient by the input; without a transposed copy of it.

    >>> x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
    >>> winograd(((0, 0), (0, 0)), x, kernel).ravel().tolist()
    [9.0, 9.0, 9.0, 9.0]
    """
    places = _places(zeros, x)
    by_place = _both_axes(_of_kernel, kernel)
    weights = _flat(_turned_round(by_place) if mirrored else by_place)
    contracted = ((1,), (1 if mirrored else 0,))

    def of_some(x: Array) -> Array:
        sums = _rows(_sums_of_input(zeros, places, x))
        products = [
            lax.dot_general(a, b, (contracted, ((), ())))
            for a, b in zip(sums, weights, strict=True)
        ]
        return _put_together(_both_axes(_to_output, _grid(products, 4)), len(x), places)

    features = max(x.shape[-1], weights[0].shape[-1])
    parts = _parts(x, places, features)
    if parts == 1:
        return of_some(x)
    return lax.collapse(lax.map(of_some, _cut(x, parts)), 0, 2)


def winograd_kernel_gradient(zeros: Pairs, x: Array, g: Array) -> Array:
    """The gradient of `winograd` by its kernel, for the gradient g by its output.

    >>> x, g = jnp.ones((1, 4, 4, 1)), jnp.ones((1, 2, 2, 1))
    >>> winograd_kernel_gradient(((0, 0), (0, 0)), x, g).ravel().tolist()
    [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    """
    places = _places(zeros, x)

    def of_some(x: Array, g: Array) -> list[Array]:
        pairs = zip(
            _rows(_sums_of_input(zeros, places, x)), _rows(_sums_of_gradient(g)), strict=True
        )
        return [lax.dot_general(a, b, (((0,), (0,)), ((), ()))) for a, b in pairs]

    def add(total: list[Array], some: tuple[Array, ...]) -> tuple[list[Array], None]:
        return [a + b for a, b in zip(total, of_some(*some), strict=True)], None

    parts = _parts(x, places, max(x.shape[-1], g.shape[-1]))
    if parts == 1:
        total = of_some(x, g)
    else:
        split = [_cut(a, parts) for a in (x, g)]
        zeros_of_one = jnp.zeros((x.shape[-1], g.shape[-1]), x.dtype)
        start = [varying_like(zeros_of_one, x, g)] * 16
        total, _ = lax.scan(add, start, tuple(split))
    by_place = _both_axes(_to_kernel, _grid(total, 4))
    return jnp.stack([jnp.stack(row) for row in by_place])


# One axis. Each of the four is linear; the second two are the transposes of what their names say
# they come from: of the sums of a kernel, and of the sums that make the outputs.


def _of_input(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a - c, b + c, c - b, b - d


def _of_kernel(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _to_output(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a + b + c, b - c - d


def _to_kernel(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, ...]:
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


def _of_gradient(a: Any, b: Any) -> tuple[Any, ...]:
    return a, a + b, a - b, -b


def _both_axes(of_one: Callable[..., tuple[Any, ...]], grid: Grid | Array) -> Grid:
    columns = [of_one(*column) for column in zip(*grid, strict=True)]
    return [of_one(*row) for row in zip(*columns, strict=True)]


def _turned_round(by_place: Grid) -> Grid:
    # The sums of a mirrored kernel are those of the kernel with the outer two exchanged: so a
    # convolution and its gradient by the input share them.
    return [[by_place[i][j] for j in (3, 1, 2, 0)] for i in (3, 1, 2, 0)]


def _sums_of_input(zeros: Pairs, places: tuple[int, ...], x: Array) -> Grid:
    rows, columns = (2 * -(-n // 2) for n in places)
    edges = [
        (before, n + 2 - size - before, 0)
        for n, size, (before, _) in zip((rows, columns), x.shape[1:-1], zeros, strict=True)
    ]
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return _both_axes(
        _of_input,
        [[padded[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)],
    )


def _sums_of_gradient(g: Array) -> Grid:
    odd = [(0, n % 2, 0) for n in g.shape[1:-1]]
    padded = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *odd, (0, 0, 0)])
    return _both_axes(_of_gradient, [[padded[:, i::2, j::2] for j in range(2)] for i in range(2)])


def _put_together(tiles: Grid, batch: int, places: tuple[int, ...]) -> Array:
    rows, columns = (-(-n // 2) for n in places)
    shaped = [[a.reshape(batch, rows, columns, a.shape[-1]) for a in row] for row in tiles]
    y = jnp.stack([jnp.stack(row, axis=3) for row in shaped], axis=2)
    y = y.reshape(batch, 2 * rows, 2 * columns, y.shape[-1])
    return y[:, : places[0], : places[1]]


def _places(zeros: Pairs, x: Array) -> tuple[int, ...]:
    pairs = zip(x.shape[1:-1], zeros, strict=True)
    return tuple(size + before + after - 2 for size, (before, after) in pairs)


def _parts(x: Array, places: tuple[int, ...], features: int) -> int:
    """Into how many equal parts the batch is cut: in sum small enough, and one after another."""
    size = 16 * len(x) * math.prod(-(-n // 2) for n in places) * features * x.dtype.itemsize
    few = max(-(-size // _BYTES), 1)
    return next((n for n in range(few, len(x)) if len(x) % n == 0), max(len(x), 1))


def _cut(x: Array, parts: int) -> Array:
    return x.reshape(parts, len(x) // parts, *x.shape[1:])


def _flat(grid: Grid) -> list[Any]:
    return [entry for row in grid for entry in row]


def _rows(grid: Grid) -> list[Array]:
    return [lax.collapse(entry, 0, entry.ndim - 1) for entry in _flat(grid)]


def _grid(entries: list[Any], columns: int) -> Grid:
    return [entries[i : i + columns] for i in range(0, len(entries), columns)]
