"""Losses in plain JAX as they stand in training code, and what goes wrong in them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnn import losses
from tests.mutants.family import Family

F32 = jnp.float32


def normal(*shape, seed=0, scale=1.0):
    """Random numbers."""
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), F32)


def variants(loss, *bugs):
    """The broken copies."""
    return {bug: partial(loss, bug=bug) for bug in bugs}


def picked(values, labels):
    """The value of the label."""
    return jnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]


# Classes.

LOGITS = normal(5, 4, scale=2.0)
LABELS = jnp.array([2, 0, 3, 1, 2], jnp.int32)


@jax.custom_vjp
def _without_cotangent(logits, labels):
    return jax.nn.logsumexp(logits, axis=-1) - picked(logits, labels)


_without_cotangent.defvjp(
    lambda z, y: (_without_cotangent(z, y), (z, y)),
    lambda kept, g: (
        jax.nn.softmax(kept[0]) - jax.nn.one_hot(kept[1], 4, dtype=kept[0].dtype),
        None,
    ),
)


@jax.custom_vjp
def _without_label(logits, labels):
    return jax.nn.logsumexp(logits, axis=-1) - picked(logits, labels)


_without_label.defvjp(
    lambda z, y: (_without_label(z, y), z),
    lambda z, g: (g[:, None] * jax.nn.softmax(z), None),
)


def cross_entropy(logits, labels, bug=None):
    """From the sum of the exponentials and the logit of the label."""
    if bug == "gradient by hand ignores the cotangent":
        return _without_cotangent(logits, labels)
    if bug == "gradient by hand lacks the label":
        return _without_label(logits, labels)
    if bug == "logits are clipped at ten":
        logits = jnp.clip(logits, -10, 10)
    if bug == "computed in float16":
        logits = logits.astype(jnp.float16)
    top = logits.max(axis=-1, keepdims=True)
    if bug == "maximum of the batch is subtracted":
        top = logits.max(keepdims=True)
    total = jnp.exp(logits - top).sum(axis=-1)
    log_total = jnp.log1p(total) if bug == "log1p of the sum" else jnp.log(total)
    if bug != "maximum is not added back":
        log_total = log_total + top[:, 0]
    if bug == "normalizer has no gradient":
        log_total = jax.lax.stop_gradient(log_total)
    log_p = logits - log_total[:, None]
    if bug == "taken from the flat array":
        return -jnp.take(log_p, labels)
    if bug == "columns of all labels":
        return -log_p[:, labels].mean(axis=-1)
    if bug == "rows of the labels":
        return -log_p[labels].mean(axis=-1)
    if bug == "probability instead of its logarithm":
        return 1 - jnp.exp(picked(log_p, labels))
    if bug == "computed in float16":
        return -picked(log_p, labels).astype(F32)
    return -picked(log_p, labels)


def smoothed(logits, labels, bug=None, amount=0.2):
    """(1 - a) cross-entropy + a times the mean cost of all classes."""
    log_p = jax.nn.log_softmax(logits)
    own, mean = -picked(log_p, labels), -log_p.mean(axis=-1)
    if bug == "sum over the classes":
        mean = -log_p.sum(axis=-1)
    if bug == "mean of the logits":
        mean = -logits.mean(axis=-1)
    if bug == "mean has no gradient":
        mean = jax.lax.stop_gradient(mean)
    if bug == "other classes only":
        mean = (-log_p.sum(axis=-1) - own) / (logits.shape[-1] - 1)
    if bug == "full weight of the label":
        return own + amount * mean
    if bug == "predictions are smoothed":
        p = (1 - amount) * jax.nn.softmax(logits) + amount / logits.shape[-1]
        return -jnp.log(picked(p, labels))
    if bug == "most likely class is smoothed":
        own = -log_p.max(axis=-1)
    return (1 - amount) * own + amount * mean


TOKEN_LOGITS = normal(3, 5, 4, seed=1)
TOKENS = jnp.array([[1, 0, 3, 2, -1], [2, 2, 0, -1, -1], [3, 1, 0, 1, 2]], jnp.int32)


def ignoring(logits, labels, bug=None):
    """Mean over the tokens whose label is not -1."""
    if bug == "shifted once more":
        logits, labels = logits[:, :-1], labels[:, 1:]
    log_p = jax.nn.log_softmax(logits)
    kept = labels != (-100 if bug == "another index is ignored" else -1)
    if bug == "class 0 is ignored too":
        kept = labels > 0
    if bug == "mask of the token before":
        kept = jnp.roll(kept, 1, axis=1)
    index = labels if bug == "another index is ignored" else jnp.maximum(labels, 0)
    cost = -picked(log_p, index)
    if bug == "ignored tokens count as class 0":
        return cost.mean()
    cost = jnp.where(kept, cost, 0)
    count = kept.sum().astype(F32)
    if bug == "zeros count in the mean":
        return cost.mean()
    if bug == "sum over time, mean over the batch":
        return cost.sum() / len(labels)
    if bug == "mean of the means of sequences":
        return (cost.sum(axis=1) / kept.sum(axis=1).astype(F32)).mean()
    if bug == "perplexity":
        return jnp.exp(cost.sum() / count)
    return cost.sum() / count


MASKED_LABELS = jnp.array([[1, 0, 2, 2], [2, 1, 0, 1], [0, 0, 1, 2], [1, 2, 2, 0]], jnp.int32)


def masked(logits, labels, where=None, bug=None):
    """Mean over the tokens that the mask keeps."""
    kept = jnp.ones(labels.shape, bool) if where is None else where
    if bug == "mask is taken for a length":
        count = kept.sum(axis=1, keepdims=True)
        kept = jnp.arange(labels.shape[1], dtype=count.dtype)[None] < count
    if bug == "mask of the next token":
        kept = jnp.roll(kept, -1, axis=1)
    if bug == "first token decides":
        kept = jnp.broadcast_to(kept[:, :1], kept.shape)
    safe = jnp.where(kept[..., None], logits, 0)
    if bug in ("costs times the mask", "costs replaced after the formula"):
        safe = logits
    cost = -picked(jax.nn.log_softmax(safe), labels)
    weights = kept.astype(cost.dtype)
    total = (cost * weights).sum()
    if bug == "costs replaced after the formula":
        total = jnp.where(kept, cost, 0).sum()
    count = weights.sum()
    if bug == "divided by all tokens":
        return total / labels.size
    if bug == "divided by the kept sequences":
        return total / jnp.maximum(kept.any(axis=1).sum().astype(F32), 1)
    if bug == "mean of the means of rows":
        return ((cost * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)).mean()
    if bug == "nothing guards an empty mask":
        return total / count
    if bug == "one more than the count":
        return total / (count + 1)
    return total / jnp.maximum(count, 1)


CLASS_WEIGHTS = jnp.array([0.5, 1.0, 2.0, 4.0], F32)


def weighted(logits, labels, bug=None):
    """Rows weigh as much as their class: the weighted mean."""
    log_p = jax.nn.log_softmax(logits)
    w = CLASS_WEIGHTS[labels]
    if bug == "weights of the predicted class":
        w = CLASS_WEIGHTS[jnp.argmax(logits, axis=-1)]
    if bug == "weights of the class below":
        w = CLASS_WEIGHTS[labels - 1]
    if bug == "inverse weights":
        w = 1 / w
    if bug == "weights by position in the batch":
        w = jnp.resize(CLASS_WEIGHTS, labels.shape)
    cost = -picked(log_p, labels)
    if bug == "weights times the logits":
        cost = -picked(jax.nn.log_softmax(logits * CLASS_WEIGHTS[None]), labels)
    if bug == "divided by the batch":
        return (w * cost).mean()
    if bug == "divided by the weights of all classes":
        return (w * cost).sum() / CLASS_WEIGHTS.sum()
    if bug == "mean of costs by mean of weights of the classes":
        return (w * cost).mean() / CLASS_WEIGHTS.mean()
    return (w * cost).sum() / w.sum()


SCORES = normal(6, seed=2, scale=1.5).at[4].set(0.0)
YES = jnp.array([1, 0, 0, 1, 0, 1], F32)


def positive_weighted(logits, targets, bug=None, weight=3.0):
    """Binary cross-entropy of one logit, where positives count three times."""
    positive, negative = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    if bug == "pieces with another slope at zero":
        positive = jnp.maximum(-logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
        negative = positive + logits
    if bug == "exponential of the absolute value":
        positive = jnp.maximum(-logits, 0) + jnp.log1p(jnp.exp(jnp.abs(logits)))
        negative = positive + logits
    if bug == "sigmoid twice":
        p = jax.nn.sigmoid(logits)
        positive, negative = jax.nn.softplus(-p), jax.nn.softplus(p)
    if bug == "negatives are weighted":
        return targets * positive + weight * (1 - targets) * negative
    if bug == "both are weighted":
        return weight * (targets * positive + (1 - targets) * negative)
    if bug == "weight is added to the logits":
        z = logits + np.log(weight)
        return targets * jax.nn.softplus(-z) + (1 - targets) * jax.nn.softplus(z)
    if bug == "divided by the weights":
        return (weight * targets * positive + (1 - targets) * negative) / (1 + weight)
    if bug == "column against row":
        column = targets[:, None]
        return (weight * column * positive[None] + (1 - column) * negative[None]).mean(axis=0)
    if bug == "hard predictions":
        return jnp.where((logits > 0) == (targets > 0), negative * 0, weight * positive)
    return weight * targets * positive + (1 - targets) * negative


def focal(logits, labels, bug=None, gamma=2.0):
    """-(1 - p)^2 log p of the label."""
    log_p = picked(jax.nn.log_softmax(logits), labels)
    p = jnp.exp(log_p)
    focus = jnp.square(-jnp.expm1(log_p))
    if bug == "focus has no gradient":
        focus = jax.lax.stop_gradient(focus)
    if bug == "one minus the power":
        focus = 1 - p**gamma
    if bug == "focus of the most likely class":
        focus = jnp.square(1 - jax.nn.softmax(logits).max(axis=-1))
    if bug == "gamma as a factor":
        focus = gamma * (1 - p)
    if bug == "focus of the mean of the batch":
        focus = jnp.square(1 - p.mean())
    if bug == "focus by the cost":
        focus = jnp.square(log_p)
    if bug == "eps in the logarithm":
        return -focus * jnp.log(p + 1e-3)
    return -focus * log_p


def crammer_singer(scores, labels, bug=None):
    """max(0, 1 + largest other score - score of the label)."""
    own = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
    label = jnp.where(own, scores, 0).sum(axis=-1)
    others = jnp.where(own, -jnp.inf, scores)
    if bug == "label competes with itself":
        others = scores
    if bug == "label is replaced by zero":
        others = jnp.where(own, 0, scores)
    if bug == "sum over the classes":
        return jnp.where(own, 0, jax.nn.relu(1 + scores - label[:, None])).sum(axis=-1)
    if bug == "mean of the others":
        return jax.nn.relu(1 + jnp.where(own, 0, scores).sum(axis=-1) / 3 - label)
    if bug == "best of the batch":
        return jax.nn.relu(1 + others.max() - label)
    if bug == "margin is left out":
        return jax.nn.relu(others.max(axis=-1) - label)
    if bug == "margin outside of the maximum":
        return 1 + jax.nn.relu(others.max(axis=-1) - label)
    return jax.nn.relu(1 + others.max(axis=-1) - label)


# Numbers.

COLUMN, VALUES = normal(6, 1, seed=3), normal(6, seed=4)


def column_squared(y, t, bug=None):
    """Squared error of a model with one output (batch, 1) for targets (batch,)."""
    error = y[:, 0] - t
    if bug == "every prediction against every target, mean":
        return jnp.square(y - t[None]).mean()
    if bug == "every prediction against every target, rows":
        return jnp.square(y - t[None]).mean(axis=1)
    if bug == "targets as integers":
        error = y[:, 0] - t.astype(jnp.int32).astype(F32)
    if bug == "one factor without gradient":
        return error * jax.lax.stop_gradient(error)
    if bug == "difference of squares":
        return jnp.square(y[:, 0]) - jnp.square(t)
    if bug == "difference of sizes":
        return jnp.square(jnp.abs(y[:, 0]) - jnp.abs(t))
    if bug == "error is clipped at one":
        error = jnp.clip(error, -1, 1)
    if bug == "relative to the target":
        error = error / (jnp.abs(t) + 0.1)
    if bug == "divided by the variance of the batch":
        return jnp.square(error) / t.var()
    if bug == "targets are standardized":
        error = y[:, 0] - (t - t.mean()) / t.std()
    if bug == "mean is taken twice":
        return jnp.square(error).mean() / len(t)
    if bug == "computed in float16":
        return jnp.square(error.astype(jnp.float16)).astype(F32)
    return jnp.square(error)


OUTPUTS, TARGETS = normal(5, 3, seed=5, scale=1.5), normal(5, 3, seed=6)


def huber(y, t, bug=None, delta=0.5):
    """Quadratic up to errors of a half."""
    error = y - t
    if bug == "error is averaged over the batch first":
        error = jnp.broadcast_to(error.mean(axis=0, keepdims=True), error.shape)
    size = jnp.abs(error)
    small = 0.5 * jnp.square(error)
    large = delta * (size - 0.5 * delta)
    if bug == "slope of one":
        large = size - 0.5 * delta
    if bug == "threshold of one":
        return jnp.where(size <= 1, small, size - 0.5).mean(axis=-1)
    if bug == "signed error is compared":
        return jnp.where(error <= delta, small, large).mean(axis=-1)
    if bug == "divided by the threshold":
        return (jnp.where(size <= delta, small, large) / delta).mean(axis=-1)
    if bug == "square without its half":
        small = jnp.square(error)
    if bug == "mean error decides":
        use = size.mean(axis=-1, keepdims=True) <= delta
        return jnp.where(use, small, large).mean(axis=-1)
    if bug == "offset is twice as large":
        large = delta * (size - delta)
    return jnp.where(size <= delta, small, large).mean(axis=-1)


def log_cosh(y, t, bug=None):
    size = jnp.abs(y - t)
    log_two = float(np.log(2))
    if bug == "logarithm of cosh":
        return jnp.log(jnp.cosh(y - t)).mean(axis=-1)
    if bug == "exponent without its two":
        return (size + jax.nn.softplus(-size) - log_two).mean(axis=-1)
    if bug == "logarithm of two is missing":
        return (size + jax.nn.softplus(-2 * size)).mean(axis=-1)
    if bug == "exponent of the wrong sign":
        return (size + jax.nn.softplus(2 * size) - log_two).mean(axis=-1)
    if bug == "sum over the outputs":
        return (size + jax.nn.softplus(-2 * size) - log_two).sum(axis=-1)
    if bug == "cosh by its series":
        return jnp.log1p(0.5 * jnp.square(size)).mean(axis=-1)
    return (size + jax.nn.softplus(-2 * size) - log_two).mean(axis=-1)


LEVELS = jnp.array([0.1, 0.5, 0.8], F32)


def quantiles(y, t, bug=None):
    """Three quantiles of each target."""
    error = t[:, None] - y
    q = LEVELS[None]
    if bug == "quantiles in reverse":
        q = q[:, ::-1]
    if bug == "prediction minus target":
        error = -error
    if bug == "targets averaged over the batch":
        error = t.mean() - y
    if bug == "median for all":
        q = jnp.full_like(q, 0.5)
    if bug == "quantiles in percent":
        q = 100 * q
    if bug == "side is not subtracted":
        return jnp.where(error > 0, q * error, -q * error).mean(axis=-1)
    if bug == "sum over the quantiles":
        return jnp.maximum(q * error, (q - 1) * error).sum(axis=-1)
    if bug == "largest of the quantiles":
        return jnp.maximum(q * error, (q - 1) * error).max(axis=-1)
    return jnp.maximum(q * error, (q - 1) * error).mean(axis=-1)


def density(y, t, bug=None):
    """Negative logarithm of a normal density, of a mean and the softplus of a raw scale."""
    mean, raw = y[:, 0], y[:, 1]
    if bug == "mean and scale swapped":
        mean, raw = raw, mean
    scale = jax.nn.softplus(raw) + 0.1
    if bug == "scale is not made positive":
        scale = raw
    if bug == "least scale is forgotten":
        scale = jax.nn.softplus(raw)
    if bug == "scale has no gradient":
        scale = jax.lax.stop_gradient(scale)
    half_log = 0.5 * float(np.log(2 * np.pi))
    if bug == "constant is missing":
        half_log = 0.0
    if bug == "logarithm of the variance":
        return 0.5 * jnp.square((t - mean) / scale) + 2 * jnp.log(scale) + half_log
    if bug == "square by the scale once":
        return 0.5 * jnp.square(t - mean) / scale + jnp.log(scale) + half_log
    if bug == "half of the square is missing":
        return jnp.square((t - mean) / scale) + jnp.log(scale) + half_log
    if bug == "scale of the batch":
        scale = jnp.broadcast_to(scale.mean(), scale.shape)
    if bug == "likelihood instead of its negative":
        return -0.5 * jnp.square((t - mean) / scale) - jnp.log(scale) - half_log
    return 0.5 * jnp.square((t - mean) / scale) + jnp.log(scale) + half_log


# Distributions.


def distilled(student, teacher, bug=None, temperature=2.0):
    """Divergence from the softened teacher to the softened student, times the square."""
    log_q = jax.nn.log_softmax(student / temperature)
    log_p = jax.nn.log_softmax(teacher / temperature)
    factor = temperature**2
    if bug == "square of the temperature is missing":
        factor = 1.0
    if bug == "divided by the square":
        factor = temperature**-2
    if bug == "temperature of the teacher only":
        log_q = jax.nn.log_softmax(student)
    if bug == "logarithm divided by the temperature":
        log_q = jax.nn.log_softmax(student) / temperature
    if bug == "softmax of the teacher over the batch":
        log_p = jax.nn.log_softmax(teacher / temperature, axis=0)
    if bug == "student and teacher swapped":
        log_p, log_q = log_q, log_p
    if bug == "teacher as probabilities":
        return factor * (teacher * (log_p - log_q)).sum(axis=-1)
    if bug == "entropy of the teacher is missing":
        return -factor * (jnp.exp(log_p) * log_q).sum(axis=-1)
    if bug == "most likely class of the teacher":
        return -factor * picked(log_q, jnp.argmax(teacher, axis=-1))
    return factor * (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def halves(width, *shape, seed):
    """Means and log variances."""
    return {
        "mean": normal(*shape, width, seed=seed),
        "log_var": normal(*shape, width, seed=seed + 1),
    }


POSTERIOR, PRIOR = halves(3, 5, seed=7), halves(3, 5, seed=17)


def normal_divergence(q, p, bug=None):
    """KL divergence of two diagonal normal distributions, bounded in the log variance."""
    if bug == "posterior and prior swapped":
        q, p = p, q
    s, r = (30 * jnp.tanh(v["log_var"] / 30) for v in (q, p))
    error = jnp.square(q["mean"] - p["mean"])
    if bug == "log variance as log scale":
        s, r = 2 * s, 2 * r
    if bug == "prior of variance one":
        r = jnp.zeros_like(r)
    if bug == "mean of the prior is forgotten":
        error = jnp.square(q["mean"])
    if bug == "error over the variance of the posterior":
        return 0.5 * (r - s + jnp.exp(s - r) + error * jnp.exp(-s) - 1).sum(axis=-1)
    if bug == "one is not subtracted":
        return 0.5 * (r - s + jnp.exp(s - r) + error * jnp.exp(-r)).sum(axis=-1)
    if bug == "logarithms of the wrong sign":
        return 0.5 * (s - r + jnp.exp(s - r) + error * jnp.exp(-r) - 1).sum(axis=-1)
    if bug == "half is missing":
        return (r - s + jnp.exp(s - r) + error * jnp.exp(-r) - 1).sum(axis=-1)
    if bug == "mean over the dimensions":
        return 0.5 * (r - s + jnp.exp(s - r) + error * jnp.exp(-r) - 1).mean(axis=-1)
    return 0.5 * (r - s + jnp.exp(s - r) + error * jnp.exp(-r) - 1).sum(axis=-1)


# Embeddings.


def unit(v, axis=-1):
    """Unit vectors; 0 for 0."""
    square = jnp.square(v).sum(axis=axis, keepdims=True)
    return jnp.where(square > 0, v / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def cosine(y, t, bug=None):
    """1 - cosine of the angle of prediction and target."""
    a, b = unit(y), unit(t)
    if bug == "unit vectors over the batch":
        a, b = unit(y, 0), unit(t, 0)
    if bug == "target is not normalized":
        b = t
    if bug == "norm has no gradient":
        a = y / jax.lax.stop_gradient(jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-12)
    if bug == "angle instead of its cosine":
        return jnp.arccos((a * b).sum(axis=-1))
    if bug == "one minus the square":
        return 1 - jnp.square((a * b).sum(axis=-1))
    if bug == "half of it":
        return 0.5 * (1 - (a * b).sum(axis=-1))
    if bug == "mean over the features":
        return 1 - (a * b).mean(axis=-1)
    if bug == "target of the neighbor":
        b = jnp.roll(b, 1, axis=0)
    if bug == "division by zero for zeros":
        a = y / jnp.sqrt(jnp.square(y).sum(axis=-1, keepdims=True))
    return 1 - (a * b).sum(axis=-1)


ONE_VIEW, OTHER_VIEW = normal(4, 3, seed=9), normal(4, 3, seed=10)


def nt_xent(a, b, bug=None, temperature=0.5):
    """Each view to the other of its example among the views of the batch (SimCLR)."""
    n = len(a)
    views = jnp.concatenate([unit(a), unit(b)])
    if bug == "unit vectors of the whole batch":
        views = jnp.concatenate([a, b])
        views = views / jnp.sqrt(jnp.square(views).sum() + 1e-12)
    logits = views @ views.T / (1.0 if bug == "temperature of one" else temperature)
    own = jnp.eye(2 * n, dtype=bool)
    if bug == "itself is among the candidates":
        own = jnp.zeros_like(own)
    logits = jnp.where(own, 0 if bug == "itself is masked by zero" else -jnp.inf, logits)
    partner = (jnp.arange(2 * n) + n) % (2 * n)
    if bug == "partner is the next view":
        partner = (jnp.arange(2 * n) + 1) % (2 * n)
    if bug == "views taken for neighbors":
        partner = jnp.arange(2 * n) ^ 1
    if bug == "positive is left out of the sum":
        rest = jnp.where(jax.nn.one_hot(partner, 2 * n, dtype=bool), -jnp.inf, logits)
        cost = jax.nn.logsumexp(rest, axis=-1) - picked(logits, partner)
    elif bug == "other views without gradient":
        still = jnp.where(own, -jnp.inf, views @ jax.lax.stop_gradient(views).T / temperature)
        cost = -picked(jax.nn.log_softmax(still), partner)
    else:
        cost = -picked(jax.nn.log_softmax(logits), partner)
    if bug == "one direction only":
        return cost[:n]
    if bug == "sum of both directions":
        return cost[:n] + cost[n:]
    return 0.5 * (cost[:n] + cost[n:])


def sigmoid_pairs(a, b, bug=None, scale=3.0, bias=-1.0):
    """A binary decision for each pair of the batch (SigLIP), rows and columns averaged."""
    n = len(a)
    logits = scale * unit(a) @ unit(b).T + bias
    sign = 2 * jnp.eye(n, dtype=F32) - 1
    if bug == "zeros as signs of the negatives":
        sign = jnp.eye(n, dtype=F32)
    if bug == "bias is subtracted":
        logits = logits - 2 * bias
    if bug == "signs swapped":
        sign = -sign
    if bug == "bias is not signed":
        cost = jax.nn.softplus(-(sign * (logits - bias) + bias))
    else:
        cost = jax.nn.softplus(-sign * logits)
    if bug == "mean over the pairs":
        return 0.5 * (cost.mean(axis=0) + cost.mean(axis=1))
    if bug == "positives only":
        return jnp.diagonal(cost)
    if bug == "similarities are not bounded":
        return jax.nn.softplus(-sign * (scale * a @ unit(b).T + bias)).sum(axis=1)
    return 0.5 * (cost.sum(axis=0) + cost.sum(axis=1))


ANCHORS = normal(5, 3, seed=11)
OTHERS = {
    "near": normal(5, 3, seed=12).at[1].set(0.0),
    "far": normal(5, 3, seed=13),
}


def triplet(a, others, bug=None, margin=0.5):
    """max(0, |a - near| - |a - far| + margin)."""
    near, far = others["near"], others["far"]

    def distance(u, v):
        square = jnp.square(u - v).sum(axis=-1)
        if bug == "root of zero":
            return jnp.sqrt(square)
        if bug == "mean over the features":
            square = square / u.shape[-1]
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    if bug == "far one of the neighbor":
        far = jnp.roll(far, 1, axis=0)
    gap = distance(a, near) - distance(a, far)
    if bug == "one distance is squared":
        gap = jnp.square(distance(a, near)) - distance(a, far)
    if bug == "far from the near one":
        gap = distance(a, near) - distance(near, far)
    if bug == "far one has no gradient":
        gap = distance(a, near) - distance(jax.lax.stop_gradient(a), far)
    if bug == "margin after the cut":
        return jax.nn.relu(gap) + margin
    if bug == "mean before the cut":
        return jax.nn.relu(gap.mean() + margin)
    if bug == "softened cut":
        return jax.nn.softplus(gap + margin)
    if bug == "near and far swapped":
        return jax.nn.relu(margin - gap)
    return jax.nn.relu(gap + margin)


# Preferences and values.

CHOSEN = {"chosen": normal(5, seed=14), "rejected": normal(5, seed=15)}
REFERENCE = {"chosen": normal(5, seed=16), "rejected": normal(5, seed=20)}


def preference(policy, reference, bug=None, beta=0.5):
    """Direct preference optimization from log-probabilities of policy and reference."""
    ours = policy["chosen"] - policy["rejected"]
    theirs = reference["chosen"] - reference["rejected"]
    if bug == "reference is added":
        theirs = -theirs
    if bug == "reference is forgotten":
        theirs = jnp.zeros_like(theirs)
    if bug == "chosen and rejected swapped":
        ours, theirs = -ours, -theirs
    if bug == "rejected has no gradient":
        ours = policy["chosen"] - jax.lax.stop_gradient(policy["rejected"])
    if bug == "beta for the policy only":
        return jax.nn.softplus(-(beta * ours - theirs))
    if bug == "divided by beta":
        return jax.nn.softplus(-(ours - theirs) / beta)
    if bug == "logarithm of the sigmoid":
        return -jnp.log(jax.nn.sigmoid(beta * (ours - theirs)))
    if bug == "mean margin":
        return jax.nn.softplus(-beta * (ours - theirs).mean())
    return jax.nn.softplus(-beta * (ours - theirs))


ACTION_VALUES = normal(5, 3, seed=21)
STEPS = {
    "action": jnp.array([0, 2, 1, 1, 2], jnp.int32),
    "reward": normal(5, seed=22),
    "done": jnp.array([0, 1, 0, 0, 1], F32),
    "next": normal(5, 3, seed=23),
}


def temporal_difference(values, step, bug=None, discount=0.9):
    """Squared error of the values of the actions taken (Q-learning)."""
    later = step["next"].max(axis=-1)
    if bug == "maximum over the batch":
        later = jnp.broadcast_to(step["next"].max(), later.shape)
    if bug == "next value of the same action":
        later = picked(step["next"], step["action"])
    going = 1 - step["done"]
    if bug == "done is not read":
        going = jnp.ones_like(going)
    if bug == "done inverted":
        going = step["done"]
    target = step["reward"] + discount * going * later
    if bug == "reward is discounted too":
        target = discount * (step["reward"] + going * later)
    if bug == "reward ends with the episode":
        target = going * (step["reward"] + discount * later)
    now = picked(values, step["action"])
    if bug == "columns of all actions":
        return jnp.square(values[:, step["action"]] - target[:, None]).mean(axis=-1)
    if bug == "best action instead of the taken":
        now = values.max(axis=-1)
    if bug == "error is clipped":
        return jnp.square(jnp.clip(now - target, -1, 1))
    return jnp.square(now - target)


# Regions and sequences.

PIXELS = normal(4, 3, 3, seed=24, scale=1.5)
REGIONS = jnp.asarray(np.random.default_rng(5).integers(2, size=(4, 3, 3)), F32).at[2].set(0.0)


def dice(logits, regions, bug=None):
    """1 - (2 overlap + 1) / (sum of both + 1) of each image."""
    p = jax.nn.sigmoid(logits)
    if bug == "no sigmoid":
        p = logits
    if bug == "hard predictions":
        p = (logits > 0).astype(F32)
    axes = (0, 1, 2) if bug == "sums over the batch" else (1, 2)
    overlap = (p * regions).sum(axis=axes)
    both = p.sum(axis=axes) + regions.sum(axis=axes)
    if bug == "squares below":
        both = jnp.square(p).sum(axis=axes) + jnp.square(regions).sum(axis=axes)
    if bug == "intersection over union":
        return 1 - (overlap + 1) / (both - overlap + 1)
    if bug == "factor of two is missing":
        return 1 - (overlap + 1) / (both + 1)
    if bug == "nothing is added":
        return 1 - 2 * overlap / both
    if bug == "one is added below only":
        return 1 - 2 * overlap / (both + 1)
    if bug == "means instead of sums":
        return 1 - (2 * overlap / 9 + 1) / (both / 9 + 1)
    if bug == "logarithm":
        return -jnp.log((2 * overlap + 1) / (both + 1))
    if bug == "background counts too":
        empty = ((1 - p) * (1 - regions)).sum(axis=axes)
        return 1 - (2 * overlap + 2 * empty + 1) / (18 + 1)
    return 1 - (2 * overlap + 1) / (both + 1)


FRAMES = normal(3, 6, 4, seed=25)
WORDS = {
    "labels": jnp.array([[1, 1, 2], [3, 2, 1], [2, 3, 3]], jnp.int32),
    "lengths": jnp.array([3, 2, 3], jnp.int32),
}


def ctc(logits, words, bug=None):
    """The forward recursion over labels with blanks (class 0) between."""
    never = -1e30
    labels, lengths = words["labels"], words["lengths"]
    log_p = logits if bug == "logits are not normalized" else jax.nn.log_softmax(logits)
    batch, count = labels.shape
    blank = logits.shape[-1] - 1 if bug == "last class as blank" else 0
    states = jnp.full((batch, 2 * count + 1), blank, jnp.int32).at[:, 1::2].set(labels)
    before = jnp.roll(states, 2, axis=1)
    skips = (states != blank) & (jnp.arange(2 * count + 1)[None] >= 2)
    if bug != "skips between equal labels":
        skips = skips & (states != before)
    if bug == "blanks are never skipped":
        skips = jnp.zeros_like(skips)
    add = jnp.maximum if bug == "best path instead of all" else jnp.logaddexp

    def shifted(a, n):
        return jnp.pad(a, ((0, 0), (n, 0)), constant_values=never)[:, : a.shape[1]]

    emissions = jnp.take_along_axis(log_p, states[:, None], axis=-1)
    starts = 1 if bug == "starts with a blank" else 2
    alpha = jnp.where(jnp.arange(2 * count + 1)[None] < starts, emissions[:, 0], never)
    for t in range(1, logits.shape[1]):
        reached = add(alpha, shifted(alpha, 1))
        reached = add(reached, jnp.where(skips, shifted(alpha, 2), never))
        alpha = reached + emissions[:, t - 1 if bug == "emissions of the frame before" else t]
    if bug == "lengths are not read":
        lengths = jnp.full_like(lengths, count)
    on_blank, on_label = picked(alpha, 2 * lengths), picked(alpha, 2 * lengths - 1)
    if bug == "ends with a blank":
        return -on_blank
    if bug == "divided by the frames":
        return -add(on_blank, on_label) / logits.shape[1]
    return -add(on_blank, on_label)


SCORES_OF_TAGS = normal(3, 4, 3, seed=26)
TAGS = jnp.array([[0, 2, 1, 1], [2, 2, 0, 1], [1, 0, 0, 2]], jnp.int32)
TRANSITIONS = normal(3, 3, seed=27)  # from the tag before to the tag


def chain(scores, tags, bug=None):
    """Negative log-likelihood of a chain of tags with given transitions (CRF)."""
    moves = TRANSITIONS.T if bug == "transitions of the sum transposed" else TRANSITIONS
    alpha = scores[:, 0]
    if bug == "first scores are left out of the sum":
        alpha = jnp.zeros_like(alpha)
    for t in range(1, scores.shape[1]):
        both = alpha[:, :, None] + moves[None]
        if bug == "best path instead of all":
            alpha = both.max(axis=1) + scores[:, t]
        elif bug == "sum over the later tag":
            alpha = jax.nn.logsumexp(both, axis=2) + scores[:, t]
        else:
            alpha = jax.nn.logsumexp(both, axis=1) + scores[:, t]
    total = alpha.max(axis=-1) if bug == "best last tag" else jax.nn.logsumexp(alpha, axis=-1)
    own = picked(scores, tags)
    pairs = TRANSITIONS[tags[:, :-1], tags[:, 1:]]
    if bug == "transitions of the tags are left out":
        pairs = jnp.zeros_like(pairs)
    if bug == "tag of the step before":
        own = picked(scores, jnp.roll(tags, 1, axis=1))
    if bug == "mean score of the tags":
        return total - own.mean(axis=1) - pairs.sum(axis=1)
    return total - own.sum(axis=1) - pairs.sum(axis=1)


def chain_reference(scores, tags):
    """All 81 chains."""
    chains = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    hot = jax.nn.one_hot(chains, 3, dtype=scores.dtype)
    moves = TRANSITIONS[chains[:, :-1], chains[:, 1:]].sum(axis=1).astype(scores.dtype)
    energies = jnp.einsum("btk,ntk->bn", scores, hot) + moves[None]
    place = (tags * jnp.array([27, 9, 3, 1], jnp.int32)[None]).sum(axis=1)
    return -picked(jax.nn.log_softmax(energies), place)


def row_means(values):
    """A value per example of a loss per element."""
    return values.mean(axis=-1)


FAMILIES = [
    Family(
        kind="loss",
        name="cross-entropy from exponentials",
        base=cross_entropy,
        args=(LOGITS, LABELS),
        declared={"best": "labels", "symmetries": ("shift", "classes")},
        like={"like": losses.cross_entropy},
        bugs=variants(
            cross_entropy,
            "gradient by hand ignores the cotangent",
            "gradient by hand lacks the label",
            "logits are clipped at ten",
            "computed in float16",
            "maximum of the batch is subtracted",
            "log1p of the sum",
            "maximum is not added back",
            "normalizer has no gradient",
            "taken from the flat array",
            "columns of all labels",
            "rows of the labels",
            "probability instead of its logarithm",
        ),
    ),
    Family(
        kind="loss",
        name="smoothing as a mean of costs",
        base=smoothed,
        args=(LOGITS, LABELS),
        declared={
            "best": lambda y: jnp.log(0.8 * jax.nn.one_hot(y, 4) + 0.05),
            "symmetries": ("shift", "classes"),
        },
        like={"like": partial(losses.cross_entropy, label_smoothing=0.2)},
        bugs=variants(
            smoothed,
            "sum over the classes",
            "mean of the logits",
            "mean has no gradient",
            "other classes only",
            "full weight of the label",
            "predictions are smoothed",
            "most likely class is smoothed",
        ),
    ),
    Family(
        kind="loss",
        name="tokens with an ignored index",
        base=ignoring,
        args=(TOKEN_LOGITS, TOKENS),
        needed={"rowwise": False},
        declared={"best": "labels", "symmetries": ("shift", "classes")},
        like={"like": lambda z, y: losses.cross_entropy(z, y, ignore_index=-1).mean()},
        bugs=variants(
            ignoring,
            "shifted once more",
            "another index is ignored",
            "class 0 is ignored too",
            "mask of the token before",
            "ignored tokens count as class 0",
            "zeros count in the mean",
            "sum over time, mean over the batch",
            "mean of the means of sequences",
            "perplexity",
        ),
    ),
    Family(
        kind="loss",
        name="tokens under a mask",
        base=masked,
        args=(normal(4, 4, 3, seed=8), MASKED_LABELS),
        declared={"where": True, "best": "labels", "symmetries": ("shift", "classes")},
        like={
            "like": lambda z, y, where=None: (
                losses.cross_entropy(z, y).mean()
                if where is None
                else losses.cross_entropy(z, y, where=where).mean()
            )
        },
        bugs=variants(
            masked,
            "mask is taken for a length",
            "mask of the next token",
            "first token decides",
            "costs times the mask",
            "costs replaced after the formula",
            "divided by all tokens",
            "divided by the kept sequences",
            "mean of the means of rows",
            "nothing guards an empty mask",
            "one more than the count",
        ),
    ),
    Family(
        kind="loss",
        name="weights of classes",
        base=weighted,
        args=(LOGITS, LABELS),
        needed={"rowwise": False},
        declared={"best": "labels", "symmetries": ("shift",)},
        like={"like": lambda z, y: losses.cross_entropy(z, y, class_weights=CLASS_WEIGHTS).mean()},
        bugs=variants(
            weighted,
            "weights of the predicted class",
            "weights of the class below",
            "inverse weights",
            "weights by position in the batch",
            "weights times the logits",
            "divided by the batch",
            "divided by the weights of all classes",
            "mean of costs by mean of weights of the classes",
        ),
    ),
    Family(
        kind="loss",
        name="one logit with a weight of the positives",
        base=positive_weighted,
        args=(SCORES, YES),
        declared={"best": "labels", "bounds": (0.0, 1.0)},
        like={"like": lambda z, y: optax.sigmoid_binary_cross_entropy(z, y) * (1 + 2 * y)},
        bugs=variants(
            positive_weighted,
            "pieces with another slope at zero",
            "exponential of the absolute value",
            "sigmoid twice",
            "negatives are weighted",
            "both are weighted",
            "weight is added to the logits",
            "divided by the weights",
            "column against row",
            "hard predictions",
        ),
    ),
    Family(
        kind="loss",
        name="focal loss of classes",
        base=focal,
        args=(LOGITS, LABELS),
        declared={"best": "labels", "likelihood": False, "symmetries": ("shift", "classes")},
        like={"like": losses.focal},
        bugs=variants(
            focal,
            "focus has no gradient",
            "one minus the power",
            "focus of the most likely class",
            "gamma as a factor",
            "focus of the mean of the batch",
            "focus by the cost",
            "eps in the logarithm",
        ),
    ),
    Family(
        kind="loss",
        name="hinge of classes",
        base=crammer_singer,
        args=(LOGITS, LABELS),
        declared={"best": "labels", "likelihood": False, "symmetries": ("shift", "classes")},
        like={"like": losses.multiclass_hinge},
        bugs=variants(
            crammer_singer,
            "label competes with itself",
            "label is replaced by zero",
            "sum over the classes",
            "mean of the others",
            "best of the batch",
            "margin is left out",
            "margin outside of the maximum",
        ),
    ),
    Family(
        kind="loss",
        name="squared error of one output",
        base=column_squared,
        args=(COLUMN, VALUES),
        declared={"best": "targets"},
        like={"like": lambda y, t: 2 * optax.l2_loss(y, t[:, None]).sum(axis=-1)},
        bugs=variants(
            column_squared,
            "every prediction against every target, mean",
            "every prediction against every target, rows",
            "targets as integers",
            "one factor without gradient",
            "difference of squares",
            "difference of sizes",
            "error is clipped at one",
            "relative to the target",
            "divided by the variance of the batch",
            "targets are standardized",
            "mean is taken twice",
            "computed in float16",
        ),
    ),
    Family(
        kind="loss",
        name="Huber with a threshold of a half",
        base=huber,
        args=(OUTPUTS, TARGETS),
        declared={"best": "targets"},
        like={"like": lambda y, t: row_means(optax.huber_loss(y, t, delta=0.5))},
        bugs=variants(
            huber,
            "slope of one",
            "threshold of one",
            "signed error is compared",
            "divided by the threshold",
            "square without its half",
            "mean error decides",
            "error is averaged over the batch first",
            "offset is twice as large",
        ),
    ),
    Family(
        kind="loss",
        name="log-cosh",
        base=log_cosh,
        args=(OUTPUTS, TARGETS),
        needed={"at_least_zero": False},  # errors near 0 may round below zero
        declared={"best": "targets"},
        like={"like": losses.log_cosh},
        bugs=variants(
            log_cosh,
            "logarithm of cosh",
            "exponent without its two",
            "logarithm of two is missing",
            "exponent of the wrong sign",
            "sum over the outputs",
            "cosh by its series",
        ),
    ),
    Family(
        kind="loss",
        name="three quantiles",
        base=quantiles,
        args=(OUTPUTS, VALUES[:5]),
        declared={"best": lambda t: jnp.repeat(t[:, None], 3, axis=1)},
        like={
            "like": lambda y, t: (
                sum(losses.quantile(y[:, i], t, q=q) for i, q in enumerate((0.1, 0.5, 0.8))) / 3
            )
        },
        bugs=variants(
            quantiles,
            "quantiles in reverse",
            "prediction minus target",
            "targets averaged over the batch",
            "median for all",
            "quantiles in percent",
            "side is not subtracted",
            "sum over the quantiles",
            "largest of the quantiles",
        ),
    ),
    Family(
        kind="loss",
        name="normal density with a softplus scale",
        base=density,
        args=(normal(5, 2, seed=28), VALUES[:5]),
        needed={"at_least_zero": False},
        declared={"best": lambda t: jnp.stack([t, jnp.full_like(t, -20.0)], axis=-1)},
        like={
            "like": lambda y, t: (
                -jax.scipy.stats.norm.logpdf(t, y[:, 0], jnp.logaddexp(y[:, 1], 0) + 0.1)
            )
        },
        bugs=variants(
            density,
            "mean and scale swapped",
            "scale is not made positive",
            "least scale is forgotten",
            "scale has no gradient",
            "constant is missing",
            "logarithm of the variance",
            "square by the scale once",
            "half of the square is missing",
            "scale of the batch",
            "likelihood instead of its negative",
        ),
    ),
    Family(
        kind="loss",
        name="distillation with a temperature",
        base=distilled,
        args=(LOGITS, normal(5, 4, seed=29)),
        declared={"best": "targets", "symmetries": ("shift", "classes")},
        like={"like": lambda z, t: 4 * losses.kl_divergence(z / 2, jax.nn.softmax(t / 2, axis=-1))},
        bugs=variants(
            distilled,
            "square of the temperature is missing",
            "divided by the square",
            "temperature of the teacher only",
            "logarithm divided by the temperature",
            "softmax of the teacher over the batch",
            "student and teacher swapped",
            "teacher as probabilities",
            "entropy of the teacher is missing",
            "most likely class of the teacher",
        ),
    ),
    Family(
        kind="loss",
        name="divergence of two normal distributions",
        base=normal_divergence,
        args=(POSTERIOR, PRIOR),
        declared={"best": "targets"},
        like={
            "like": lambda q, p: (
                row_means(
                    30 * jnp.tanh(p["log_var"] / 30) / 2
                    - 30 * jnp.tanh(q["log_var"] / 30) / 2
                    - 0.5
                    + (jnp.exp(30 * jnp.tanh(q["log_var"] / 30)) + (q["mean"] - p["mean"]) ** 2)
                    / (2 * jnp.exp(30 * jnp.tanh(p["log_var"] / 30)))
                )
                * 3
            )
        },
        bugs=variants(
            normal_divergence,
            "posterior and prior swapped",
            "log variance as log scale",
            "prior of variance one",
            "mean of the prior is forgotten",
            "error over the variance of the posterior",
            "one is not subtracted",
            "logarithms of the wrong sign",
            "half is missing",
            "mean over the dimensions",
        ),
    ),
    Family(
        kind="loss",
        name="cosine of unit vectors",
        base=cosine,
        args=(OUTPUTS, TARGETS),
        needed={"at_least_zero": False},  # parallel vectors may round below zero
        declared={"best": "targets", "symmetries": ("scale",)},
        like={"like": losses.cosine},
        bugs=variants(
            cosine,
            "unit vectors over the batch",
            "target is not normalized",
            "norm has no gradient",
            "angle instead of its cosine",
            "one minus the square",
            "half of it",
            "mean over the features",
            "target of the neighbor",
            "division by zero for zeros",
        ),
    ),
    Family(
        kind="loss",
        name="two views among all views (NT-Xent)",
        base=nt_xent,
        args=(ONE_VIEW, OTHER_VIEW),
        needed={"rowwise": False},
        declared={"symmetries": ("scale",)},
        like={"like": partial(losses.nt_xent, temperature=0.5)},
        bugs=variants(
            nt_xent,
            "unit vectors of the whole batch",
            "temperature of one",
            "itself is among the candidates",
            "itself is masked by zero",
            "partner is the next view",
            "views taken for neighbors",
            "positive is left out of the sum",
            "other views without gradient",
            "one direction only",
            "sum of both directions",
        ),
    ),
    Family(
        kind="loss",
        name="a decision for each pair (SigLIP)",
        base=sigmoid_pairs,
        args=(ONE_VIEW, OTHER_VIEW),
        needed={"rowwise": False},
        declared={"symmetries": ("scale",)},
        like={"like": partial(losses.sigmoid_contrastive, scale=3.0, bias=-1.0)},
        bugs=variants(
            sigmoid_pairs,
            "zeros as signs of the negatives",
            "bias is subtracted",
            "signs swapped",
            "bias is not signed",
            "mean over the pairs",
            "positives only",
            "similarities are not bounded",
        ),
    ),
    Family(
        kind="loss",
        name="triplets of distances",
        base=triplet,
        args=(ANCHORS, OTHERS),
        declared={"best": lambda o: 5 * o["near"] - 4 * o["far"]},
        like={"like": lambda a, o: losses.triplet(a, o["near"], o["far"], margin=0.5)},
        bugs=variants(
            triplet,
            "root of zero",
            "mean over the features",
            "far one of the neighbor",
            "one distance is squared",
            "far from the near one",
            "far one has no gradient",
            "margin after the cut",
            "mean before the cut",
            "softened cut",
            "near and far swapped",
        ),
    ),
    Family(
        kind="loss",
        name="preferences against a reference (DPO)",
        base=preference,
        args=(CHOSEN, REFERENCE),
        declared={"symmetries": ("shift",)},
        like={
            "like": lambda p, r: optax.sigmoid_binary_cross_entropy(
                0.5 * (p["chosen"] - r["chosen"] - p["rejected"] + r["rejected"]), 1.0
            )
        },
        bugs=variants(
            preference,
            "reference is added",
            "reference is forgotten",
            "chosen and rejected swapped",
            "rejected has no gradient",
            "beta for the policy only",
            "divided by beta",
            "logarithm of the sigmoid",
            "mean margin",
        ),
    ),
    Family(
        kind="loss",
        name="values of actions (Q-learning)",
        base=temporal_difference,
        args=(ACTION_VALUES, STEPS),
        declared={
            "best": lambda s: jnp.broadcast_to(
                (s["reward"] + 0.9 * (1 - s["done"]) * s["next"].max(axis=-1))[:, None], (5, 3)
            )
        },
        like={
            "like": lambda v, s: (
                jnp.where(
                    jax.nn.one_hot(s["action"], 3, dtype=bool),
                    v
                    - jnp.where(s["done"] > 0, s["reward"], s["reward"] + 0.9 * s["next"].max(1))[
                        :, None
                    ],
                    0,
                )
                ** 2
            ).sum(axis=1)
        },
        bugs=variants(
            temporal_difference,
            "maximum over the batch",
            "next value of the same action",
            "done is not read",
            "done inverted",
            "reward is discounted too",
            "reward ends with the episode",
            "columns of all actions",
            "best action instead of the taken",
            "error is clipped",
        ),
    ),
    Family(
        kind="loss",
        name="overlap of regions (Dice)",
        base=dice,
        args=(PIXELS, REGIONS),
        declared={
            "best": "labels",
            "bounds": (0.0, 1.0),
            "skip": {"wrong_answers_have_gradients": "the sigmoid saturates"},
        },
        like={"like": losses.binary_dice},
        bugs=variants(
            dice,
            "no sigmoid",
            "hard predictions",
            "sums over the batch",
            "squares below",
            "intersection over union",
            "factor of two is missing",
            "nothing is added",
            "one is added below only",
            "means instead of sums",
            "logarithm",
            "background counts too",
        ),
    ),
    Family(
        kind="loss",
        name="alignments of labels (CTC)",
        base=ctc,
        args=(FRAMES, WORDS),
        declared={"symmetries": ("shift",)},
        like={"like": lambda z, w: losses.ctc(z, w["labels"], label_lengths=w["lengths"])},
        bugs=variants(
            ctc,
            "logits are not normalized",
            "last class as blank",
            "skips between equal labels",
            "blanks are never skipped",
            "best path instead of all",
            "starts with a blank",
            "emissions of the frame before",
            "lengths are not read",
            "ends with a blank",
            "divided by the frames",
        ),
    ),
    Family(
        kind="loss",
        name="chains of tags (CRF)",
        base=chain,
        args=(SCORES_OF_TAGS, TAGS),
        declared={"symmetries": ("shift",)},
        like={"like": chain_reference},
        bugs=variants(
            chain,
            "transitions of the sum transposed",
            "first scores are left out of the sum",
            "best path instead of all",
            "sum over the later tag",
            "best last tag",
            "transitions of the tags are left out",
            "tag of the step before",
            "mean score of the tags",
        ),
    ),
]
