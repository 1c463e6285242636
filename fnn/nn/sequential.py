"""Models from models: in sequence, in parallel, around a residual connection."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from fnn.expect import in_layer, spec
from fnn.nn._base import Layer, as_model, output_of
from fnn.nn._children import Address, apply_child, gathered, init_child
from fnn.tree import unstack
from fnn.types import Model, PRNGKey
from fnn.xla import draw_each

_MANY = 4  # layers that are the same model and are initialized by one loop, from here on


def sequential(*layers: Layer, **named: Layer) -> Model:
    """The layers one after another, each fed with the output of the one before.

    Args:
      layers: models or plain functions. Parameters and state are lists, in this order, and each
        layer's randomness follows from its place: appending a layer changes no other's.
      named: instead of `layers`; parameters and state are dicts with these names, and randomness
        follows from the name: adding or moving a layer changes no other's. Layers without
        parameters (or state) have no entry.

    Raises: ValueError if there are both or neither.

    >>> model = sequential(jnp.sin, jnp.cos)
    >>> model.apply({}, (), jnp.zeros((1, 1)))[0].tolist()
    [[1.0]]
    """
    models = _children("sequential", layers, named)

    def init(key, x):
        params, state = {}, {}
        for model, run in _runs(models):
            while run:
                at, *run = run
                params[at], state[at] = init_child(model, at, key, x)
                with in_layer(at, x):
                    before, x = x, output_of(model, params[at], state[at], x)
                by_index = isinstance(at[0], int) and len(run) >= _MANY
                if by_index and jax.tree.map(spec, before) == jax.tree.map(spec, x):
                    made = _init_each(model, key, [int(at[0]) for at in run], x)
                    for at, (own, its_state) in zip(run, made, strict=True):
                        params[at], state[at] = own, its_state
                    break
        return gathered(params, {}), gathered(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        state = {}
        for at, model in models.items():
            x, state[at] = apply_child(model, at, params, model_state, x, key=key, train=train)
        return x, gathered(state, ())

    return Model(init=init, apply=apply)


def parallel(
    *layers: Layer, combine: Callable[[Any], Any] = lambda outputs: outputs, **named: Layer
) -> Model:
    """The branches side by side, each fed with the same x.

        y = combine([branch_1(x), ..., branch_n(x)])

    Args:
      layers: models or plain functions; parameters, state and outputs are lists, in this order,
        and each branch's randomness follows from its place.
      combine: makes one output of the list (or dict) of outputs, such as `sum`; by default the
        list or dict is the output.
      named: instead of `layers`; parameters, state and outputs are dicts with these names, and
        randomness follows from the name.

    Raises: ValueError if there are branches by place and by name, or none.
    Source: Szegedy et al. 2015, arXiv:1409.4842, section 4.

    >>> model = parallel(jnp.sin, jnp.cos, combine=sum)
    >>> model.apply({}, (), jnp.zeros((1, 1)))[0].tolist()
    [[1.0]]
    >>> model = parallel(mean=jnp.mean, largest=jnp.max)
    >>> outputs, _ = model.apply({}, (), jnp.array([1.0, 3.0]))
    >>> outputs['mean'].item(), outputs['largest'].item()
    (2.0, 3.0)
    """
    models = _children("parallel", layers, named)

    def init(key, x):
        params, state = {}, {}
        for at, model in models.items():
            params[at], state[at] = init_child(model, at, key, x)
        return gathered(params, {}), gathered(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        outputs, state = {}, {}
        for at, model in models.items():
            outputs[at[0]], state[at] = apply_child(
                model, at, params, model_state, x, key=key, train=train
            )
        return combine(outputs if named else list(outputs.values())), gathered(state, ())

    return Model(init=init, apply=apply)


def residual(layer: Layer) -> Model:
    """x + layer(x).

    Raises: ValueError if the layer changes the shape.
    Source: He et al. 2016, arXiv:1512.03385.

    >>> residual(jnp.cos).apply({}, (), jnp.zeros((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """
    model = as_model(layer, "residual")

    def apply(params, model_state, x, *, key=None, train=False):
        y, model_state = model.apply(params, model_state, x, key=key, train=train)
        if jnp.shape(y) != jnp.shape(x):
            raise ValueError(
                f"residual: expected the layer to keep the shape {jnp.shape(x)}, got "
                f"{jnp.shape(y)}; give it as many output features as input features"
            )
        return x + y, model_state

    return Model(init=model.init, apply=apply)


def _children(
    where: str, layers: tuple[Layer, ...], named: dict[str, Layer]
) -> dict[Address, Model]:
    """The models by address: each a name, or an index."""
    if bool(layers) == bool(named):
        raise ValueError(
            f"{where}: expected layers by place or by name, got {len(layers)} and {len(named)}; "
            "give at least one, and all in the same way"
        )
    given: dict[Any, Layer] = {**named} if named else dict(enumerate(layers))
    return {(name,): as_model(layer, f"{where}: layer {name!r}") for name, layer in given.items()}


def _runs(models: dict[Address, Model]) -> list[tuple[Model, list[Address]]]:
    """Layers that are one and the same model, one after another, with their addresses."""
    by_model = groupby(models.items(), key=lambda item: id(item[1]))
    return [(run[0][1], [address for address, _ in run]) for run in (list(g) for _, g in by_model)]


def _init_each(model: Model, key: PRNGKey, indices: list[int], x: Any) -> list[tuple[Any, Any]]:
    """Parameters and state at each index, for inputs of one shape: one compiled initialization."""
    made = draw_each(lambda key: model.init(key, x), key, jnp.array(indices))
    return unstack(made, len(indices))
