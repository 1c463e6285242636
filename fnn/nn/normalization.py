"""Normalization of features and of weights."""

from typing import Any

import jax

from fnn import layers, tree
from fnn.expect import within
from fnn.keys import fold_name
from fnn.nn._base import Layer, as_model, features_of, stateless
from fnn.tree import Mask, matching
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar


@within(eps="[0, inf)")
def layer_norm(*, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True) -> Model:
    """Layer normalization over the last axis; see `layers.layer_norm`.

    >>> params, _ = layer_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['bias', 'scale']
    """
    return stateless(
        lambda key, x: layers.layer_norm_init(features_of("layer_norm", x), scale=scale, bias=bias),
        lambda params, x: layers.layer_norm(params, x, eps=eps),
    )


@within(decay="[0, 1]", eps="[0, inf)")
def batch_norm(
    *, decay: Scalar = 0.99, eps: Scalar = 1e-5, scale: bool = True, bias: bool = True
) -> Model:
    """Batch normalization of the last axis; see `layers.batch_norm`.

    >>> _, state = batch_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(state)
    ['mean', 'var']
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        return layers.batch_norm_init(features_of("batch_norm", x), scale=scale, bias=bias)

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        return layers.batch_norm(params, model_state, x, train=train, decay=decay, eps=eps)

    return Model(init=init, apply=apply)


@within(eps="[0, inf)")
def group_norm(
    num_groups: int = 32,
    *,
    eps: Scalar = 1e-6,
    scale: bool = True,
    bias: bool = True,
    ndim: int | None = None,
) -> Model:
    """Normalization of groups of features within each example; see `layers.group_norm`.

    >>> params, _ = group_norm(2).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    >>> params['scale'].shape
    (4,)
    """
    return stateless(
        lambda key, x: layers.group_norm_init(features_of("group_norm", x), scale=scale, bias=bias),
        lambda params, x: layers.group_norm(params, x, num_groups, eps=eps, ndim=ndim),
    )


@within(eps="[0, inf)")
def instance_norm(
    *, eps: Scalar = 1e-6, scale: bool = True, bias: bool = True, ndim: int | None = None
) -> Model:
    """Normalization of each feature map within each example; see `layers.instance_norm`.

    >>> instance_norm(scale=False, bias=False).init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    ({}, ())
    """
    return stateless(
        lambda key, x: layers.instance_norm_init(
            features_of("instance_norm", x), scale=scale, bias=bias
        ),
        lambda params, x: layers.instance_norm(params, x, eps=eps, ndim=ndim),
    )


@within(eps="[0, inf)")
def rms_norm(*, eps: Scalar = 1e-6) -> Model:
    """Normalization by the root mean square of the last axis; see `layers.rms_norm`.

    >>> params, _ = rms_norm().init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> sorted(params)
    ['scale']
    """
    return stateless(
        lambda key, x: layers.rms_norm_init(features_of("rms_norm", x)),
        lambda params, x: layers.rms_norm(params, x, eps=eps),
    )


_PARTS = {"direction", "scale"}


@within(eps="[0, inf)")
def weight_norm(layer: Layer, *, kernels: Mask = matching("*kernel"), eps: Scalar = 1e-12) -> Model:
    """A layer whose kernels are split into direction and norm; see `layers.weight_norm`.

    Starts as the layer itself would. In the parameters, {'direction', 'scale'} replaces each
    kernel.

    Args:
      layer: a model.
      kernels: marks the kernels among the layer's parameters; by default by their name.

    Raises: ValueError, at init, if there is no such kernel.

    >>> from fnn.nn import linear
    >>> params, _ = weight_norm(linear(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> tree.paths(params)
    ['bias', 'kernel/direction', 'kernel/scale']
    """
    model = as_model(layer, "weight_norm")

    def split(kernel: Any, marked: Any) -> Any:
        return layers.weight_norm_init(kernel) if marked else kernel

    def join(node: Any) -> Any:
        return layers.weight_norm(node, eps=eps) if _is_split(node) else node

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params, model_state = model.init(key, x)
        return jax.tree.map(split, params, kernels(params)), model_state

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        joined = jax.tree.map(join, params, is_leaf=_is_split)
        return model.apply(joined, model_state, x, key=key, train=train)

    return Model(init=init, apply=apply)


def _is_split(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == _PARTS


def spectral_norm(
    layer: Layer, *, kernels: Mask = matching("*kernel"), iterations: int = 1
) -> Model:
    """A layer whose kernels are divided by their spectral norm; see `layers.spectral_norm`.

    The parameters are the layer's own. The model state is {'layer': the layer's, 'vectors': for
    each kernel {'left', 'right'}, and () for each other parameter}.

    Args:
      layer: a model.
      kernels: marks the kernels among the layer's parameters; by default by their name.

    Raises: ValueError, at init, if there is no such kernel.

    >>> from fnn.nn import linear
    >>> _, state = spectral_norm(linear(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> tree.paths(state)
    ['vectors/kernel/left', 'vectors/kernel/right']
    """
    model = as_model(layer, "spectral_norm")

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params, inner = model.init(fold_name(key, "layer"), x)
        stream = fold_name(key, "vectors")

        def vectors(path: str, kernel: Any, marked: Any) -> ModelState:
            return layers.spectral_norm_init(fold_name(stream, path), kernel) if marked else ()

        found = tree.map_with_path(vectors, params, kernels(params))
        return params, {"layer": inner, "vectors": found}

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        def divide(leaf: Any, vectors: ModelState) -> tuple[Any, ModelState]:
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
