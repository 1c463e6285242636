"""Modules of Flax NNX as models of fnn, and the reverse.

model = from_nnx(lambda rngs: MLP(4, 16, rngs=rngs));  testing.check_model(model, x)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn._messages import name_of, refuse
from fnn.interop._adapters import arguments_of, flags, lenient, refuse_noise
from fnn.types import Model, ModelState, Params, PRNGKey


def from_nnx(make: Callable[[Any], Any], *, train: str | None = "auto") -> Model:
    """A module of Flax NNX as a model: its variables but `nnx.Param` are the model state.

    `init` calls `make(nnx.Rngs(key))`. With train=True the module is in the mode of its `train()`,
    and else in that of `eval()`. Its streams of noise start from the key of each call (from a fixed
    one with train=False): they are no part of the state. Intermediates that it sows are dropped.

    Args:
      make: `make(rngs) -> module`, a function without other effects. The module is called with x,
        whatever its structure.
      train: the argument of the module's `__call__` that says whether it trains. "auto" finds
        `train`, `training`, `is_training`, `deterministic`, `use_running_average` and `inference`;
        None is for a module that has none.

    Raises: ValueError for a module in place of the function that makes it, in init if `make`
      returns none, and in apply if the module draws without a key.

    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.BatchNorm(1, rngs=rngs))
    >>> x = jnp.array([[1.0], [3.0]])
    >>> params, state = model.init(jax.random.key(0), x)
    >>> params['scale'].tolist(), state['mean'].tolist()
    ([1.0], [0.0])
    >>> y, state = model.apply(params, state, x, train=True)
    >>> state['mean'].tolist()
    [0.02]
    """
    from flax import nnx

    if not callable(make) or isinstance(make, nnx.Module):
        hint = "pass lambda rngs: ..."
        refuse("from_nnx", "a function of nnx.Rngs that makes a module", make, hint)

    def made(key: PRNGKey) -> Any:
        module = make(nnx.Rngs(key))
        if not isinstance(module, nnx.Module):
            words = f"{name_of(make)} to return an nnx.Module"
            refuse("from_nnx", words, module, "return the module, not its output")
        return module

    def split(module: Any) -> tuple[Any, ...]:
        parts = nnx.split(module, nnx.Intermediate, nnx.Param, nnx.RngState, ...)
        return parts[0], *parts[2:]

    @functools.cache
    def template() -> tuple[Any, ...]:
        module = nnx.eval_shape(lambda: made(jax.random.key(0)))
        names, open_ended = arguments_of(module.__call__)
        return *split(module), flags("from_nnx", names, train, open_ended)

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        with lenient():
            _, params, _, state = split(made(key))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state) or ()

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        with lenient():
            graph, params_like, streams_like, state_like, flag = template()
            streams = _streams(streams_like, key if train else None)
            start = jax.tree.leaves(streams)
            parts = (_filled(params_like, params), streams, _filled(state_like, model_state or {}))
            module = nnx.merge(graph, *parts)
            (module.train if train else module.eval)()
            y = module(x, **flag(train))
            _, _, after, new = split(module)
        drew = any(a is not b for a, b in zip(start, jax.tree.leaves(after), strict=True))
        if drew and train and key is None:
            refuse_noise("from_nnx", key, train)
        return y, nnx.to_pure_dict(new) if train and model_state else model_state

    return Model(init, apply)


def _filled(state: Any, values: Any) -> Any:
    """A state of NNX with the values of nested dicts."""
    from flax import nnx

    state = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(state, values)
    return state


def _streams(state: Any, key: PRNGKey | None) -> Any:
    """Streams of noise with counts of 0, each with a key of its own."""
    key = jax.random.key(0) if key is None else key
    leaves, structure = jax.tree.flatten(state)

    def start(i: int, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = jax.random.fold_in(key, i)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree.unflatten(structure, [start(i, leaf) for i, leaf in enumerate(leaves)])


def to_nnx(model: Model, x: Any, *, rngs: Any) -> Any:
    """A model as a module of Flax NNX: `module(x)`, in the mode of `module.train()` or `eval()`.

    Its parameters are `nnx.Param`, and its state `nnx.BatchStat`. It begins in training.

    Args:
      x: example batch, or its ShapeDtypeStructs.
      rngs: `nnx.Rngs` with the streams "params" and, for noise, "dropout", or the default stream.

    Raises: ValueError for anything but a Model.

    >>> from flax import nnx
    >>> from fnn.nn import linear
    >>> module = to_nnx(linear(2), jnp.ones((4, 3)), rngs=nnx.Rngs(0))
    >>> module(jnp.ones((5, 3))).shape
    (5, 2)
    """
    from flax import nnx

    if not isinstance(model, Model):
        refuse("to_nnx", "a Model", model, "use one such as nn.linear(10)")

    class FnnModule(nnx.Module):
        def __init__(self) -> None:
            params, state = model.init(rngs.params(), x)
            self.params = nnx.data(jax.tree.map(nnx.Param, params))
            self.state = nnx.data(jax.tree.map(nnx.BatchStat, state))
            self.rngs = rngs.dropout.fork() if "dropout" in rngs or "default" in rngs else None
            self.deterministic = False

        def __call__(self, x: Any) -> Any:
            train = not self.deterministic
            params, state = (jax.tree.map(_value, t, is_leaf=_is_variable) for t in self.trees())
            key = self.rngs() if train and self.rngs is not None else None
            y, new = model.apply(params, state, x, key=key, train=train)
            if train:
                jax.tree.map(_assign, self.state, new, is_leaf=_is_variable)
            return y

        def trees(self) -> tuple[Any, Any]:
            return self.params, self.state

    return FnnModule()


def _is_variable(leaf: Any) -> bool:
    from flax import nnx

    return isinstance(leaf, nnx.Variable)


def _value(variable: Any) -> Any:
    return variable[...]


def _assign(variable: Any, value: Any) -> None:
    variable[...] = value
