"""Layers whose kernels are normalised on their way to use."""

from typing import Any

import jax

from fnn import layers, tree
from fnn.combinators import Layer, as_model
from fnn.expect import within
from fnn.keys import fold_name
from fnn.tree import Mask, matching
from fnn.types import Model, Scalar

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

    >>> from fnn.models import dense
    >>> params, _ = weight_norm(dense(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
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

    >>> from fnn.models import dense
    >>> _, state = spectral_norm(dense(2)).init(jax.random.key(0), jnp.zeros((1, 3)))
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
