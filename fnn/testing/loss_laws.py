"""Laws of losses: `loss(outputs, targets) -> values per example` or a `Weighted` of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.dtypes import cast_floats
from fnn.testing._compare import expect_all, expect_same, rows
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import RTOL, jit_equals_eager
from fnn.types import Weighted

Loss = Callable[[Any, Any], Any]

EXTREME = 1e4  # larger than logits in training, with squares that are finite in float32


def check_loss(
    loss: Loss, predictions: Any, targets: Any, *, rowwise: bool = True, at_least_zero: bool = True
) -> None:
    """All laws of a loss.

    Args:
      predictions, targets: a small batch of at least 3, with random values.
      rowwise: whether the loss of an example depends on that example alone.
      at_least_zero: whether the loss is non-negative.

    >>> from fnn.losses import mean_squared_error
    >>> check_loss(mean_squared_error, jnp.arange(3.0), jnp.ones(3))
    """
    predictions, targets = jax.tree.map(jnp.asarray, (predictions, targets))
    jit_equals_eager(loss, predictions, targets)
    loss_has_a_value_per_example(loss, predictions, targets)
    loss_is_finite(loss, predictions, targets)
    gradients_match_finite_differences(
        lambda p: _products(loss(p, cast_floats(targets, jnp.float64))), predictions
    )
    if rowwise:
        loss_is_rowwise(loss, predictions, targets)
    if at_least_zero:
        loss_is_at_least_zero(loss, predictions, targets)


def loss_has_a_value_per_example(loss: Loss, predictions: Any, targets: Any) -> None:
    """The first axis of the loss is the batch axis, and its dtype is float32.

    >>> from fnn.losses import mean_squared_error
    >>> loss_has_a_value_per_example(mean_squared_error, jnp.ones(3), jnp.zeros(3))
    """
    batch = len(jax.tree.leaves(predictions)[0])
    for dtype in (jnp.float32, jnp.bfloat16):
        found = jax.eval_shape(loss, *cast_floats((predictions, targets), dtype))
        values = found.values if isinstance(found, Weighted) else found
        if values.shape[:1] != (batch,) or values.dtype != jnp.float32:
            raise AssertionError(
                f"loss_has_a_value_per_example: {batch} predictions in {jnp.dtype(dtype).name} "
                f"give {values.dtype}{list(values.shape)}, and must give float32[{batch}, ...]; "
                "leave the mean to the caller, and sum in float32"
            )


def loss_is_at_least_zero(loss: Loss, predictions: Any, targets: Any) -> None:
    """The loss is non-negative for predictions of any size.

    >>> loss_is_at_least_zero(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    for size in (0.0, 1.0, 30.0):
        expect_all(
            "loss_is_at_least_zero",
            _products(loss(_times(predictions, size), targets)),
            lambda values: values >= 0,
            rule="must be at least 0",
            hint="a difference of nearly equal values may have been rounded below zero",
        )


def loss_is_finite(loss: Loss, predictions: Any, targets: Any) -> None:
    """Values and gradients are finite for predictions scaled by +-1e4.

    >>> loss_is_finite(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """

    def total(predictions: Any) -> Any:
        values = _products(loss(predictions, targets))
        return values.sum(), values

    value_and_slope = jax.jit(jax.grad(total, has_aux=True))
    for size in (EXTREME, -EXTREME):
        expect_all(
            f"loss_is_finite for predictions times {size:g}, in gradient and value",
            value_and_slope(_times(predictions, size)),
            np.isfinite,
            rule="must be finite",
            hint="work from logits, with logsumexp, softplus or log_softmax",
        )


def loss_is_rowwise(loss: Loss, predictions: Any, targets: Any, *, rtol: float = RTOL) -> None:
    """The loss of an example depends on that example alone.

    >>> loss_is_rowwise(lambda y, t: jnp.square(y - t), jnp.arange(3.0), jnp.zeros(3))
    """
    values = loss(predictions, targets)
    copies = np.zeros(tree.length(values), int)
    expect_same(
        "loss_is_rowwise",
        rows(values, copies),
        loss(*jax.tree.map(jnp.asarray, rows((predictions, targets), copies))),
        names=("among other examples", "among copies of itself"),
        rtol=rtol,
        hint="look for broadcasting of (n, 1) against (n,), or a reduction over the batch",
    )


def _products(losses: Any) -> Any:
    """The losses times their weights."""
    if not isinstance(losses, Weighted):
        return losses
    return jnp.where(losses.weights == 0, 0, losses.values) * losses.weights


def _times(predictions: Any, size: float) -> Any:
    return jax.tree.map(lambda p: jnp.asarray(p) * jnp.asarray(size, p.dtype), predictions)
