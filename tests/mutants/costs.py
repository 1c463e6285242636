"""Losses in plain JAX, and what goes wrong in them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnn import losses
from tests.mutants.blocks import F32, integers, normal
from tests.mutants.family import Family

LOGITS, LABELS = normal(6, 4), integers(6, below=4, seed=3)
NUMBERS, TARGETS = normal(5, 3), normal(5, 3, seed=1)
YES = jnp.asarray(integers(5, 3, below=2, seed=2), F32)
SOFT = jax.nn.softmax(normal(5, 4, seed=4))


def variants(make, *bugs):
    """The broken copies."""
    return {bug: partial(make, bug=bug) for bug in bugs}


def cross_entropy(logits, labels, bug=None):
    if bug == "softmax and then the logarithm":
        log_p = jnp.log(jax.nn.softmax(logits))
    elif bug == "logarithm of clipped probabilities":
        log_p = jnp.log(jnp.clip(jax.nn.softmax(logits), 1e-3, 1.0))
    elif bug == "softmax over the batch":
        log_p = jax.nn.log_softmax(logits, axis=0)
    elif bug == "softmax twice":
        log_p = jax.nn.log_softmax(jax.nn.softmax(logits))
    elif bug == "exp without maximum":
        log_p = logits - jnp.log(jnp.exp(logits).sum(axis=-1, keepdims=True))
    elif bug == "eps inside the logarithm":
        log_p = jnp.log(jax.nn.softmax(logits) + 1e-2)
    elif bug == "logits are not normalized":
        log_p = logits
    else:
        log_p = jax.nn.log_softmax(logits)
    if bug == "labels off by one":
        labels = labels + 1
    if bug == "label of the neighbor":
        labels = jnp.roll(labels, 1)
    if bug == "label of the first example for all":
        labels = jnp.broadcast_to(labels[:1], labels.shape)
    picked = jnp.take_along_axis(log_p, labels[:, None], axis=-1)
    if bug == "broadcast against a column":
        return -(picked + jnp.zeros(len(labels), F32)[None]).mean(axis=0)
    if bug == "sign":
        return picked[:, 0]
    if bug == "sum over classes of all":
        return -log_p.sum(axis=-1)
    if bug == "mean over classes":
        return -picked[:, 0] / logits.shape[-1]
    if bug == "sum of the batch":
        return -picked.sum()
    if bug == "divided by the batch twice":
        return -picked[:, 0].mean() / len(labels)
    if bug == "only the first half of the batch":
        n = len(labels) // 2
        return -jnp.where(jnp.arange(len(labels)) < n, picked[:, 0], 0)
    if bug == "argmax instead of the label":
        return -log_p.max(axis=-1)
    if bug == "in bfloat16":
        return -picked[:, 0].astype(jnp.bfloat16).astype(F32)
    if bug == "logarithm of base two":
        return -picked[:, 0] / np.float32(np.log(2))
    if bug == "last class is left out":
        short = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(short, jnp.minimum(labels, 2)[:, None], axis=-1)[:, 0]
    return -picked[:, 0]


def mean_cross_entropy(logits, labels, bug=None):
    """The mean over the batch, a scalar, as many write it."""
    losses_ = cross_entropy(logits, labels)
    if bug == "sum instead of mean":
        return losses_.sum()
    if bug == "mean times two":
        return 2 * losses_.mean()
    if bug == "maximum of the batch":
        return losses_.max()
    if bug == "mean over batch and classes":
        return losses_.sum() / logits.size
    if bug == "mean of a constant size":
        return losses_.sum() / 6
    if bug == "median":
        return jnp.median(losses_)
    return losses_.mean()


def smoothed(logits, labels, bug=None, amount=0.1):
    log_p = jax.nn.log_softmax(logits)
    n = logits.shape[-1]
    hot = jax.nn.one_hot(labels, n, dtype=F32)
    soft = hot * (1 - amount) + amount / n
    if bug == "amount is not taken away":
        soft = hot + amount / n
    if bug == "amount on the others only by n":
        soft = hot * (1 - amount) + (1 - hot) * amount / n
    if bug == "amount swapped":
        soft = hot * amount + (1 - amount) / n
    if bug == "amount by the batch":
        soft = hot * (1 - amount) + amount / len(labels)
    if bug == "no smoothing":
        soft = hot
    if bug == "negative amount":
        soft = hot * (1 + amount) - amount / n
    return -(soft * log_p).sum(axis=-1)


def masked(outputs, targets, where=None, bug=None):
    """Mean squared error of what is kept: the mean, a scalar."""
    if where is None:
        where = jnp.ones(outputs.shape, bool)
    where = jnp.broadcast_to(
        where.reshape(where.shape + (1,) * (outputs.ndim - where.ndim)), outputs.shape
    )
    error = jnp.square(jnp.where(where, outputs - jnp.where(where, targets, 0), 0))
    if bug == "multiplied by the mask":
        error = jnp.square(outputs - targets) * where
        return error.sum() / jnp.maximum(where.sum(), 1)
    if bug == "mean over everything":
        return jnp.where(where, jnp.square(outputs - targets), 0).mean()
    if bug == "no guard of zero":
        return jnp.where(where, jnp.square(outputs - targets), 0).sum() / where.sum()
    if bug == "mask after the formula":
        return jnp.where(where, jnp.square(outputs - targets), 0).sum() / jnp.maximum(
            where.sum(), 1
        )
    if bug == "mask inverted":
        return jnp.where(where, 0, jnp.square(outputs - targets)).sum() / jnp.maximum(
            where.sum(), 1
        )
    if bug == "mask is not read":
        return jnp.square(outputs - targets).mean()
    if bug == "guard of a thousandth":
        safe = jnp.where(where, outputs, 0) - jnp.where(where, targets, 0)
        return jnp.square(safe).sum() / (where.sum() + 0.3)
    if bug == "mean of means over rows":
        rows = jnp.where(where, jnp.square(jnp.where(where, outputs, 0) - targets), 0).sum(axis=-1)
        return (rows / jnp.maximum(where.sum(axis=-1), 1)).mean()
    safe = jnp.where(where, outputs, 0) - jnp.where(where, targets, 0)
    del error
    return jnp.square(safe).sum() / jnp.maximum(where.sum(), 1)


def sigmoid_entropy(logits, targets, bug=None):
    if bug == "sigmoid and then the logarithm":
        p = jax.nn.sigmoid(logits)
        return -(targets * jnp.log(p) + (1 - targets) * jnp.log(1 - p)).mean(axis=-1)
    if bug == "clipped probabilities":
        p = jnp.clip(jax.nn.sigmoid(logits), 1e-4, 1 - 1e-4)
        return -(targets * jnp.log(p) + (1 - targets) * jnp.log(1 - p)).mean(axis=-1)
    if bug == "negatives are not counted":
        return (targets * jax.nn.softplus(-logits)).mean(axis=-1)
    if bug == "targets swapped":
        return (jax.nn.softplus(logits) - logits * (1 - targets)).mean(axis=-1)
    if bug == "sum over labels":
        return (jax.nn.softplus(logits) - logits * targets).sum(axis=-1)
    if bug == "softmax over labels":
        return -(targets * jax.nn.log_softmax(logits)).sum(axis=-1)
    if bug == "softplus without its shift":
        return (jnp.log(1 + jnp.exp(logits)) - logits * targets).mean(axis=-1)
    if bug == "absolute value in the wrong place":
        return (jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-logits))).mean(
            axis=-1
        )
    return (jax.nn.softplus(logits) - logits * targets).mean(axis=-1)


def squared(y, t, bug=None):
    error = y - t
    if bug == "sum of the two":
        error = y + t
    if bug == "broadcast of a column":
        return jnp.square(y[:, :1] - t[:, 0]).mean(axis=-1)
    if bug == "root of the square":
        return jnp.sqrt(jnp.square(error)).mean(axis=-1)
    if bug == "square of the mean":
        return jnp.square(error.mean(axis=-1))
    if bug == "square of the mean of the batch":
        return jnp.square(error.mean(axis=0)).mean() + 0 * error[:, 0]
    if bug == "target without its last feature":
        return jnp.square(error[:, :-1]).mean(axis=-1)
    if bug == "prediction without gradient":
        return jnp.square(jax.lax.stop_gradient(y) - t).mean(axis=-1)
    if bug == "half of the gradient":
        return jnp.square(0.5 * y + 0.5 * jax.lax.stop_gradient(y) - t).mean(axis=-1)
    if bug == "standardized by the batch":
        return jnp.square(error / (1 + y.std())).mean(axis=-1)
    if bug == "root mean square of the batch":
        return jnp.sqrt(jnp.square(error).mean())
    return jnp.square(error).mean(axis=-1)


def huber(y, t, bug=None, delta=1.0):
    error = jnp.abs(y - t)
    small = 0.5 * jnp.square(error)
    large = delta * (error - 0.5 * delta)
    if bug == "pieces do not meet":
        large = delta * error
    if bug == "slopes do not meet":
        large = 0.5 * (error - delta) + 0.5
    if bug == "pieces swapped":
        small, large = large, small
    if bug == "threshold squared":
        return jnp.where(jnp.square(error) <= 4 * delta, small, large).mean(axis=-1)
    if bug == "large errors are capped":
        large = 0.5 * jnp.ones_like(error)
    if bug == "never linear":
        large = small
    if bug == "sign of the error":
        large = delta * (y - t - 0.5 * delta)
    return jnp.where(error <= delta, small, large).mean(axis=-1)


def kl(logits, targets, bug=None):
    log_q = jax.nn.log_softmax(logits)
    log_p = jnp.log(jnp.where(targets > 0, targets, 1))
    if bug == "reverse direction":
        q = jnp.exp(log_q)
        return (q * (log_q - log_p)).sum(axis=-1)
    if bug == "zero times the logarithm of zero":
        return (targets * (jnp.log(targets) - log_q)).sum(axis=-1)
    if bug == "without the entropy":
        return -(targets * log_q).sum(axis=-1)
    if bug == "targets are taken for logits":
        return (jax.nn.softmax(targets) * (jax.nn.log_softmax(targets) - log_q)).sum(axis=-1)
    if bug == "logits are not normalized":
        return (targets * (log_p - logits)).sum(axis=-1)
    if bug == "mean over classes":
        return (targets * (log_p - log_q)).mean(axis=-1)
    if bug == "sign":
        return -(targets * (log_p - log_q)).sum(axis=-1)
    if bug == "eps in the targets":
        return (targets * (jnp.log(targets + 0.05) - log_q)).sum(axis=-1)
    return (targets * (log_p - log_q)).sum(axis=-1)


def cosine(y, t, bug=None):
    def norm(v):
        return jnp.sqrt(jnp.square(v).sum(axis=-1) + 1e-12)

    dot = (y * t).sum(axis=-1)
    if bug == "norm without eps":
        return 1 - dot / (jnp.linalg.norm(y, axis=-1) * jnp.linalg.norm(t, axis=-1))
    if bug == "not divided by the norm of the prediction":
        return 1 - dot / norm(t)
    if bug == "norm of the batch":
        return 1 - dot / (jnp.sqrt(jnp.square(y).sum() + 1e-12) * norm(t))
    if bug == "one plus":
        return 1 + dot / (norm(y) * norm(t))
    if bug == "squared norms":
        return 1 - dot / (norm(y) ** 2 * norm(t) ** 2 + 1e-6)
    if bug == "absolute value":
        return 1 - jnp.abs(dot) / (norm(y) * norm(t))
    return 1 - dot / (norm(y) * norm(t))


def hinge(y, t, bug=None):
    """Labels 0 and 1, margins of 1."""
    sign = 2 * t - 1
    if bug == "labels 0 and 1 as signs":
        sign = t
    if bug == "no margin":
        return jnp.maximum(-sign * y, 0).mean(axis=-1)
    if bug == "minimum":
        return jnp.minimum(1 - sign * y, 0).mean(axis=-1)
    if bug == "margin is added":
        return jnp.maximum(1 + sign * y, 0).mean(axis=-1)
    if bug == "not cut at zero":
        return (1 - sign * y).mean(axis=-1)
    if bug == "squared":
        return jnp.square(jnp.maximum(1 - sign * y, 0)).mean(axis=-1)
    return jnp.maximum(1 - sign * y, 0).mean(axis=-1)


def quantile(y, t, bug=None, q=0.8):
    error = t - y
    if bug == "sides swapped":
        q = 1 - q
    if bug == "median":
        q = 0.5
    if bug == "jump at zero":
        return jnp.where(error > 0, q * error + 0.1, (q - 1) * error).mean(axis=-1)
    if bug == "one side only":
        return jnp.maximum(q * error, 0).mean(axis=-1)
    if bug == "maximum is minimum":
        return jnp.minimum(q * error, (q - 1) * error).mean(axis=-1)
    return jnp.maximum(q * error, (q - 1) * error).mean(axis=-1)


def contrastive(a, b, bug=None, temperature=0.5):
    """Each a to its b among all b of the batch."""

    def unit(v):
        return v / jnp.sqrt(jnp.square(v).sum(axis=-1, keepdims=True) + 1e-12)

    a, b = (unit(a), unit(b)) if bug != "not normalized" else (a, b)
    logits = a @ b.T
    logits = logits * temperature if bug == "times the temperature" else logits / temperature
    if bug == "softmax over the other axis":
        log_p = jax.nn.log_softmax(logits, axis=0)
    elif bug == "logarithm of softmax":
        log_p = jnp.log(jax.nn.softmax(10 * logits) + 1e-9)
    else:
        log_p = jax.nn.log_softmax(logits, axis=-1)
    if bug == "positives are the neighbors":
        return -jnp.diagonal(jnp.roll(log_p, 1, axis=1))
    if bug == "mean of all pairs":
        return -log_p.mean(axis=-1)
    if bug == "positives are left out of the denominator":
        eye = jnp.eye(len(a), dtype=bool)
        return jax.nn.logsumexp(jnp.where(eye, -jnp.inf, logits), axis=-1) - jnp.diagonal(logits)
    return -jnp.diagonal(log_p)


def triplet(a, others, bug=None, margin=0.5):
    p, n = others[:, 0], others[:, 1]

    def distance(u, v):
        return jnp.square(u - v).sum(axis=-1)

    if bug == "positive and negative swapped":
        p, n = n, p
    if bug == "no margin":
        margin = 0.0
    if bug == "margin is subtracted":
        margin = -margin
    if bug == "root without eps":
        return jax.nn.relu(jnp.sqrt(distance(a, p)) - jnp.sqrt(distance(a, n)) + margin)
    if bug == "not cut at zero":
        return distance(a, p) - distance(a, n) + margin
    if bug == "negative against the positive":
        return jax.nn.relu(distance(a, p) - distance(p, n) + margin)
    return jax.nn.relu(distance(a, p) - distance(a, n) + margin)


def gaussian(predictions, t, bug=None):
    mean, log_var = predictions[..., 0], jnp.clip(predictions[..., 1], -3, 3)
    error = jnp.square(t - mean)
    if bug == "divided by the standard deviation":
        return 0.5 * (log_var + error * jnp.exp(-0.5 * log_var))
    if bug == "times the variance":
        return 0.5 * (log_var + error * jnp.exp(log_var))
    if bug == "without the logarithm":
        return 0.5 * error * jnp.exp(-log_var)
    if bug == "logarithm is subtracted":
        return 0.5 * (error * jnp.exp(-log_var) - log_var)
    if bug == "error is not squared":
        return 0.5 * (log_var + jnp.abs(t - mean) * jnp.exp(-log_var))
    return 0.5 * (log_var + error * jnp.exp(-log_var))


def focal(logits, targets, bug=None, gamma=2.0):
    log_p = jnp.where(targets > 0, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))
    p = jnp.exp(log_p)
    if bug == "weights the easy ones":
        return -(p**gamma * log_p).mean(axis=-1)
    if bug == "power of the wrong side":
        return -((1 - jax.nn.sigmoid(logits)) ** gamma * log_p).mean(axis=-1)
    if bug == "no power":
        return -((1 - p) * log_p).mean(axis=-1)
    if bug == "root of the weight":
        return -(jnp.sqrt(1 - p) * log_p).mean(axis=-1)
    if bug == "sign":
        return ((1 - p) ** gamma * log_p).mean(axis=-1)
    return -((1 - p) ** gamma * log_p).mean(axis=-1)


def opposite(targets):
    return 60.0 * (targets - 0.5)


FAMILIES = [
    Family(
        kind="loss",
        name="cross-entropy by hand",
        base=cross_entropy,
        args=(LOGITS, LABELS),
        declared={"best": "labels", "symmetries": ("shift", "classes")},
        like={"like": losses.cross_entropy},
        bugs=variants(
            cross_entropy,
            "softmax and then the logarithm",
            "logarithm of clipped probabilities",
            "softmax over the batch",
            "softmax twice",
            "exp without maximum",
            "eps inside the logarithm",
            "logits are not normalized",
            "labels off by one",
            "label of the neighbor",
            "label of the first example for all",
            "broadcast against a column",
            "sign",
            "sum over classes of all",
            "mean over classes",
            "sum of the batch",
            "divided by the batch twice",
            "only the first half of the batch",
            "argmax instead of the label",
            "in bfloat16",
            "logarithm of base two",
            "last class is left out",
        ),
    ),
    Family(
        kind="loss",
        name="mean cross-entropy by hand",
        base=mean_cross_entropy,
        args=(LOGITS, LABELS),
        declared={"best": "labels"},
        like={"like": losses.cross_entropy},
        bugs=variants(
            mean_cross_entropy,
            "sum instead of mean",
            "mean times two",
            "maximum of the batch",
            "mean over batch and classes",
            "mean of a constant size",
            "median",
        ),
    ),
    Family(
        kind="loss",
        name="label smoothing by hand",
        base=smoothed,
        args=(LOGITS, LABELS),
        declared={
            "symmetries": ("shift", "classes"),
            "best": lambda y: jnp.log(jax.nn.one_hot(y, 4) * 0.9 + 0.1 / 4),
        },
        like={"like": partial(losses.cross_entropy, label_smoothing=0.1)},
        bugs=variants(
            smoothed,
            "amount is not taken away",
            "amount on the others only by n",
            "amount swapped",
            "amount by the batch",
            "no smoothing",
            "negative amount",
        ),
    ),
    Family(
        kind="loss",
        name="mean squared error of what is kept",
        base=masked,
        args=(NUMBERS, TARGETS),
        declared={"where": True, "best": "targets"},
        like={"like": lambda y, t, where=None: losses.mean_squared_error(y, t, where=where)},
        bugs=variants(
            masked,
            "multiplied by the mask",
            "mean over everything",
            "no guard of zero",
            "mask after the formula",
            "mask inverted",
            "mask is not read",
            "guard of a thousandth",
            "mean of means over rows",
        ),
    ),
    Family(
        kind="loss",
        name="binary cross-entropy by hand",
        base=sigmoid_entropy,
        args=(NUMBERS, YES),
        declared={"best": opposite, "bounds": (0.0, 1.0)},
        like={"like": losses.binary_cross_entropy},
        bugs=variants(
            sigmoid_entropy,
            "sigmoid and then the logarithm",
            "clipped probabilities",
            "negatives are not counted",
            "targets swapped",
            "sum over labels",
            "softmax over labels",
            "softplus without its shift",
            "absolute value in the wrong place",
        ),
    ),
    Family(
        kind="loss",
        name="squared error by hand",
        base=squared,
        args=(NUMBERS, TARGETS),
        declared={"best": "targets"},
        like={"like": losses.mean_squared_error},
        bugs=variants(
            squared,
            "sum of the two",
            "broadcast of a column",
            "root of the square",
            "square of the mean",
            "square of the mean of the batch",
            "target without its last feature",
            "prediction without gradient",
            "half of the gradient",
            "standardized by the batch",
            "root mean square of the batch",
        ),
    ),
    Family(
        kind="loss",
        name="Huber by hand",
        base=huber,
        args=(2 * NUMBERS, TARGETS),
        declared={"best": "targets"},
        like={"like": losses.huber},
        bugs=variants(
            huber,
            "pieces do not meet",
            "slopes do not meet",
            "pieces swapped",
            "threshold squared",
            "large errors are capped",
            "never linear",
            "sign of the error",
        ),
    ),
    Family(
        kind="loss",
        name="KL divergence by hand",
        base=kl,
        args=(normal(5, 4), SOFT),
        declared={
            "best": lambda t: jnp.log(t),
            "symmetries": ("shift", "classes"),
            "bounds": (0.0, 0.25),
        },
        like={"like": losses.kl_divergence},
        bugs=variants(
            kl,
            "reverse direction",
            "zero times the logarithm of zero",
            "without the entropy",
            "targets are taken for logits",
            "logits are not normalized",
            "mean over classes",
            "sign",
            "eps in the targets",
        ),
    ),
    Family(
        kind="loss",
        name="cosine distance by hand",
        base=cosine,
        args=(NUMBERS, TARGETS),
        needed={"at_least_zero": False},
        declared={"best": "targets", "symmetries": ("scale",)},
        like={
            "like": lambda y, t: (
                1 - jnp.einsum("bi,bi->b", y, t) / (1e-9 + jnp.sqrt((y**2).sum(1) * (t**2).sum(1)))
            )
        },
        bugs=variants(
            cosine,
            "norm without eps",
            "not divided by the norm of the prediction",
            "norm of the batch",
            "one plus",
            "squared norms",
            "absolute value",
        ),
    ),
    Family(
        kind="loss",
        name="hinge by hand",
        base=hinge,
        args=(NUMBERS, YES),
        declared={"best": lambda t: 4.0 * (t - 0.5)},
        like={
            "like": lambda y, t: (
                (jnp.abs(1 - (2 * t - 1) * y) + 1 - (2 * t - 1) * y).mean(axis=-1) / 2
            )
        },
        bugs=variants(
            hinge,
            "labels 0 and 1 as signs",
            "no margin",
            "minimum",
            "margin is added",
            "not cut at zero",
            "squared",
        ),
    ),
    Family(
        kind="loss",
        name="quantile loss by hand",
        base=quantile,
        args=(NUMBERS, TARGETS),
        declared={"best": "targets"},
        like={"like": lambda y, t: ((t - y) * (0.8 - (t < y).astype(F32))).mean(axis=-1)},
        bugs=variants(
            quantile,
            "sides swapped",
            "median",
            "jump at zero",
            "one side only",
            "maximum is minimum",
        ),
    ),
    Family(
        kind="loss",
        name="contrastive loss by hand",
        base=contrastive,
        args=(normal(4, 3), normal(4, 3, seed=1)),
        needed={"rowwise": False},
        declared={"symmetries": ("scale",)},
        like={
            "like": lambda a, b: losses.cross_entropy(
                2.0
                * (a / jnp.linalg.norm(a, axis=-1, keepdims=True))
                @ (b / jnp.linalg.norm(b, axis=-1, keepdims=True)).T,
                jnp.arange(len(a)),
            )
        },
        bugs=variants(
            contrastive,
            "not normalized",
            "times the temperature",
            "softmax over the other axis",
            "positives are the neighbors",
            "mean of all pairs",
            "positives are left out of the denominator",
        ),
    ),
    Family(
        kind="loss",
        name="triplet loss by hand",
        base=triplet,
        args=(normal(5, 3), normal(5, 2, 3, seed=1)),
        like={
            "like": lambda a, o: jnp.maximum(
                (a**2).sum(1) * 0 + ((a - o[:, 0]) ** 2).sum(1) - ((a - o[:, 1]) ** 2).sum(1) + 0.5,
                0,
            )
        },
        declared={"best": lambda o: 5 * o[:, 0] - 4 * o[:, 1]},
        bugs=variants(
            triplet,
            "positive and negative swapped",
            "no margin",
            "margin is subtracted",
            "root without eps",
            "not cut at zero",
            "negative against the positive",
        ),
    ),
    Family(
        kind="loss",
        name="Gaussian likelihood by hand",
        base=gaussian,
        args=(normal(5, 2), normal(5, seed=1)),
        needed={"at_least_zero": False},
        declared={"best": lambda t: jnp.stack([t, jnp.full_like(t, -3.0)], axis=-1)},
        like={
            "like": lambda y, t: (
                0.5 * jnp.clip(y[:, 1], -3, 3)
                + jnp.square(t - y[:, 0]) / (2 * jnp.exp(jnp.clip(y[:, 1], -3, 3)))
            )
        },
        bugs=variants(
            gaussian,
            "divided by the standard deviation",
            "times the variance",
            "without the logarithm",
            "logarithm is subtracted",
            "error is not squared",
        ),
    ),
    Family(
        kind="loss",
        name="focal loss by hand",
        base=focal,
        args=(NUMBERS, YES),
        declared={"best": opposite},
        like={
            "like": lambda y, t: (
                (1 - jnp.abs(jax.nn.sigmoid(y) + t - 1)) ** 2 * (jax.nn.softplus(y) - y * t)
            ).mean(axis=-1)
        },
        bugs=variants(
            focal,
            "weights the easy ones",
            "power of the wrong side",
            "no power",
            "root of the weight",
            "sign",
        ),
    ),
]
