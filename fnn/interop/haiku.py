"""Functions of Haiku as models of fnn.

model = from_haiku(lambda x: hk.nets.MLP([16, 2])(x));  testing.check_model(model, x)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn._messages import refuse
from fnn.interop._adapters import arguments_of, flags, lenient, refuse_noise
from fnn.keys import fold_name
from fnn.types import Model, ModelState, Params, PRNGKey


def from_haiku(function: Callable[..., Any], *, train: str | None = "auto") -> Model:
    """A function that is built of Haiku's modules as a model, by `hk.transform_with_state`.

    The parameters are those of the transformed `init`. It runs the function as in training, on a
    batch of normal samples: in Haiku the statistics of batch norm begin with those of a batch.

    Args:
      function: `function(x)` or `function(x, is_training=...)`, before any transformation.
      train: the argument of the function that says whether it trains. "auto" finds `train`,
        `training`, `is_training`, `deterministic`, `use_running_average` and `inference`; None is
        for a function that has none.

    Raises: ValueError for what is transformed already or is no function, and in apply if it draws
      without a key.

    >>> def forward(x, is_training):
    ...     import haiku as hk
    ...     return hk.BatchNorm(True, True, decay_rate=0.9)(hk.Linear(2)(x), is_training)
    >>> model = from_haiku(forward)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((4, 3)))  # doctest: +SKIP
    >>> params['linear']['w'].shape  # doctest: +SKIP
    (3, 2)
    """
    if not callable(function) or isinstance(function, type):
        is_transformed = isinstance(function, tuple)
        hint = "the function itself, before hk.transform"
        hint = f"pass {hint if is_transformed else 'lambda x: hk.Linear(10)(x)'}"
        refuse("from_haiku", "a function of x built of haiku modules", function, hint)
    names, open_ended = _arguments(function)
    flag = flags("from_haiku", names, train, open_ended)

    def transformed() -> Any:
        import haiku

        return haiku.transform_with_state(function)

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        with lenient():
            params, state = transformed().init(key, _samples(key, x), **flag(True))
        return params, state or ()

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        noise = key if train else None
        try:
            with lenient():
                y, new = transformed().apply(params, model_state or {}, noise, x, **flag(train))
        except ValueError as error:
            if noise is None and "PRNGKey" in str(error):
                refuse_noise("from_haiku", key, train)
            raise
        return y, new if train and model_state else model_state

    return Model(init, apply)


def _samples(key: PRNGKey, x: Any) -> Any:
    """Normal samples in place of floats, and zeros else: init depends on shapes alone."""
    leaves, structure = jax.tree.flatten(x)
    key = fold_name(key, "x")
    samples = [
        jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, samples)


def _arguments(function: Callable[..., Any]) -> tuple[list[str], bool]:
    try:
        return arguments_of(function)
    except ValueError:  # functions without a signature, or without an argument
        return [], True
