"""Models whose parts do not simply follow one another: one function says how they are wired."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.expect import in_layer
from fnn.nn._base import as_model, output_of
from fnn.nn._children import Address, apply_child, gathered, init_child
from fnn.types import Model

Run = Callable[..., Any]  # (name, layer, x, place=None) -> what the layer makes of x


def wired(forward: Callable[[Run, Any], Any]) -> Model:
    """The model that `forward(run, x)` describes, where `run(name, layer, x)` applies one part.

    Between the parts stands any JAX code. A part's parameters, state and noise go by its name, or
    by name and index, `run(name, layer, x, index)`, for parts that repeat: they become lists, in
    the order of their indices. Parts without parameters (or state) have no entry. Init calls
    `forward` too, with zeros for what the parts compute: only their shapes are read, and a jitted
    init computes none of it.

    Args:
      forward: a pure function of `run` and the model's input.

    >>> from fnn.nn import linear
    >>> def forward(run, x):
    ...     left = run('left', linear(4), x['a'])
    ...     right = run('right', linear(2), x['b'])
    ...     return run('head', linear(1), jnp.concatenate([left, right], axis=-1))
    >>> model, x = wired(forward), {'a': jnp.ones((5, 3)), 'b': jnp.ones((5, 7))}
    >>> params, state = model.init(jax.random.key(0), x)
    >>> params['head']['kernel'].shape, model.apply(params, state, x)[0].shape
    ((6, 1), (5, 1))
    """

    def init(key, x):
        params: dict[Address, Any] = {}
        state: dict[Address, Any] = {}

        def run(name, layer, x, place=None):
            model, at = as_model(layer), _address(name, place)
            params[at], state[at] = init_child(model, at, key, x)
            with in_layer(at, x):
                return _zeros(output_of(model, params[at], state[at], x))

        forward(run, _zeros(x))
        return gathered(params, {}), gathered(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        state: dict[Address, Any] = {}

        def run(name, layer, x, place=None):
            at = _address(name, place)
            y, state[at] = apply_child(
                as_model(layer), at, params, model_state, x, key=key, train=train
            )
            return y

        return forward(run, x), gathered(state, ())

    return Model(init=init, apply=apply)


def _zeros(x: Any) -> Any:
    """Zeros for what has a shape and no values, so that JAX code can follow."""

    def zeros(leaf: Any) -> Any:
        shaped = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.zeros(leaf.shape, leaf.dtype) if shaped else leaf

    return jax.tree.map(zeros, x)


def _address(name: str, place: int | None) -> Address:
    return (name,) if place is None else (name, place)
