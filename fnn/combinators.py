"""Models from models. Each combinator is again a pair (init, apply)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.keys import fold_name
from fnn.types import Model, ModelState, Params, PRNGKey

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


def sequential(*layers: Layer, **named: Layer) -> Model:
    """The layers one after another, each fed with the output of the one before.

    Args:
      layers: models or plain functions. Parameters and state are lists, in this order, and each
        layer's randomness follows from its place: appending a layer changes no other's.
      named: instead of `layers`; parameters and state are dicts with these names, and randomness
        follows from the name: adding or moving a layer changes no other's.

    Raises: ValueError if there are both or neither.

    >>> model = sequential(jnp.sin, jnp.cos)
    >>> model.apply([{}, {}], [(), ()], jnp.zeros((1, 1)))[0].tolist()
    [[1.0]]
    """
    if bool(layers) == bool(named):
        raise ValueError(
            f"sequential: expected layers by place or by name, got {len(layers)} and {len(named)}; "
            "give at least one, and all in the same way"
        )
    given: dict[Any, Layer] = {**named} if named else dict(enumerate(layers))
    models = {name: as_model(layer) for name, layer in given.items()}
    pack = dict if named else lambda parts: list(parts.values())

    def init(key, x):
        params, state = {}, {}
        for name, model in models.items():
            params[name], state[name] = model.init(_fold(key, name), x)
            x = output_of(model, params[name], state[name], x)
        return pack(params), pack(state)

    def apply(params, model_state, x, *, key=None, train=False):
        state = {}
        for name, model in models.items():
            layer_key = None if key is None else _fold(key, name)
            x, state[name] = model.apply(
                params[name], model_state[name], x, key=layer_key, train=train
            )
        return x, pack(state)

    return Model(init=init, apply=apply)


def _fold(key: PRNGKey, name: str | int) -> PRNGKey:
    return fold_name(key, name) if isinstance(name, str) else jax.random.fold_in(key, name)


def residual(layer: Layer) -> Model:
    """x + layer(x).

    Raises: ValueError if the layer changes the shape.
    Source: He et al. 2016, arXiv:1512.03385.

    >>> residual(jnp.cos).apply({}, (), jnp.zeros((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    model = as_model(layer)

    def apply(params, model_state, x, *, key=None, train=False):
        y, model_state = model.apply(params, model_state, x, key=key, train=train)
        if jnp.shape(y) != jnp.shape(x):
            raise ValueError(
                f"residual: expected the layer to keep the shape {jnp.shape(x)}, got "
                f"{jnp.shape(y)}; give it as many output features as input features"
            )
        return x + y, model_state

    return Model(init=model.init, apply=apply)
