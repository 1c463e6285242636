"""Models from functions: plain ones, and the pairs of functions of `fnn.layers`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import jax

from fnn._messages import advice, foreign, makes, name_of, refuse
from fnn.types import Model, ModelState, Params, PRNGKey

Layer = Model | Callable[[Any], Any]  # a plain function of x is a layer without parameters
InitParams = Callable[[PRNGKey, Any], Params]  # init(key, x) of a model without state
P = ParamSpec("P")


def lift(function: Callable[[Any], Any]) -> Model:
    """A function of x as a model without parameters.

    >>> model = lift(jnp.tanh)
    >>> model.init(jax.random.key(0), jnp.zeros((2, 3)))
    ({}, ())
    """

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        y = function(x)
        if isinstance(y, Model):
            where = f"layer {name_of(function)}"
            refuse(where, "a function of x that returns arrays", y, "call it, as in linear(128)")
        return y, model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)


def stateless(init: InitParams, apply: Callable[[Params, Any], Any]) -> Model:
    """The model of `init(key, x) -> params` and `apply(params, x) -> y`: no state, no noise."""

    def apply_model(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        return apply(params, x), model_state

    return Model(init=lambda key, x: (init(key, x), ()), apply=apply_model)


def takes_arguments_of(
    init: Callable[Concatenate[PRNGKey, int, P], Params],
) -> Callable[[Callable[[InitParams], Model]], Callable[P, Model]]:
    """A decorator for constructors, which then take the arguments of `init` after in_features.

    The decorated function makes the model from `init(key, x)` with these arguments.
    """

    init_any: Callable[..., Params] = init
    _, _, *rest = inspect.signature(init).parameters.values()
    signature = inspect.Signature(rest, return_annotation=Model)

    def decorate(make: Callable[[InitParams], Model]) -> Callable[P, Model]:
        @functools.wraps(make)
        def constructor(*args: P.args, **kwargs: P.kwargs) -> Model:
            hyper = signature.bind(*args, **kwargs).arguments  # by name, as `show` prints them
            return make(lambda key, x: init_any(key, features_of(make.__name__, x), **hyper))

        vars(constructor)["__signature__"] = signature
        return constructor

    return decorate


def features_of(where: str, x: Any) -> int:
    """The size of the last axis of an example batch."""
    if len(x.shape) < 2:
        raise ValueError(
            f"{where}: expected x of shape (batch, ..., features), got {x.shape}; "
            "put the batch first, and add an axis if each example is a single number"
        )
    return x.shape[-1]


def as_model(layer: Layer, where: str = "as_model") -> Model:
    """`layer` itself if it is a model, lifted if it is a plain function.

    Args:
      where: the beginning of error messages.

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
    """Shapes and dtypes of the outputs of `model` for x, without computing them.

    >>> output_of(lift(jnp.sum), {}, (), jnp.zeros((2, 3)))
    ShapeDtypeStruct(shape=(), dtype=float32)
    """
    return jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, x)
