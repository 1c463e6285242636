"""Losses of several terms, each a mean over its own weights.

Of N examples, term k has losses v_ki with weights w_ki, of mean m_k = sum_i w_ki / N.
"""

import functools
from collections.abc import Collection, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.dtypes import wide, widest
from fnn.types import Terms, Weighted
from fnn.weighted import per_weight

Sums = dict[str, dict[str, Array]]  # per term: weighted sum, the same times c_k, sum of weights
RESERVED = frozenset({"loss", "lr", "penalty", "step", "valid"})  # entries of a step


def mean_weights(terms: Terms) -> dict[str, Float[Array, ""]]:
    """m_k, the mean weight per example of each term.

    >>> losses = {'a': Weighted(jnp.ones(4), jnp.array([1.0, 0.0, 0.0, 1.0]))}
    >>> mean_weights(Terms(losses, {'a': 1.0}))['a'].item()
    0.5
    """
    return {k: one.weights.sum() / one.weights.shape[0] for k, one in terms.losses.items()}


def as_one(terms: Terms, means: Mapping[str, Array] | None = None) -> Weighted:
    """One loss per example, whose weighted mean over a batch is the combined loss l.

        w_i = mean_k(w_ki / m_k),    w_i v_i = sum_k c_k w_ki v_ki / m_k

    over the terms with weight, so that sum_i w_i = N and sum_i w_i v_i = N l.

    Args:
      means: m_k of the whole batch, if `terms` are those of a part.

    >>> losses = {'a': Weighted(jnp.array([2.0, 4.0]), jnp.array([1.0, 1.0])),
    ...           'b': Weighted(jnp.array([5.0, 0.0]), jnp.array([1.0, 0.0]))}
    >>> as_one(Terms(losses, {'a': 1.0, 'b': 10.0})).mean().item()   # 3 + 10 * 5
    53.0
    """
    means = mean_weights(terms) if means is None else means
    dtype = functools.reduce(jnp.promote_types, [v.values.dtype for v in terms.losses.values()])
    total, weights, present = [], [], []
    for name, (values, own) in terms.losses.items():
        mean = means[name].astype(own.dtype)
        own = per_weight(own, mean)
        product = own * jnp.where(own == 0, 0, values)
        c = jnp.asarray(terms.coefficients[name], dtype)
        total.append(c * _of_example(product).astype(dtype))
        weights.append(_of_example(own).astype(dtype))
        present.append((mean != 0).astype(dtype))
    weight = sum(weights) / jnp.maximum(sum(present), 1)
    return Weighted(per_weight(sum(total), weight), weight)


def sums_of(terms: Terms) -> Sums:
    """Weighted sums of the terms, which add over the parts of a batch.

    >>> sums = sums_of(Terms({'a': Weighted(jnp.ones(3), jnp.ones(3))}, {'a': 2.0}))
    >>> {name: value.item() for name, value in sums['a'].items()}
    {'scaled': 6.0, 'total': 3.0, 'weight': 3.0}
    """
    sums = {}
    for name, one in terms.losses.items():
        one = Weighted(wide(one.values), wide(one.weights))
        total = one.sum()
        c = jnp.asarray(terms.coefficients[name], total.dtype)
        sums[name] = {"scaled": c * total, "total": total, "weight": one.weights.sum()}
    return sums


def total_of(sums: Sums) -> Float[Array, ""]:
    """The combined loss, from sums.

    >>> one = {'scaled': jnp.array(6.0), 'total': jnp.array(3.0), 'weight': jnp.array(3.0)}
    >>> total_of({'a': one}).item()
    2.0
    """
    means = [per_weight(one["scaled"], one["weight"]) for one in sums.values()]
    return jnp.stack([mean.astype(widest(means)) for mean in means]).sum()


def with_means(metrics: Mapping[str, Array], sums: Sums) -> dict[str, Array]:
    """The metrics with the mean of each term under its name.

    Raises: ValueError for a term with the name of a metric.

    >>> one = {'scaled': jnp.array(6.0), 'total': jnp.array(3.0), 'weight': jnp.array(3.0)}
    >>> with_means({'loss': jnp.array(2.0)}, {'a': one})['a'].item()
    1.0
    """
    expect_free(sums, RESERVED | metrics.keys())
    return {**metrics, **{k: per_weight(s["total"], s["weight"]) for k, s in sums.items()}}


def expect_free(names: Collection[str], taken: Collection[str]) -> None:
    """Raises ValueError for a term with a taken name.

    >>> expect_free({'lr'}, RESERVED)
    Traceback (most recent call last):
        ...
    ValueError: losses.combine: expected names that no metric has, got ['lr']; rename the terms
    """
    if twice := sorted(set(names) & set(taken)):
        raise ValueError(
            f"losses.combine: expected names that no metric has, got {twice}; rename the terms"
        )


def _of_example(values: Array) -> Array:
    return values.reshape(values.shape[0], -1).sum(axis=1)
