"""Models written as one function of their input, which applies their parts by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.expect import in_layer
from fnn.nn._base import Layer, as_model, output_of
from fnn.nn._children import Address, apply_child, gathered, init_child
from fnn.types import Model, ModelState, Params, PRNGKey

Run = Callable[..., Any]  # run(name, layer, x, index=None) -> outputs of the layer


def compact(forward: Callable[[Run, Any], Any]) -> Model:
    """The model of a function `forward(run, x)`, in which `run(name, layer, x)` applies one part.

    Any JAX code may stand between the parts. The parameters, state and noise of a part go by its
    name, or by name and index, `run(name, layer, x, index)`, for parts that repeat: they become
    lists, in the order of their indices. Parts without parameters (or state) have no entry. Init
    calls `forward` too, with zeros for the outputs of the parts: only their shapes are read, and a
    jitted init computes none of it.

    Args:
      forward: a pure function of `run` and the model's input.

    >>> from fnn.nn import linear
    >>> def forward(run, x):
    ...     left = run('left', linear(4), x['a'])
    ...     right = run('right', linear(2), x['b'])
    ...     return run('head', linear(1), jnp.concatenate([left, right], axis=-1))
    >>> model, x = compact(forward), {'a': jnp.ones((5, 3)), 'b': jnp.ones((5, 7))}
    >>> params, state = model.init(jax.random.key(0), x)
    >>> params['head']['kernel'].shape, model.apply(params, state, x)[0].shape
    ((6, 1), (5, 1))
    """

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params: dict[Address, Any] = {}
        state: dict[Address, Any] = {}

        def run(name: str, layer: Layer, x: Any, index: int | None = None) -> Any:
            model, at = as_model(layer), _address(name, index)
            params[at], state[at] = init_child(model, at, key, x)
            with in_layer(at, x):
                return _zeros(output_of(model, params[at], state[at], x))

        forward(run, _zeros(x))
        return gathered(params, {}), gathered(state, ())

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        state: dict[Address, Any] = {}

        def run(name: str, layer: Layer, x: Any, index: int | None = None) -> Any:
            at = _address(name, index)
            y, state[at] = apply_child(
                as_model(layer), at, params, model_state, x, key=key, train=train
            )
            return y

        return forward(run, x), gathered(state, ())

    return Model(init=init, apply=apply)


def _zeros(x: Any) -> Any:
    """Zeros in place of ShapeDtypeStructs, so that JAX code can compute with them."""

    def zeros(leaf: Any) -> Any:
        shaped = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.zeros(leaf.shape, leaf.dtype) if shaped else leaf

    return jax.tree.map(zeros, x)


def _address(name: str, index: int | None) -> Address:
    return (name,) if index is None else (name, index)
