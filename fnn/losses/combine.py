"""Losses of models with several outputs."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax.numpy as jnp

from fnn.losses.terms import RESERVED, expect_free
from fnn.types import Terms, Weighted


def combine(terms: Mapping[str, Any]) -> Callable[[Any, Any], Terms]:
    """The weighted sum of one loss per output, for models with several heads.

        l = sum_k c_k sum_i(w_ki v_ki) / sum_i w_ki

    Each term is a mean over its own weights, independent of the split into microbatches, devices
    and batches. The metrics contain each term under its name, without its coefficient.

    Args:
      terms: {name: (loss, c)}. The loss takes the pytrees `outputs[name]` and `targets[name]` and
        returns an array or, with masks from the targets, a `Weighted`, whose weights may not depend
        on the parameters. c is a scalar, which may be traced.

    Returns: a loss of dicts of outputs and targets, which returns `Terms`. A term without weight in
      the batch is 0.
    Raises: ValueError for no terms, a reserved name ('loss', 'lr', ...), a coefficient that is not
      a scalar, and at trace time for missing outputs or targets.
    Source: Caruana 1997, "Multitask learning". As `loss=` and `loss_weights=` of Keras.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.nn import parallel
    >>> from fnn.train import make_init, make_step
    >>> def box_loss(z, y):   # of the examples that have a box
    ...     return losses.huber(z, y['at'], where=y['has_box'][:, None].repeat(4, axis=1))
    >>> def recipe(hyper):
    ...     model = parallel(**{'class': nn.linear(3), 'box': nn.linear(4)})
    ...     loss = losses.combine({'class': (losses.cross_entropy, 1.0),
    ...                            'box': (box_loss, hyper['box_weight'])})
    ...     return Recipe(model, loss, optim.adam(), schedules.constant(hyper['lr']))
    >>> key, hyper, x = jax.random.key(0), {'lr': 0.01, 'box_weight': 0.5}, jnp.eye(2)
    >>> y = {'class': jnp.array([2, 0]),
    ...      'box': {'at': jnp.ones((2, 4)), 'has_box': jnp.array([True, False])}}
    >>> state = make_init(recipe)(key, hyper, x)
    >>> state, metrics = jax.jit(make_step(recipe))(state, (x, y), key, hyper)
    >>> total = metrics['class'] + 0.5 * metrics['box']
    >>> bool(jnp.allclose(metrics['loss'], total))
    True
    """
    _expect_terms(terms)

    def loss(outputs: Any, targets: Any) -> Terms:
        _expect_names("outputs", terms, outputs)
        _expect_names("targets", terms, targets)
        return Terms(
            {k: _weighted(k, one(outputs[k], targets[k])) for k, (one, _) in terms.items()},
            {k: c for k, (_, c) in terms.items()},
        )

    return loss


def _weighted(name: str, found: Any) -> Weighted:
    if isinstance(found, Weighted):
        return found
    if hasattr(found, "dtype"):
        return Weighted(found, jnp.ones_like(found))
    raise ValueError(
        f"losses.combine: expected an array or a Weighted from the loss {name!r}, got "
        f"{type(found).__name__}; a combined loss cannot be a term of another"
    )


def _expect_terms(terms: Mapping[str, Any]) -> None:
    if not terms:
        raise ValueError("losses.combine: expected at least one term, got none; name the outputs")
    expect_free(terms, RESERVED)
    for name, term in terms.items():
        pair = isinstance(term, tuple) and len(term) == 2
        if not pair or not callable(term[0]) or callable(term[1]) or jnp.shape(term[1]) != ():
            raise ValueError(
                f"losses.combine: expected {name!r}: (loss, coefficient) with a scalar "
                f"coefficient, got {term!r}; a weight for each example belongs in a Weighted"
            )


def _expect_names(what: str, terms: Collection[str], given: Any) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(
            f"losses.combine: expected {what} in a dict with {sorted(terms)}, got "
            f"{type(given).__name__}; let the model and the data return dicts"
        )
    if missing := sorted(set(terms) - set(given)):
        raise ValueError(
            f"losses.combine: expected {what} for {sorted(terms)}, got none for {missing} but only "
            f"{sorted(given)}; name the terms after the outputs"
        )
