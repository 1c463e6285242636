"""Models whose parts do not simply follow one another: one function says how they are wired."""

from collections.abc import Callable
from typing import Any

from fnn.combinators import as_model, output_of
from fnn.combinators.children import Address, child, child_key, gathered
from fnn.types import Model

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
        params: dict[Address, Any] = {}
        state: dict[Address, Any] = {}

        def run(name, layer, x, place=None):
            model, at = as_model(layer), _address(name, place)
            params[at], state[at] = model.init(child_key(key, at), x)
            return output_of(model, params[at], state[at], x)

        forward(run, x)
        return gathered(params, {}), gathered(state, ())

    def apply(params, model_state, x, *, key=None, train=False):
        state: dict[Address, Any] = {}

        def run(name, layer, x, place=None):
            at = _address(name, place)
            y, state[at] = as_model(layer).apply(
                child(params, at, {}),
                child(model_state, at, ()),
                x,
                key=child_key(key, at),
                train=train,
            )
            return y

        return forward(run, x), gathered(state, ())

    return Model(init=init, apply=apply)


def _address(name: str, place: int | None) -> Address:
    return (name,) if place is None else (name, place)
