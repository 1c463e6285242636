"""Modules of Flax Linen as models of fnn, and the reverse.

model = from_linen(CNN(features=16));  testing.check_model(model, images)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fnn._messages import describe, refuse
from fnn.interop._adapters import arguments_of, flags, lenient, refuse_noise, with_zeros
from fnn.keys import fold_name
from fnn.types import Model, ModelState, Params, PRNGKey


def from_linen(
    module: Any, *, rngs: Sequence[str] = ("dropout",), train: str | None = "auto"
) -> Model:
    """A module of Flax Linen as a model: its collections but "params" are the model state.

    The parameters are those of `module.init(key, x)`. The stream `name` of noise is drawn from
    `fold_name(key, name)`. Collections change with train=True only.

    Args:
      module: an instance of `flax.linen.Module`. x is its first argument, whatever its structure.
      rngs: the streams that the module draws noise from.
      train: the argument (or field) of the module that says whether it trains. "auto" finds
        `train`, `training`, `is_training`, `deterministic`, `use_running_average` and `inference`;
        None is for a module that has none.

    Raises: ValueError for anything but an instance, for an argument that the module lacks, and in
      apply if the module draws without a key or from a stream that `rngs` lacks.

    >>> from flax import linen
    >>> model = from_linen(linen.BatchNorm())
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params, state = model.init(jax.random.key(0), x)
    >>> params['scale'].tolist(), state['batch_stats']['mean'].tolist()
    ([1.0], [0.0])
    >>> y, state = model.apply(params, state, x, train=True)
    >>> state['batch_stats']['mean'].tolist()
    [0.02]
    """
    from flax import errors, linen

    if not isinstance(module, linen.Module):
        name = getattr(module, "__name__", "")
        is_class = isinstance(module, type) and issubclass(module, linen.Module)
        hint = f"construct it, {name}(...)" if is_class else "such as linen.Dense(10)"
        refuse("from_linen", "a flax.linen.Module instance", module, hint)
    in_call, open_ended = arguments_of(module.__call__)
    fields = [field.name for field in dataclasses.fields(module)]
    found = train == "auto" and flags("from_linen", in_call, "auto")(True)
    flag = flags("from_linen", in_call if found else [*in_call, *fields], train, open_ended)

    def run(method: str, variables: Any, x: Any, train: bool, **options: Any) -> Any:
        given = flag(train)
        own: Any = {
            name: given.pop(name) for name in fields if name in given and name not in in_call
        }
        with lenient():
            return getattr(module.clone(**own), method)(variables, x, **given, **options)

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        keys = {"params": key, **{name: fold_name(key, name) for name in rngs}}
        state = dict(run("init", keys, with_zeros(x), train=False))
        params = state.pop("params", {})
        return params, state or ()

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        state = dict(model_state or {})
        keys = {name: fold_name(key, name) for name in rngs} if train and key is not None else {}
        try:
            y, new = run(
                "apply", {"params": params, **state}, x, train, rngs=keys, mutable=[*state] * train
            )
        except errors.InvalidRngError as error:
            why = f"rngs={describe(tuple(rngs))} are given. {error}"
            refuse_noise("from_linen", key, train, why)
        return y, {**state, **new} if train and state else model_state

    return Model(init, apply)


def to_linen(model: Model) -> Any:
    """A model as a module of Flax Linen: `module.apply(variables, x, train=False)`.

    Its parameters are `variables["params"]["model"]`, and its state, if it has one,
    `variables["batch_stats"]["model"]`. Its noise is the stream "dropout".

    Raises: ValueError for anything but a Model.

    >>> from fnn import nn
    >>> module = to_linen(nn.linear(2))
    >>> variables = module.init(jax.random.key(0), jnp.ones((4, 3)))
    >>> variables['params']['model']['kernel'].shape
    (3, 2)
    """
    from flax import linen

    if not isinstance(model, Model):
        refuse("to_linen", "a Model", model, "use one such as nn.linear(10)")

    class FnnModule(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            new = self.is_initializing()
            params, state = model.init(self.make_rng("params"), x) if new else ({}, ())
            params = self.param("model", lambda key: params)
            has_state = state != () if new else self.has_variable("batch_stats", "model")
            held = self.variable("batch_stats", "model", lambda: state) if has_state else None
            key = self.make_rng("dropout") if train and self.has_rng("dropout") else None
            y, state = model.apply(params, held.value if held else (), x, key=key, train=train)
            if held and train and not new:
                held.value = state
            return y

    return FnnModule()
