"""Linear maps over several axes: linear_general, bilinear and einsum."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.expect import expect_floats
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.keys import fold_name
from fnn.layers.linear import add_bias, plus_row
from fnn.types import Params, PRNGKey
from fnn.xla import Dim


def linear_general_init(
    key: PRNGKey,
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `linear_general`.

    Args:
      in_shape, out_shape: sizes of the axes of input and output.
      bias: whether to add a bias.
      kernel_init, bias_init: initializers of the two; the kernel is drawn as a matrix, so its fans
        are the products of the sizes.

    Returns: {'kernel': (*in_shape, *out_shape), 'bias': out_shape}, float32.

    >>> params = linear_general_init(jax.random.key(0), (6,), (2, 3))
    >>> params['kernel'].shape, params['bias'].shape
    ((6, 2, 3), (2, 3))
    """
    matrix = (math.prod(in_shape), math.prod(out_shape))
    kernel = kernel_init(fold_name(key, "kernel"), matrix)
    params = {"kernel": kernel.reshape(*in_shape, *out_shape)}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), tuple(out_shape))
    return params


def linear_general(
    params: Params, x: Float[Array, "..."], *, axes: int | Sequence[int] = -1
) -> Float[Array, "..."]:
    """A linear map from several axes of x to several new ones.

        y[..., o] = bias[o] + sum over i of x[..., i] kernel[i, o],   i and o several axes each

    Args:
      axes: of x, to sum over, in the order of the kernel's first axes.

    Returns: the other axes of x, in order, then the kernel's remaining axes.
    Raises: ValueError if the sizes of these axes are not those of the kernel's first.
    Source: as DenseGeneral in Flax.

    >>> params = {'kernel': jnp.ones((2, 3, 4)), 'bias': jnp.zeros(4)}
    >>> linear_general(params, jnp.ones((5, 2, 3)), axes=(-2, -1)).shape
    (5, 4)
    """
    expect_floats("linear_general", x)
    kernel = params["kernel"]
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -x.ndim <= axis < x.ndim for axis in given) or len(given) > kernel.ndim:
        raise ValueError(
            f"linear_general: expected axes of x, whose shape is {x.shape}, got {given}; "
            "name those that the kernel sums over"
        )
    summed = tuple(axis % x.ndim for axis in given)
    sizes = tuple(x.shape[axis] for axis in summed)
    if sizes != kernel.shape[: len(sizes)]:
        raise ValueError(
            f"linear_general: expected the axes {given} of x to have the sizes of the kernel's "
            f"first, {kernel.shape[: len(sizes)]}, got {sizes}; x is {x.shape}, the kernel "
            f"{kernel.shape}"
        )
    y = lax.dot_general(x, kernel, ((summed, tuple(range(len(summed)))), ((), ())))
    return add_bias(params, y)


def bilinear_init(
    key: PRNGKey,
    left_features: int,
    right_features: int,
    out_features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Params:
    """Parameters of `bilinear`.

    Args:
      bias: whether to add a bias.
      kernel_init, bias_init: initializers of the two. The kernel's fan-in is left_features *
        right_features, so that lecun_normal keeps the variance; PyTorch counts the left alone.

    Returns: {'kernel': (left_features, right_features, out_features), 'bias': (out_features,)}.

    >>> bilinear_init(jax.random.key(0), 2, 3, 4)['kernel'].shape
    (2, 3, 4)
    """
    shape = (left_features, right_features, out_features)
    params = {"kernel": kernel_init(fold_name(key, "kernel"), shape)}
    if bias:
        params["bias"] = bias_init(fold_name(key, "bias"), (out_features,))
    return params


def bilinear(
    params: Params, left: Float[Array, "*batch left"], right: Float[Array, "*batch right"]
) -> Float[Array, "*batch out"]:
    """A bilinear map of two inputs.

        y[o] = bias[o] + sum over i, j of left[i] kernel[i, j, o] right[j]

    Args:
      left, right: with the same leading axes. PyTorch's kernel is (out, left, right).

    Returns: (..., out_features).
    Raises: ValueError if the inputs do not fit the kernel or each other.

    >>> params = {'kernel': jnp.ones((1, 1, 1))}
    >>> bilinear(params, jnp.array([[2.0]]), jnp.array([[3.0]])).tolist()
    [[6.0]]
    """
    expect_floats("bilinear", left)
    expect_floats("bilinear", right)
    kernel = params["kernel"]
    lead = left.shape[:-1]
    if left.shape != (*lead, kernel.shape[0]) or right.shape != (*lead, kernel.shape[1]):
        raise ValueError(
            f"bilinear: expected inputs (..., {kernel.shape[0]}) and (..., {kernel.shape[1]}) with "
            f"the same leading axes, got {left.shape} and {right.shape}; give them in the order "
            f"that the kernel {kernel.shape} was made for"
        )
    half = lax.dot_general(left, kernel, (((left.ndim - 1,), (0,)), ((), ())))
    return add_bias(params, jnp.einsum("...jo,...j->...o", half, right))


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
      bias: whether to add a bias, over those axes of the kernel that y keeps.
      kernel_init, bias_init: initializers of the two. The kernel is drawn as a matrix (axes summed
        over, axes of y that x lacks), once for each index of the axes that all three share.

    Returns: {'kernel', 'bias'}, with the axes of the equation, float32.
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
    """The einsum of x and the kernel, plus the bias.

    Args:
      equation: that of `einsum_init`; '...' stands for any further axes of x and y.

    Returns: y, with the axes of the equation.
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
