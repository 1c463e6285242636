"""Models side by side and one after another."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from fnn.combinators.base import Layer, as_model, output_of
from fnn.combinators.depth import draw_each
from fnn.keys import fold_name
from fnn.tree import spec, unstacked
from fnn.types import Model, PRNGKey

_MANY = 4  # layers that are the same model and are initialised by one loop, from here on


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
        for model, names in _runs(models):
            while names:
                name, *names = names
                params[name], state[name] = model.init(_fold(key, name), x)
                before, x = x, output_of(model, params[name], state[name], x)
                by_place = isinstance(name, int) and len(names) >= _MANY
                if by_place and jax.tree.map(spec, before) == jax.tree.map(spec, x):
                    for name, made in zip(names, _init_each(model, key, names, x), strict=True):
                        params[name], state[name] = made
                    break
        return _pack(params, {}), _pack(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        state = {}
        for name, model in models.items():
            x, state[name] = model.apply(
                _part(params, name, {}),
                _part(model_state, name, ()),
                x,
                key=_fold_or_none(key, name),
                train=train,
            )
        return x, _pack(state, ())

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
        for name, model in models.items():
            params[name], state[name] = model.init(_fold(key, name), x)
        return _pack(params, {}), _pack(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        outputs, state = {}, {}
        for name, model in models.items():
            outputs[name], state[name] = model.apply(
                _part(params, name, {}),
                _part(model_state, name, ()),
                x,
                key=_fold_or_none(key, name),
                train=train,
            )
        return combine(_in_order(outputs)), _pack(state, ())

    return Model(init=init, apply=apply)


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


def _children(where: str, layers: tuple[Layer, ...], named: dict[str, Layer]) -> dict[Any, Model]:
    """The models, by name or by place."""
    if bool(layers) == bool(named):
        raise ValueError(
            f"{where}: expected layers by place or by name, got {len(layers)} and {len(named)}; "
            "give at least one, and all in the same way"
        )
    given: dict[Any, Layer] = {**named} if named else dict(enumerate(layers))
    return {name: as_model(layer) for name, layer in given.items()}


def _in_order(parts: dict[Any, Any]) -> Any:
    """A list, if the parts go by place; a dict, if they go by name."""
    return list(parts.values()) if 0 in parts else parts


def _pack(parts: dict[Any, Any], empty: Any) -> Any:
    """The parts of all children without those of nothing: each node costs a step its time.

    What has a place keeps it, unless all are empty.
    """
    filled = {name: part for name, part in parts.items() if not _is_empty(part)}
    if not filled:
        return empty
    return _in_order(parts) if 0 in parts else filled


def _runs(models: dict[Any, Model]) -> list[tuple[Model, list[Any]]]:
    """Layers that are one and the same model, one after another, with their names or places."""
    by_model = groupby(models.items(), key=lambda item: id(item[1]))
    return [(run[0][1], [name for name, _ in run]) for run in (list(g) for _, g in by_model)]


def _init_each(model: Model, key: PRNGKey, places: list[int], x: Any) -> list[tuple[Any, Any]]:
    """Parameters and state at each place, for inputs of one shape: one compiled initialisation."""
    made = draw_each(lambda key: model.init(key, x), key, jnp.array(places))
    return unstacked(made, len(places))


def _is_empty(part: Any) -> bool:
    return isinstance(part, (dict, tuple)) and not part


def _part(parts: Any, name: str | int, empty: Any) -> Any:
    """The part of one child: what `_pack` left out is empty."""
    if isinstance(name, str):
        return parts[name] if name in parts else empty
    return parts[name] if parts else empty


def _fold(key: PRNGKey, name: str | int) -> PRNGKey:
    return fold_name(key, name) if isinstance(name, str) else jax.random.fold_in(key, name)


def _fold_or_none(key: PRNGKey | None, name: str | int) -> PRNGKey | None:
    return None if key is None else _fold(key, name)
