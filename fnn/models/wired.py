"""Models whose parts do not simply follow one another: one function says how they are wired."""

from collections.abc import Callable
from typing import Any

import jax

from fnn.combinators import as_model, output_of
from fnn.keys import fold_name
from fnn.types import Model, PRNGKey

Run = Callable[..., Any]  # (name, layer, x, place=None) -> what the layer makes of x


def wired(forward: Callable[[Run, Any], Any]) -> Model:
    """The model that `forward(run, x)` describes, where `run(name, layer, x)` runs one part.

    Init walks the same way as apply, but with shapes alone: whatever touches values has to be a
    part, were it a plain function. A part's parameters, state and randomness go by its name, or by
    name and place: `run(name, layer, x, place)` for parts that repeat, which become lists in the
    order of their places. Parts without parameters (or state) have no entry.

    >>> def forward(run, x):
    ...     return run('sum', sum, (x, run('sine', jnp.sin, x)))
    >>> wired(forward).apply({}, (), jnp.zeros((1, 1)))[0].tolist()
    [[0.0]]
    """

    def init(key, x):
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}

        def run(name, layer, x, place=None):
            model = as_model(layer)
            own, its_state = model.init(_key_of(key, name, place), x)
            _enter(params, name, place, own)
            _enter(state, name, place, its_state)
            return output_of(model, own, its_state, x)

        forward(run, x)
        return params, state or ()

    def apply(params, model_state, x, *, key=None, train=False):
        state: dict[str, Any] = {}

        def run(name, layer, x, place=None):
            y, its_state = as_model(layer).apply(
                _own(params, name, place, {}),
                _own(model_state, name, place, ()),
                x,
                key=None if key is None else _key_of(key, name, place),
                train=train,
            )
            _enter(state, name, place, its_state)
            return y

        return forward(run, x), state or ()

    return Model(init=init, apply=apply)


def _key_of(key: PRNGKey, name: str, place: int | None) -> PRNGKey:
    named = fold_name(key, name)
    return named if place is None else jax.random.fold_in(named, place)


def _enter(parts: dict[str, Any], name: str, place: int | None, part: Any) -> None:
    if isinstance(part, (dict, tuple)) and not part:
        return
    if place is None:
        parts[name] = part
    else:
        parts.setdefault(name, []).append(part)


def _own(parts: Any, name: str, place: int | None, empty: Any) -> Any:
    if name not in parts:
        return empty
    return parts[name] if place is None else parts[name][place]
