"""The einsum layer: a linear map written as an equation of named axes."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.linear import plus_row
from fnn.types import Params, PRNGKey
from fnn.xla import Dim

_TERM = r"([a-zA-Z]*(?:\.{3})?[a-zA-Z]*)"
_EQUATION = re.compile(rf"{_TERM},([a-zA-Z]+)->{_TERM}")


class _Axes(NamedTuple):
    """The names of the axes of an equation 'x,kernel->y'."""

    x: str
    kernel: str
    y: str


def einsum_init(
    key: PRNGKey,
    equation: str,
    sizes: Mapping[str, int],
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `einsum`.

    Args:
      equation: 'x,kernel->y' in Einstein's notation, as of `jnp.einsum`.
      sizes: of each axis of the kernel, by its letter.
      bias: whether there is a bias, over those axes of the kernel that y keeps.
      kernel_init, bias_init: initializers of the two. The kernel's sees a matrix of the axes that
        are summed over by those that only y has, drawn anew along the axes that x, kernel and y
        share.

    Returns: {'kernel', 'bias'}, each with the axes that the equation gives, float32.
    Raises: ValueError for an equation of another form, or a missing size.

    >>> params = einsum_init(jax.random.key(0), 'btd,dhk->bthk', {'d': 6, 'h': 2, 'k': 3})
    >>> params['kernel'].shape, params['bias'].shape
    ((6, 2, 3), (2, 3))
    """
    axes = _parse(equation)
    if missing := [a for a in axes.kernel if a not in sizes]:
        raise ValueError(
            f"einsum_init: expected the size of every axis of the kernel {axes.kernel!r}, got none "
            f"for {missing}; add them to sizes"
        )
    shared = [a for a in axes.kernel if a in axes.x and a in axes.y]
    summed = [a for a in axes.kernel if a not in axes.y]
    made = [a for a in axes.kernel if a not in axes.x]
    matrix = tuple(math.prod(sizes[a] for a in group) for group in (summed, made))
    keys = jax.random.split(fold_name(key, "kernel"), math.prod(sizes[a] for a in shared))
    kernel = jax.vmap(lambda key: kernel_init(key, matrix))(keys)
    drawn = [*shared, *summed, *made]
    kernel = kernel.reshape(*(sizes[a] for a in drawn))
    params = {"kernel": kernel.transpose(*(drawn.index(a) for a in axes.kernel))}
    if bias:
        kept = tuple(sizes[a] for a in axes.y if a in axes.kernel)
        params["bias"] = bias_init(fold_name(key, "bias"), kept)
    return params


def einsum(params: Params, equation: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The product of x and the kernel that the equation says, plus the bias.

    Args:
      equation: that the parameters were made for; '...' stands for any further axes of x and y.

    Returns: y, with the axes that the equation gives.
    Raises: ValueError if x or the kernel does not fit the equation.

    >>> params = {'kernel': jnp.ones((3, 2, 4)), 'bias': jnp.zeros((2, 4))}
    >>> einsum(params, '...d,dhk->...hk', jnp.ones((5, 3))).shape
    (5, 2, 4)
    """
    expect_floats("einsum", x)
    axes = _parse(equation)
    kernel = params["kernel"]
    known = sizes_of_axes(equation, x.shape)
    if kernel.ndim != len(axes.kernel) or any(
        known.get(a, n) != n for a, n in zip(axes.kernel, kernel.shape, strict=True)
    ):
        raise ValueError(
            f"einsum: expected x and the kernel to fit {equation!r}, got {x.shape} and "
            f"{kernel.shape}; give the shapes that the equation names"
        )
    y = jnp.einsum(equation, x, kernel)
    if "bias" not in params:
        return y
    names = _name_axes(axes.y, y.ndim)
    shape = [n if name in axes.kernel else 1 for name, n in zip(names, y.shape, strict=True)]
    return plus_row(y, params["bias"].reshape(shape))


def sizes_of_axes(equation: str, shape: Sequence[Dim]) -> dict[str, Dim]:
    """The sizes of the axes of x that the equation names.

    Raises: ValueError if x has too few axes, or too many, for the equation.

    >>> sizes_of_axes('b...d,dh->b...h', (2, 7, 5))
    {'b': 2, 'd': 5}
    """
    term = _parse(equation).x
    letters = len(term.replace("...", ""))
    if len(shape) < letters or ("..." not in term and len(shape) > letters):
        raise ValueError(
            f"einsum: expected x with the axes {term!r} of {equation!r}, got shape "
            f"{tuple(shape)}; give one axis for each letter"
        )
    names = _name_axes(term, len(shape))
    return {name: n for name, n in zip(names, shape, strict=True) if name != "."}


def _name_axes(term: str, axes: int) -> str:
    """One character for each axis, with dots for those of the ellipsis."""
    return term.replace("...", "." * (axes - len(term.replace("...", ""))))


def _parse(equation: str) -> _Axes:
    plain = equation.replace(" ", "")
    match = _EQUATION.fullmatch(plain)
    axes = _Axes(*match.groups()) if match else None
    if axes is None or not _is_linear_map(axes):
        raise ValueError(
            f"einsum: expected an equation 'x,kernel->y' such as '...d,dh->...h', got "
            f"{equation!r}; name every axis once in a term, the kernel's also in x or y, and y's "
            "in x or the kernel"
        )
    return axes


def _is_linear_map(axes: _Axes) -> bool:
    x, kernel, y = (set(term) - {"."} for term in axes)
    once = all(len(term.replace("...", "")) == len(set(term) - {"."}) for term in axes)
    return once and kernel <= x | y and y <= x | kernel and (("..." in axes.x) == ("..." in axes.y))
