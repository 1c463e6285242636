"""What a loss returns, checked, with a weight for each value."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.expect import expect_not_paired, spec
from fnn.losses.terms import as_one
from fnn.types import Loss, Terms, Weighted


def weighted_losses(loss: Loss, outputs: Any, targets: Any) -> Weighted:
    """The losses of a batch in at least float32, with weights of 1 where the loss has none.

    Several terms become one value per example, with the mean of all.

    Raises: ValueError unless they are floats with the batch axis first.
    """
    return as_weighted(checked_losses(loss, outputs, targets))


def as_weighted(found: Weighted | Terms, means: Mapping[str, Array] | None = None) -> Weighted:
    """Losses as they are, and terms as one; `means` as of `terms.as_one`."""
    return as_one(found, means) if isinstance(found, Terms) else found


def checked_losses(loss: Loss, outputs: Any, targets: Any) -> Weighted | Terms:
    """What the loss of a batch returns, each value with a weight, in at least float32."""
    found, batch = loss(outputs, targets), tree.length(targets)
    if not isinstance(found, Terms):
        return _checked("loss", found, outputs, targets, batch)
    losses = {
        name: _checked(f"loss {name!r}", one, outputs, targets, batch)
        for name, one in found.losses.items()
    }
    return found._replace(losses=losses)


def _checked(where: str, losses: Any, outputs: Any, targets: Any, batch: int) -> Weighted:
    if isinstance(losses, jax.Array):
        losses = Weighted(losses, jnp.ones_like(losses))
    if not isinstance(losses, Weighted):
        raise ValueError(
            f"{where}: expected an array of per-example losses or a Weighted, got "
            f"{type(losses).__name__}; return one array of shape (batch, ...)"
        )
    values, weights = losses
    if values.shape[:1] != (batch,) or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"{where}: expected floats of shape ({batch}, ...), one loss per example, got "
            f"{spec(values)}; leave the mean over the batch to the step"
        )
    if weights.shape != values.shape:
        raise ValueError(
            f"{where}: expected a Weighted with one weight per loss, {values.shape}, got weights "
            f"{weights.shape}; broadcast them"
        )
    expect_not_paired(where, values, outputs, targets)
    dtype = dtypes.at_least_float32(values)
    return Weighted(values.astype(dtype), weights.astype(dtype))
