"""Running statistics for parameters that were not trained with them, such as an average."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.tree import Mask, matching
from fnn.types import Model, ModelState, Params, PRNGKey


def update_statistics(
    model: Model,
    params: Params,
    model_state: ModelState,
    batches: Any,
    *,
    key: PRNGKey | None = None,
    statistics: Mask = matching("*mean", "*var"),
) -> ModelState:
    """Reestimates the running statistics of batch norm for `params`; a pure function.

        mean, var = (1 / n) sum over the batches i of mean_i, var_i

    For parameters whose running statistics belong to others: those of `optim.ema` and `optim.swa`
    (see `trained_params`), or of a checkpoint from other data.

    Args:
      model, params, model_state: the model, its parameters, and the state to update.
      batches: the inputs, (batches, batch, ...), all of one size; an array or a pytree.
      key: for models that draw noise in training, as they do here.
      statistics: which leaves of the state are moving averages over batches, that is
        d old + (1 - d) new with d below 1; the others are unchanged.

    Returns: a state like `model_state`.
    Raises: ValueError if there is no batch, or no leaf is such a statistic.
    Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2. Compat: as
      torch.optim.swa_utils.update_bn, which stores the unbiased variance, as PyTorch does.

    >>> from fnn.nn import batch_norm
    >>> model = batch_norm()
    >>> x = jnp.array([[[1.0], [3.0], [3.0], [1.0]], [[5.0], [7.0], [7.0], [5.0]]])
    >>> params, state = model.init(jax.random.key(0), x[0])
    >>> state = update_statistics(model, params, state, x)
    >>> state['mean'].round(3).tolist(), state['var'].round(3).tolist()
    ([4.0], [1.0])
    """
    length = tree.length(batches)
    if length < 1:
        raise ValueError("update_statistics: expected at least one batch, got none; add batches")
    leaves, structure = jax.tree.flatten(model_state)
    averaged = [i for i, mark in enumerate(jax.tree.leaves(statistics(model_state))) if mark]

    def with_averages(values: list[Array]) -> ModelState:
        new = dict(enumerate(leaves)) | dict(zip(averaged, values, strict=True))
        return jax.tree.unflatten(structure, list(new.values()))

    def after(x: Any, noise: PRNGKey | None, averages: list[Array]) -> list[Array]:
        state = model.apply(params, with_averages(averages), x, key=noise, train=True)[1]
        return [jax.tree.leaves(state)[i] for i in averaged]

    def add(total: list[Array], numbered: tuple[Array, Any]) -> tuple[list[Array], None]:
        i, x = numbered
        noise = None if key is None else jax.random.fold_in(key, i)
        # From 0, a moving average is (1 - d) new; d is its derivative with respect to the old one.
        weighted, decay = jax.jvp(partial(after, x, noise), (zeros,), (ones,))
        return jax.tree.map(lambda t, w, d: t + _unweighted(w, d), total, weighted, decay), None

    zeros = [jnp.zeros_like(leaves[i]) for i in averaged]
    ones = [jnp.ones_like(leaves[i]) for i in averaged]
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(length, dtype=jnp.int32), batches))
    return with_averages([t / length for t in total])


def _unweighted(weighted: Array, decay: Array) -> Array:
    return weighted / jnp.where(decay < 1, 1 - decay, 1)
