"""Normalization of features and of weights."""

from typing import Any

import jax

from fnn import layers, tree
from fnn.expect import within
from fnn.keys import fold_name
from fnn.nn._base import Layer, as_model
from fnn.nn._shape import features_of
from fnn.tree import Mask, matching
from fnn.types import Model, Scalar


@within(eps="[0, inf)")
def layer_norm(*, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True) -> Model:
    """Layer normalization over the last axis, as a model; see `layers.layer_norm`.

    >>> params, _ = layer_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['bias', 'scale']
    """

    def init(key, x):
        features = features_of("layer_norm", x)
        return layers.layer_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.layer_norm(params, x, eps=eps), model_state

    return Model(init=init, apply=apply)


@within(decay="[0, 1]", eps="[0, inf)")
def batch_norm(
    *, decay: Scalar = 0.99, eps: Scalar = 1e-5, scale: bool = True, bias: bool = True
) -> Model:
    """Batch normalization of the last axis, as a model; see `layers.batch_norm`.

    >>> _, state = batch_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(state)
    ['mean', 'var']
    """

    def init(key, x):
        features = features_of("batch_norm", x)
        return layers.batch_norm_init(features, scale=scale, bias=bias)

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.batch_norm(params, model_state, x, train=train, decay=decay, eps=eps)

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def group_norm(
    groups: int = 32,
    *,
    eps: Scalar = 1e-6,
    scale: bool = True,
    bias: bool = True,
    ndim: int | None = None,
) -> Model:
    """Normalization of groups of features within each example; see `layers.group_norm`.

    Args:
      ndim: how many window axes there are, 2 for images; None takes any number.

    >>> params, _ = group_norm(2).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> params['scale'].shape
    (4,)
    """

    def init(key, x):
        features = features_of("group_norm", x)
        return layers.group_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.group_norm(params, x, groups, eps=eps, ndim=ndim), model_state

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def instance_norm(
    *, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True, ndim: int | None = None
) -> Model:
    """Normalization of each feature's map within each example; see `layers.instance_norm`.

    Args:
      ndim: how many axes of positions there are, 2 for images; None takes any number.

    >>> instance_norm(scale=False, bias=False).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    ({}, ())
    """

    def init(key, x):
        features = features_of("instance_norm", x)
        return layers.instance_norm_init(features, scale=scale, bias=bias), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.instance_norm(params, x, eps=eps, ndim=ndim), model_state

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def rms_norm(*, eps: Scalar = 1e-6) -> Model:
    """Normalization by the root mean square of the last axis; see `layers.rms_norm`.

    >>> params, _ = rms_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['scale']
    """

    def init(key, x):
        return layers.rms_norm_init(features_of("rms_norm", x)), ()

    def apply(params, model_state, x, *, key=None, train=False):
        return layers.rms_norm(params, x, eps=eps), model_state

    return Model(init=init, apply=apply)


_PARTS = {"direction", "scale"}


@within(eps="[0, inf)")
def weight_norm(layer: Layer, *, kernels: Mask = matching("*kernel"), eps: Scalar = 1e-12) -> Model:
    """A layer whose kernels are a direction and a length; see `layers.weight_norm`.

    Starts as the layer itself would. In the parameters, {'direction', 'scale'} stands for each
    kernel.

    Args:
      layer: a model.
      kernels: marks the kernels among the layer's parameters; by default by their name.
      eps: added to the squared lengths.

    Raises: ValueError, at init, if there is no such kernel.

    >>> from fnn.nn import linear
    >>> params, _ = weight_norm(linear(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> tree.paths(params)
    ['bias', 'kernel/direction', 'kernel/scale']
    """
    model = as_model(layer, "weight_norm")

    def split(kernel, marked):
        return layers.weight_norm_init(kernel) if marked else kernel

    def join(node):
        return layers.weight_norm(node, eps=eps) if _is_split(node) else node

    def init(key, x):
        params, model_state = model.init(key, x)
        return jax.tree.map(split, params, kernels(params)), model_state

    def apply(params, model_state, x, *, key=None, train=False):
        joined = jax.tree.map(join, params, is_leaf=_is_split)
        return model.apply(joined, model_state, x, key=key, train=train)

    return Model(init=init, apply=apply)


def _is_split(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == _PARTS


def spectral_norm(
    layer: Layer, *, kernels: Mask = matching("*kernel"), iterations: int = 1
) -> Model:
    """A layer whose kernels are divided by their largest stretch; see `layers.spectral_norm`.

    The parameters are the layer's own. The model state is {'layer': the layer's, 'vectors': for
    each kernel {'left', 'right'}, and () for each other parameter}.

    Args:
      layer: a model.
      kernels: marks the kernels among the layer's parameters; by default by their name.
      iterations: power iterations for each call with train=True.

    Raises: ValueError, at init, if there is no such kernel.

    >>> from fnn.nn import linear
    >>> _, state = spectral_norm(linear(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> tree.paths(state)
    ['vectors/kernel/left', 'vectors/kernel/right']
    """
    model = as_model(layer, "spectral_norm")

    def init(key, x):
        params, inner = model.init(fold_name(key, "layer"), x)
        stream = fold_name(key, "vectors")

        def vectors(path, kernel, marked):
            return layers.spectral_norm_init(fold_name(stream, path), kernel) if marked else ()

        return params, {
            "layer": inner,
            "vectors": tree.map_with_path(vectors, params, kernels(params)),
        }

    def apply(params, model_state, x, *, key=None, train=False):
        def divide(leaf, vectors):
            if vectors == ():
                return leaf, ()
            return layers.spectral_norm(leaf, vectors, train=train, iterations=iterations)

        pairs = jax.tree.map(divide, params, model_state["vectors"])
        divided, vectors = (
            jax.tree.map(lambda _, pair, i=i: pair[i], params, pairs) for i in range(2)
        )
        y, inner = model.apply(divided, model_state["layer"], x, key=key, train=train)
        return y, {"layer": inner, "vectors": vectors}

    return Model(init=init, apply=apply)
