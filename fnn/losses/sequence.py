"""Losses of sequences. B batch, T frames, S labels, K = 2 S + 1 states, C classes."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from fnn.dtypes import at_least_float32, indices
from fnn.losses._elements import shown
from fnn.losses._logits import costs, logit_at
from fnn.xla import Dim

# The log-probability of impossible states: finite, so that differences are not NaN, and so large
# that adding a frame's log-probability does not change it.
_NEVER = -1e30

Lengths = Integer[Array, "..."] | None  # of shape (batch,)


def ctc(
    logits: Float[Array, "batch frames classes"],
    labels: Integer[Array, "..."],
    *,
    logit_lengths: Lengths = None,
    label_lengths: Lengths = None,
    blank: int = 0,
) -> Float[Array, " batch"]:
    """Connectionist temporal classification (CTC): negative log-likelihood of a label sequence.

        l = -log sum_a prod_t softmax(z_t)[a_t]

    over the alignments a, one class per frame, that become the labels when equal neighbors are
    merged and blanks are then removed.

    Args:
      logits: z, (batch, frames, classes).
      labels: (batch, labels), in [0, classes) without the blank.
      logit_lengths: frames per example, (batch,); all by default. Later frames have no effect.
      label_lengths: labels per example, (batch,); all by default. Later labels have no effect.
        In a recipe: lambda z, y: ctc(z, y['labels'], label_lengths=y['lengths']).
      blank: the class for no label; 0, as in PyTorch, Optax and Keras.

    Returns: float of shape (batch,), at least 0. Infinite, with gradient 0, for labels that do not
      fit into the frames (each needs one, and equal neighbors a blank in between); mask them with
      jnp.where. NaN for a label or label length out of range.
    Raises: ValueError for inconsistent shapes, and for a blank outside the classes.
    Source: Graves et al. 2006, Connectionist temporal classification, section 4.1; the recursion in
      log space, without rescaling.

    >>> f"{ctc(jnp.zeros((1, 2, 2)), jnp.array([[1]]))[0]:.4f}"   # 3 of 4 alignments: log(4 / 3)
    '0.2877'
    """
    _expect_shapes(logits, labels, logit_lengths, label_lengths, blank)
    active = _within(logit_lengths, *logits.shape[:2])  # (B, T)
    z = shown(logits.astype(at_least_float32(logits)), active[..., None])
    log_p = jnp.maximum(-costs(z), _NEVER)  # (B, T, C)
    labels = indices(labels)
    everything = jnp.full(labels.shape[0], labels.shape[1], jnp.int32)
    lengths = everything if label_lengths is None else indices(label_lengths)
    states = _states(jnp.where(_within(lengths, *labels.shape), labels, blank), blank)
    return _negative_log_likelihood(log_p, active, states, 2 * lengths, blank)


def _states(labels: Array, blank: int) -> Array:
    """The labels with a blank before, between and after them: (B, S) to (B, K)."""
    blanks = jnp.full_like(labels, blank)
    pairs = jnp.stack([blanks, labels], axis=-1).reshape(labels.shape[0], 2 * labels.shape[1])
    return jnp.concatenate([pairs, jnp.full((labels.shape[0], 1), blank, labels.dtype)], axis=1)


def _negative_log_likelihood(
    log_p: Array, active: Array, states: Array, last: Array, blank: int
) -> Array:
    """The forward recursion; `last` is the index of each example's final blank."""
    # A label may follow the previous label without a blank, unless they are equal.
    twice_before = jnp.pad(states, ((0, 0), (2, 0)), constant_values=blank)[:, :-2]
    may_skip = (states != blank) & (states != twice_before)

    def step(alpha: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        emission, is_active = frame
        reached = jnp.logaddexp(alpha, _shift(alpha, 1))
        reached = jnp.logaddexp(reached, jnp.where(may_skip, _shift(alpha, 2), _NEVER))
        return jnp.where(is_active[:, None], reached + emission, alpha), None

    # Before the first frame only the first blank is possible: it leads to itself and to a label.
    start = jnp.full(states.shape, _NEVER, log_p.dtype).at[:, 0].set(0)
    emissions = _log_p_of(log_p, states)
    alpha, _ = lax.scan(step, start, (jnp.moveaxis(emissions, 1, 0), active.T))
    on_label = jnp.where(last > 0, logit_at(alpha, jnp.maximum(last - 1, 0)), _NEVER)
    total = jnp.logaddexp(logit_at(alpha, last), on_label)
    return jnp.where(total < _NEVER / 2, jnp.inf, -total)


def _log_p_of(log_p: Array, states: Array) -> Array:
    """Log-probabilities (B, T, K) of the states (B, K), from (B, T, C)."""
    outside = jnp.where(states < 0, log_p.shape[-1], states)
    index = jnp.broadcast_to(outside[:, None], (*log_p.shape[:2], states.shape[1]))
    return jnp.take_along_axis(log_p, index, axis=-1, mode="fill")


def _shift(alpha: Array, n: int) -> Array:
    return jnp.pad(alpha, ((0, 0), (n, 0)), constant_values=_NEVER)[:, : alpha.shape[1]]


def _within(lengths: Lengths, batch: Dim, size: int) -> Bool[Array, "batch size"]:
    """Mask of the first `lengths` of `size` positions."""
    if lengths is None:
        return jnp.ones((batch, size), bool)
    return jnp.arange(size, dtype=jnp.int32)[None] < indices(lengths)[:, None]


def _expect_shapes(
    logits: Array, labels: Array, logit_lengths: Lengths, label_lengths: Lengths, blank: int
) -> None:
    batch, _, classes = logits.shape
    for name, shape, expected in (
        ("labels", labels.shape, (batch, labels.shape[-1] if labels.ndim else 0)),
        ("logit_lengths", getattr(logit_lengths, "shape", (batch,)), (batch,)),
        ("label_lengths", getattr(label_lengths, "shape", (batch,)), (batch,)),
    ):
        if shape != expected:
            raise ValueError(
                f"ctc: expected {name} of shape {expected} for logits {logits.shape}, got {shape}; "
                "give one row per example"
            )
    if not 0 <= blank < classes:
        raise ValueError(
            f"ctc: expected blank in [0, {classes}), got {blank}; it is one of the classes"
        )
