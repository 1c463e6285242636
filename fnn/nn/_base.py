"""What every combinator needs: layers as models, and the shape of what a model makes."""

from collections.abc import Callable
from typing import Any

import jax

from fnn.advice import advice, foreign, makes, name_of, refuse
from fnn.types import Model, ModelState, Params

Layer = Model | Callable[[Any], Any]  # a plain function of x is a layer without parameters


def lift(function: Callable[[Any], Any]) -> Model:
    """A function of x as a model without parameters.

    >>> model = lift(jnp.tanh)
    >>> model.init(jax.random.key(0), jnp.zeros((2, 3)))
    ({}, ())
    """

    def apply(params, model_state, x, *, key=None, train=False):
        y = function(x)
        if isinstance(y, Model):
            where = f"layer {name_of(function)}"
            refuse(where, "a function of x that returns arrays", y, "call it, as in linear(128)")
        return y, model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)


def as_model(layer: Layer, where: str = "as_model") -> Model:
    """`layer` itself if it is a model, lifted if it is a plain function.

    Args:
      where: how the message begins.

    Raises: ValueError for anything else, such as a constructor that was not called.

    >>> as_model(jnp.tanh).init(None, None)
    ({}, ())
    """
    if isinstance(layer, Model):
        return layer
    if not callable(layer) or makes(layer, Model) or foreign(layer) or isinstance(layer, type):
        hint = advice(layer, Model) if callable(layer) else ""
        hint = hint or "call the layer's constructor first, as in linear(128)"
        refuse(where, "a Model or a function of x", layer, hint)
    return lift(layer)


def output_of(model: Model, params: Params, model_state: ModelState, x: Any) -> Any:
    """Shape and dtype of what `model` makes of x, without computing it.

    >>> output_of(lift(jnp.sum), {}, (), jnp.zeros((2, 3)))
    ShapeDtypeStruct(shape=(), dtype=float32)
    """
    return jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, x)
