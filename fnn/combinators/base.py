"""What every combinator needs: layers as models, and the shape of what a model makes."""

from collections.abc import Callable
from typing import Any

import jax

from fnn.types import Model, ModelState, Params

Layer = Model | Callable[[Any], Any]  # a plain function of x is a layer without parameters


def lift(function: Callable[[Any], Any]) -> Model:
    """A function of x as a model without parameters.

    >>> model = lift(jnp.tanh)
    >>> model.init(jax.random.key(0), jnp.zeros((2, 3)))
    ({}, ())
    """

    def apply(params, model_state, x, *, key=None, train=False):
        return function(x), model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)


def as_model(layer: Layer) -> Model:
    """`layer` itself if it is a model, lifted if it is a plain function.

    Raises: ValueError for anything else.

    >>> as_model(jnp.tanh).init(None, None)
    ({}, ())
    """
    if isinstance(layer, Model):
        return layer
    if not callable(layer):
        raise ValueError(
            f"as_model: expected a Model or a function of x, got {layer!r}; "
            "call the layer's constructor first, as in dense(128)"
        )
    return lift(layer)


def output_of(model: Model, params: Params, model_state: ModelState, x: Any) -> Any:
    """Shape and dtype of what `model` makes of x, without computing it.

    >>> output_of(lift(jnp.sum), {}, (), jnp.zeros((2, 3)))
    ShapeDtypeStruct(shape=(), dtype=float32)
    """
    return jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, x)
