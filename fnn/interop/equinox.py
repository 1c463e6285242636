"""Modules of Equinox as models of fnn, and the reverse.

model = from_equinox(lambda key: eqx.nn.MLP(4, 2, 16, 2, key=key));  testing.check_model(model, x)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn import tree
from fnn._messages import name_of, refuse
from fnn.interop._adapters import arguments_of, flags, lenient, nested, refuse_noise
from fnn.types import Model, ModelState, Params, PRNGKey


def from_equinox(
    make: Callable[[PRNGKey], Any], *, batched: bool = True, axis_name: str = "batch"
) -> Model:
    """A module of Equinox as a model: its floating arrays are parameters, in dicts by field.

    With train=False it is in inference mode. A module whose call takes `key` is given one, and one
    with `eqx.nn.State` is called as `module(x, state) -> y, state`. Its other arrays and the leaves
    of its state are the model state, a tuple.

    Args:
      make: `make(key) -> module`, or `(module, state)` as from `eqx.nn.make_with_state`.
      batched: map the module over the batch, with a key for each example; else it takes batches.
      axis_name: of the batch, for `eqx.nn.BatchNorm`.

    Raises: ValueError for a module in place of the function that makes it, in init if `make`
      returns none, and in apply if the module draws without a key.

    >>> import equinox as eqx
    >>> model = from_equinox(lambda key: eqx.nn.MLP(3, 2, 8, depth=1, key=key))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((4, 3)))
    >>> params['layers']['0']['weight'].shape, state
    ((8, 3), ())
    >>> model.apply(params, state, jnp.ones((4, 3)))[0].shape
    (4, 2)
    """
    import equinox as eqx

    if not callable(make) or (isinstance(make, eqx.Module) and not isinstance(make, type)):
        words = "a function of a key that makes a module"
        got = "an instance" if isinstance(make, eqx.Module) else make
        if got is make:
            refuse("from_equinox", words, make, "pass lambda key: ...")
        raise ValueError(f"from_equinox: expected {words}, got {got}; pass lambda key: ...")

    def made(key: PRNGKey) -> tuple[Any, Any]:
        module = make(key)
        module, state = module if type(module) is tuple and len(module) == 2 else (module, None)
        if not isinstance(module, eqx.Module):
            words = f"{name_of(make)} to return an equinox.Module"
            refuse("from_equinox", words, module, "return the module, not its output")
        return module, state

    @functools.cache
    def template() -> tuple[list[Any], Any]:
        leaves, structure = jax.tree.flatten_with_path(
            eqx.filter_eval_shape(made, jax.random.key(0))
        )
        return [(_place(path, leaf), leaf) for path, leaf in leaves], structure

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        with lenient():
            given = zip(template()[0], jax.tree.leaves(made(key)), strict=True)
            pairs = [(place, jnp.asarray(leaf, leaf.dtype)) for (place, _), leaf in given if place]
        params = nested({place: leaf for place, leaf in pairs if place != STATE})
        return params, tuple(leaf for place, leaf in pairs if place == STATE)

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        places, structure = template()
        held = iter(model_state)
        leaves = [
            leaf if not place else next(held) if place == STATE else _at(params, place)
            for place, leaf in places
        ]
        module, state = jax.tree.unflatten(structure, leaves)
        module = eqx.nn.inference_mode(module, value=not train)
        names, _ = arguments_of(module.__call__)
        known = flags("from_equinox", [n for n in names if n != "deterministic"], "auto")(train)

        def call(x: Any, key: Any) -> Any:
            given = {"key": key, **known} if "key" in names else known
            return module(x, **given) if state is None else module(x, state, **given)

        noise = key if train and "key" in names else None
        try:
            with lenient():
                if batched:
                    keys = None if noise is None else jax.random.split(noise, tree.length(x))
                    axes = (0, None if noise is None else 0), 0 if state is None else (0, None)
                    y = jax.vmap(call, *axes, axis_name=axis_name)(x, keys)
                else:
                    y = call(x, noise)
        except Exception as error:
            if noise is None and "key" in names and "key" in str(error):
                refuse_noise("from_equinox", key, train)
            raise
        if state is None:
            return y, model_state
        y, new = y
        fixed = len(model_state) - len(jax.tree.leaves(new))  # arrays of the module come first
        return y, (*model_state[:fixed], *jax.tree.leaves(new)) if train else model_state

    return Model(init, apply)


STATE = "model state"


def _place(path: tuple[Any, ...], leaf: Any) -> str:
    """Where a leaf of (module, state) is kept: a path of the parameters, STATE, or '' for none."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return ""
    is_parameter = path[0].idx == 0 and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return tree.path_of(path[1:]) if is_parameter else STATE


def _at(params: Params, path: str) -> Any:
    return functools.reduce(lambda node, name: node[name], path.split("/"), params)


def to_equinox(model: Model, key: PRNGKey, x: Any) -> tuple[Any, ModelState]:
    """A model as a module of Equinox with its state: `module(x, state, key=key) -> y, state`.

    The module takes a batch: do not map it. Its parameters are `module.params`, and it trains
    unless `eqx.nn.inference_mode(module)`.

    Args:
      x: example batch, or its ShapeDtypeStructs.

    Raises: ValueError for anything but a Model.

    >>> from fnn.nn import linear
    >>> module, state = to_equinox(linear(2), jax.random.key(0), jnp.ones((4, 3)))
    >>> y, state = module(jnp.ones((5, 3)), state)
    >>> y.shape, module.params['kernel'].shape
    ((5, 2), (3, 2))
    """
    import equinox as eqx

    if not isinstance(model, Model):
        refuse("to_equinox", "a Model", model, "use one such as nn.linear(10)")

    class FnnModule(eqx.Module):
        params: Params
        inference: bool = False

        def __call__(
            self, x: Any, state: ModelState = (), *, key: PRNGKey | None = None
        ) -> tuple[Any, ModelState]:
            return model.apply(self.params, state, x, key=key, train=not self.inference)

    params, state = model.init(key, x)
    return FnnModule(params), state
