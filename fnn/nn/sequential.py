"""Models from models: in sequence, in parallel, with a residual connection."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from fnn.expect import in_layer, spec
from fnn.nn._base import Layer, as_model, output_of
from fnn.nn._children import Address, apply_child, gathered, init_child
from fnn.tree import unstack
from fnn.types import Model, ModelState, Params, PRNGKey
from fnn.xla import draw_each

_MANY = 4  # layers that are the same model; from here on, one compiled loop initializes them


def sequential(*layers: Layer, **named: Layer) -> Model:
    """The composition of the layers: each gets the output of the one before.

    Args:
      layers: models or plain functions. Parameters and state are lists, in this order, and each
        layer's key depends on its index: appending a layer changes no other's.
      named: instead of `layers`; parameters and state are dicts with these names, and keys depend
        on the name: adding or moving a layer changes no other's. Layers without parameters (or
        state) have no entry.

    Raises: ValueError if there are both or neither.

    >>> model = sequential(jnp.sin, jnp.cos)
    >>> model.apply({}, (), jnp.zeros((1, 1)))[0].tolist()
    [[1.0]]
    """
    models = _children("sequential", layers, named)

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        made: dict[Address, tuple[Params, ModelState]] = {}
        for model, rest in _grouped(models):
            while rest:
                at, *rest = rest
                made[at] = init_child(model, at, key, x)
                with in_layer(at, x):
                    before, x = x, output_of(model, *made[at], x)
                by_index = isinstance(at[0], int) and len(rest) >= _MANY
                if by_index and jax.tree.map(spec, before) == jax.tree.map(spec, x):
                    indices = [int(at[0]) for at in rest]
                    made |= zip(rest, _init_each(model, key, indices, x), strict=True)
                    break
        return _gathered(made)

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        state: dict[Address, ModelState] = {}
        for at, model in models.items():
            x, state[at] = apply_child(model, at, params, model_state, x, key=key, train=train)
        return x, gathered(state, ())

    return Model(init=init, apply=apply)


def parallel(
    *layers: Layer, combine: Callable[[Any], Any] = lambda outputs: outputs, **named: Layer
) -> Model:
    """Branches that all get the same x.

        y = combine([branch_1(x), ..., branch_n(x)])

    Args:
      layers: models or plain functions; parameters, state and outputs are lists, in this order,
        and each branch's key depends on its index.
      combine: a function of the list (or dict) of outputs, such as `sum`; by default the list or
        dict is the output.
      named: instead of `layers`; parameters, state and outputs are dicts with these names, and
        keys depend on the name.

    Raises: ValueError if there are branches by position and by name, or none.
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

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        return _gathered({at: init_child(model, at, key, x) for at, model in models.items()})

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        made = {
            at: apply_child(model, at, params, model_state, x, key=key, train=train)
            for at, model in models.items()
        }
        outputs = {at[0]: y for at, (y, _) in made.items()}
        state = {at: own for at, (_, own) in made.items()}
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

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
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
            f"{where}: expected layers by position or by name, got {len(layers)} and {len(named)}; "
            "give at least one, and all in the same way"
        )
    given: dict[Any, Layer] = {**named} if named else dict(enumerate(layers))
    return {(name,): as_model(layer, f"{where}: layer {name!r}") for name, layer in given.items()}


def _gathered(made: dict[Address, tuple[Params, ModelState]]) -> tuple[Params, ModelState]:
    params, state = ({at: pair[i] for at, pair in made.items()} for i in (0, 1))
    return gathered(params, {}), gathered(state, ())


def _grouped(models: dict[Address, Model]) -> Iterator[tuple[Model, list[Address]]]:
    """Consecutive layers that are the same model, with their addresses."""
    for _, group in groupby(models.items(), key=lambda item: id(item[1])):
        addresses, same = zip(*group, strict=True)
        yield same[0], list(addresses)


def _init_each(model: Model, key: PRNGKey, indices: list[int], x: Any) -> list[tuple[Any, Any]]:
    """Parameters and state at each index, for inputs of one shape: one compiled initialization."""
    made = draw_each(lambda key: model.init(key, x), key, jnp.array(indices))
    return unstack(made, len(indices))
