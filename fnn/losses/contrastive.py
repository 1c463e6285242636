"""Losses of embeddings: cosine, triplet and contrastive."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.autodiff import magnitude, safe_norm
from fnn.dtypes import at_least_float32
from fnn.expect import within
from fnn.losses._elements import Mask, aligned, expect_mask, expect_same_shape, masked, shown
from fnn.losses._logits import costs
from fnn.types import Scalar, Weighted

Embeddings = Float[Array, "batch features"]
Others = Float[Array, "..."]  # the same shape
PerExample = Float[Array, " batch"] | Weighted
Rows = Mask  # of the examples, (batch,)


def cosine(
    predictions: Float[Array, "*batch features"],
    targets: Float[Array, "..."],
    *,
    where: Mask = None,
) -> Float[Array, "*batch"] | Weighted:
    """1 - cosine similarity of prediction and target over the last axis.

    Args:
      predictions, targets: the same shape.
      where: mask of the same shape; True counts.

    Returns: float of shape (*batch,), in [0, 2]; 1, with gradient 0, for a vector of zeros. A
      Weighted with `where`: rows that are masked entirely have weight 0.
    Raises: ValueError if the shapes differ.

    >>> cosine(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 5.0]])).tolist()
    [1.0]
    """
    predictions, targets = aligned("cosine", predictions, targets, where)
    distance = 1 - (_unit(predictions) * _unit(targets)).sum(axis=-1)
    return masked(distance, None if where is None else where.any(axis=-1))


def _unit(x: Array) -> Array:
    """x / |x| over the last axis; 0, with derivative 0, for a vector of zeros."""
    x = x / magnitude(x, -1)
    norm = safe_norm(x, -1)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1), 0)


@within(margin="[0, inf)")
def triplet(
    anchors: Float[Array, "*batch features"],
    positives: Float[Array, "..."],
    negatives: Float[Array, "..."],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """max(0, |a - p| - |a - n| + margin): the positive is nearer than the negative by the margin.

    Args:
      anchors, positives, negatives: a, p, n, of the same shape. In a recipe: lambda z, _:
        triplet(*z).
      margin: in the unit of the embeddings; may be traced.

    Returns: float of shape (*batch,), at least 0. A distance of 0 has gradient 0.
    Raises: ValueError if the shapes differ.
    Source: Schroff, Kalenichenko & Philbin 2015, arXiv:1503.03832, equation 3. Deviates: distances,
      not their squares, and a margin of 1, as in PyTorch and Optax.

    >>> triplet(jnp.array([[0.0]]), jnp.array([[2.0]]), jnp.array([[2.5]])).tolist()
    [0.5]
    """
    a, p = aligned("triplet: positives", anchors, positives, None)
    _, n = aligned("triplet: negatives", anchors, negatives, None)
    return jax.nn.relu(_distance(a, p) - _distance(a, n) + jnp.asarray(margin, a.dtype))


def _distance(a: Array, b: Array) -> Array:
    return safe_norm(a - b, -1).squeeze(-1)


@within(temperature="(0, inf)")
def nt_xent(
    a: Embeddings, b: Others, *, temperature: Scalar = 0.1, where: Rows = None
) -> PerExample:
    """NT-Xent: cross-entropy of identifying an example's other view among all views of the batch.

        l(i, j) = -log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t)),    s = cosine similarity

    An example's loss is the mean over its two views, (i in a, j in b) and (i in b, j in a); the
    2 (batch - 1) views of the other examples are the negatives.

    Args:
      a, b: two views of each example, (batch, features). In a recipe: lambda z, _: nt_xent(*z).
      temperature: t, above 0; may be traced. The default is SimCLR's; Optax uses 0.07.
      where: mask of the examples; masked ones are not negatives either.

    Returns: float of shape (batch,), at least 0, symmetric in a and b. A Weighted with `where`.
    Raises: ValueError if the shapes differ.
    Source: Chen et al. 2020, arXiv:2002.05709, equation 1 (SimCLR).

    >>> f"{nt_xent(jnp.eye(2), jnp.eye(2), temperature=1.0)[0]:.4f}"   # log(1 + 2 / e)
    '0.5514'
    """
    views, kept = _views("nt_xent", a, b, where)
    batch = a.shape[0]
    similarity = views @ views.T / jnp.asarray(temperature, views.dtype)
    itself = jnp.eye(2 * batch, dtype=bool)
    possible = ~itself if kept is None else ~itself & jnp.tile(kept, 2)[None]
    cost = costs(jnp.where(possible, similarity, -jnp.inf))
    cost = cost.reshape(2, batch, 2, batch)  # (view, example, other view, other example)
    return masked(0.5 * (jnp.diagonal(cost[0, :, 1]) + jnp.diagonal(cost[1, :, 0])), kept)


def sigmoid_contrastive(
    a: Embeddings,
    b: Others,
    *,
    scale: Scalar = 10.0,
    bias: Scalar = -10.0,
    where: Rows = None,
) -> PerExample:
    """SigLIP: binary cross-entropy of whether two embeddings of the batch are of the same example.

        l_ij = log(1 + exp(-y_ij (scale s_ij + bias))),    s = cosine similarity
        y_ij = 1 for i = j, and -1 otherwise

    An example's loss is the mean of the sums of its row and its column of l.

    Args:
      a, b: two embeddings of each example, such as of an image and its text, (batch, features).
      scale, bias: of the logits; may be traced. The paper learns bias and log scale from these
        initial values.
      where: mask of the examples; masked ones are in no pair.

    Returns: float of shape (batch,), at least 0, symmetric in a and b. The mean over the batch is
      the loss of the paper. A Weighted with `where`.
    Raises: ValueError if the shapes differ.
    Source: Zhai et al. 2023, arXiv:2303.15343, algorithm 1 (SigLIP).

    >>> f"{sigmoid_contrastive(jnp.ones((1, 1)), jnp.ones((1, 1)))[0]:.4f}"   # log 2
    '0.6931'
    """
    views, kept = _views("sigmoid_contrastive", a, b, where)
    a, b = jnp.split(views, 2)
    logits = jnp.asarray(scale, a.dtype) * (a @ b.T) + jnp.asarray(bias, a.dtype)
    together = jnp.eye(a.shape[0], dtype=bool)
    loss = jax.nn.softplus(jnp.where(together, -logits, logits))
    loss = shown(loss, None if kept is None else kept[None] & kept[:, None])
    return masked(0.5 * (loss.sum(axis=0) + loss.sum(axis=1)), kept)


def _views(name: str, a: Array, b: Array, where: Rows) -> tuple[Array, Rows]:
    """Both as unit vectors in one array, (2 batch, features), with 0 for masked examples."""
    expect_same_shape(name, a, b)
    expect_mask(name, where, a.shape[:1])
    both = jnp.concatenate([a, b]).astype(at_least_float32(a))
    return _unit(shown(both, None if where is None else jnp.tile(where, 2)[:, None])), where
