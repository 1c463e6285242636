"""Linear layers."""

from collections.abc import Sequence

from fnn import layers
from fnn.initializers import Initializer, lecun_normal, zeros
from fnn.layers.linear_general import sizes_of_axes
from fnn.nn._shape import features_of
from fnn.types import Model


def linear(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A linear layer over the last axis, as a model; see `layers.linear`.

    >>> params, state = linear(2).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> params['kernel'].shape
    (3, 2)
    """

    def init(key, x):
        params = layers.linear_init(
            key,
            features_of("linear", x),
            features,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.linear(params, x), model_state

    return Model(init=init, apply=apply)


def linear_general(
    shape: Sequence[int],
    *,
    axes: int | Sequence[int] = -1,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """A linear map from several axes to several, as a model; see `layers.linear_general`.

    Args:
      shape: sizes of the axes that it makes, which come last.
      axes: of x, that it takes.

    >>> model = linear_general((2, 4), axes=(1, 2))
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((5, 3, 6)))
    >>> params['kernel'].shape
    (3, 6, 2, 4)
    """

    def init(key, x):
        taken = (axes,) if isinstance(axes, int) else axes
        params = layers.linear_general_init(
            key,
            [x.shape[axis] for axis in taken],
            shape,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.linear_general(params, x, axes=axes), model_state

    return Model(init=init, apply=apply)


def einsum(
    equation: str,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
    **sizes: int,
) -> Model:
    """A linear map that an equation describes, as a model; see `layers.einsum`.

    Args:
      equation: 'x,kernel->y'.
      sizes: of the kernel's axes that x does not have, by letter.

    Raises: ValueError, at init, for a size that x contradicts.

    >>> model = einsum('btd,dhk->bthk', h=2, k=3)
    >>> params, _ = model.init(jax.random.key(0), jnp.zeros((1, 5, 6)))
    >>> params['kernel'].shape
    (6, 2, 3)
    """

    def init(key, x):
        known = sizes_of_axes(equation, x.shape)
        if wrong := {a: n for a, n in sizes.items() if known.get(a, n) != n}:
            raise ValueError(
                f"einsum: expected x to have the sizes {wrong} in {equation!r}, got shape "
                f"{tuple(x.shape)}; leave out the sizes that x gives"
            )
        params = layers.einsum_init(
            key, equation, known | sizes, bias=bias, kernel_init=kernel_init, bias_init=bias_init
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.einsum(params, equation, x), model_state

    return Model(init=init, apply=apply)


def bilinear(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Model:
    """Linear in each part of x, a pair (left, right), as a model; see `layers.bilinear`.

    >>> params, _ = bilinear(4).init(jax.random.key(0), (jnp.zeros((1, 2)), jnp.zeros((1, 3))))
    >>> params['kernel'].shape
    (2, 3, 4)
    """

    def init(key, x):
        left, right = x
        params = layers.bilinear_init(
            key,
            left.shape[-1],
            right.shape[-1],
            features,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        return params, ()

    def apply(params, model_state, x, *, key=None, train=False):
        left, right = x
        return layers.bilinear(params, left, right), model_state

    return Model(init=init, apply=apply)
