"""Shapes that would broadcast into a count are refused, and masks in the targets do not count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from fnn import losses, nn, optim, schedules
from fnn.metrics import (
    accuracy,
    binary_accuracy,
    binary_hits,
    hits,
    mean,
    merge,
    perplexity,
    top_k_accuracy,
)
from fnn.recipe import Recipe
from fnn.report import confusion
from fnn.train import make_evaluate, make_init, make_step
from fnn.types import Weighted
from tests.registry.rows import integers, normal

LOGITS, LABELS = jnp.asarray(normal(40, 5)), jnp.asarray(integers(40, below=5))
SOFT = jax.nn.one_hot(LABELS, 5) * 0.8 + 0.04
ONE, YES = jnp.asarray(normal(40, seed=3)), jnp.asarray(integers(40, below=2, seed=4))
MANY, MANY_YES = jnp.asarray(normal(40, 3, seed=5)), jnp.asarray(integers(40, 3, below=2, seed=6))
SQUARE = mean(lambda outputs, targets: jnp.square(outputs - targets))


def value(metric, outputs, targets):
    return float(metric.value(metric.measure(outputs, targets)))


def quadratic(z, y):
    return jnp.square(z - y)


REFUSED = {  # a metric or loss of (outputs, targets), and what it must not count
    "accuracy: labels (n, 1)": (accuracy().measure, LOGITS, LABELS[:, None]),
    "accuracy: one logit (n, 1)": (accuracy().measure, ONE[:, None], YES),
    "accuracy: one logit and labels (n, 1)": (accuracy().measure, ONE[:, None], YES[:, None]),
    "accuracy: regression (n, 1)": (accuracy().measure, ONE[:, None], ONE[:, None]),
    "accuracy: regression (n, 1) and (n,)": (accuracy().measure, ONE[:, None], ONE),
    "accuracy: regression (n,)": (accuracy().measure, ONE, ONE),
    "accuracy: one logit (n,)": (accuracy().measure, ONE, YES),
    "accuracy: many questions": (accuracy().measure, MANY, MANY_YES),
    "accuracy: bools of many questions": (accuracy().measure, MANY, MANY_YES > 0),
    "accuracy: probabilities of fewer classes": (accuracy().measure, LOGITS, SOFT[:, :4]),
    "accuracy: tokens with labels of examples": (accuracy().measure, LOGITS[:, None], LABELS),
    "top_k_accuracy: labels (n, 1)": (top_k_accuracy(2).measure, LOGITS, LABELS[:, None]),
    "top_k_accuracy: one logit": (top_k_accuracy(1).measure, ONE[:, None], YES),
    "top_k_accuracy: more than the classes": (top_k_accuracy(6).measure, LOGITS, LABELS),
    "binary_accuracy: (n, 1) and (n,)": (binary_accuracy().measure, ONE[:, None], YES),
    "binary_accuracy: (n,) and (n, 1)": (binary_accuracy().measure, ONE, YES[:, None]),
    "binary_accuracy: many classes": (binary_accuracy().measure, LOGITS, LABELS),
    "mean: (n, 1) and (n,)": (SQUARE.measure, ONE[:, None], ONE),
    "mean: (n,) and (n, 1)": (SQUARE.measure, ONE, ONE[:, None]),
    "mean: weights (n, 1)": (
        mean(lambda z, y: Weighted(z, y)).measure,
        ONE,
        YES[:, None].astype(jnp.float32),
    ),
    "perplexity: (n, 1) and (n,)": (perplexity(quadratic).measure, ONE[:, None], ONE),
}
LOSSES = {  # the kind of targets that each takes
    "labels": [losses.cross_entropy, losses.focal, losses.multiclass_hinge],
    "numbers": [
        losses.mean_squared_error,
        losses.mean_absolute_error,
        losses.huber,
        losses.log_cosh,
        functools.partial(losses.quantile, q=0.3),
        losses.poisson,
        lambda z, y, **_: losses.gaussian_nll((z, z), y),
        losses.binary_cross_entropy,
        losses.binary_focal,
        losses.hinge,
        losses.squared_hinge,
        losses.perceptron,
        losses.binary_dice,
        losses.cosine,
    ],
    "rows": [losses.kl_divergence, losses.jensen_shannon, losses.cross_entropy, losses.dice],
}
for i, loss in enumerate(LOSSES["labels"]):
    REFUSED[f"loss of labels {i}: (n, 1)"] = loss, LOGITS, LABELS[:, None]
    REFUSED[f"loss of labels {i}: one logit"] = loss, ONE[:, None], YES
for i, loss in enumerate(LOSSES["numbers"]):
    REFUSED[f"loss of numbers {i}: (n, 1) and (n,)"] = loss, ONE[:, None], ONE
    REFUSED[f"loss of numbers {i}: (n,) and (n, 1)"] = loss, ONE, ONE[:, None]
for i, loss in enumerate(LOSSES["rows"]):
    REFUSED[f"loss of rows {i}: one logit"] = loss, ONE[:, None], jnp.ones((40, 1))
REFUSED["fused_cross_entropy: one class"] = (
    lambda x, y: losses.fused_cross_entropy(x, jnp.ones((5, 1)), y),
    LOGITS,
    jnp.zeros(40, int),
)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_broadcast_into_a_count_is_refused(name):
    function, outputs, targets = REFUSED[name]
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=r": expected .*; "):
        function(outputs, targets)


@pytest.mark.parametrize("where", ["step", "evaluate"])
def test_a_loss_of_all_pairs_is_refused(where):
    recipe = lambda hyper: Recipe(  # noqa: E731
        nn.linear(1), quadratic, optim.sgd(), schedules.constant(0.1)
    )
    key, x = jax.random.key(0), normal(4, 2)
    state = make_init(recipe)(key, {}, x)
    batch = jnp.asarray(x), jnp.ones(4)
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="broadcast to all"):
        if where == "step":
            make_step(recipe)(state, batch, key, {})
        else:
            make_evaluate(recipe)(state, batch, {})


def test_values_of_pairs_that_were_given_are_no_broadcast():
    square = jnp.ones((4, 4))
    assert value(mean(lambda z, y: z), square, None) == 1
    assert value(SQUARE, square, square) == 0


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", [(40,), (40, 1), (8, 5), (2, 4, 5)])
def test_binary_accuracy_is_that_of_sklearn(shape):
    outputs, targets = ONE.reshape(shape), YES.reshape(shape)
    twin = accuracy_score(np.ravel(targets), np.ravel(outputs) > 0)
    p = jax.nn.sigmoid(outputs)
    for metric, z in ((binary_accuracy(), outputs), (binary_accuracy(0.5), p)):
        for y in (targets, targets > 0, targets.astype(jnp.float32), 2 * targets - 1):
            np.testing.assert_allclose(value(metric, z, y), twin, rtol=1e-6)


def test_several_questions_count_one_by_one():
    twin = (np.asarray(MANY > 0) == np.asarray(MANY_YES)).mean()
    np.testing.assert_allclose(value(binary_accuracy(), MANY, MANY_YES), twin, rtol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_accuracy_is_that_of_sklearn(k):
    twin = top_k_accuracy_score(LABELS, np.asarray(LOGITS), k=k, labels=np.arange(5))
    np.testing.assert_allclose(value(top_k_accuracy(k), LOGITS, LABELS), twin, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_of_equal_logits_the_lower_classes_come_first(k):
    tied = jnp.round(LOGITS)  # few values, so that most rows have ties
    _, best = jax.lax.top_k(tied, k)
    twin = (best == LABELS[:, None]).any(axis=1)
    np.testing.assert_array_equal(hits(tied, LABELS, k=k), twin.astype(np.float32))
    assert value(accuracy(), tied, LABELS) == value(top_k_accuracy(1), tied, LABELS)
    np.testing.assert_array_equal(
        hits(tied, LABELS), (tied.argmax(axis=1) == LABELS).astype(jnp.float32)
    )


MASK = jnp.asarray(integers(40, below=2, seed=8)) > 0
MASKED = jnp.where(MASK, LABELS, -100)
MASKED_YES = jnp.where(MASK, YES, -1)
BY_INDEX = {
    "accuracy": (accuracy(ignore_index=-100), accuracy(), LOGITS, LABELS, MASKED),
    "top_k_accuracy": (
        top_k_accuracy(2, ignore_index=-100),
        top_k_accuracy(2),
        LOGITS,
        LABELS,
        MASKED,
    ),
    "binary_accuracy": (binary_accuracy(ignore_index=-1), binary_accuracy(), ONE, YES, MASKED_YES),
    "perplexity": (
        perplexity(functools.partial(losses.cross_entropy, ignore_index=-100)),
        perplexity(losses.cross_entropy),
        LOGITS,
        LABELS,
        MASKED,
    ),
}


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", BY_INDEX)
def test_ignored_targets_do_not_count_however_the_set_is_cut(name):
    metric, plain, outputs, targets, ignored = BY_INDEX[name]
    twin = value(plain, outputs[MASK], targets[MASK])
    np.testing.assert_allclose(value(metric, outputs, ignored), twin, rtol=1e-6)
    parts = [metric.measure(outputs[cut], ignored[cut]) for cut in (slice(7), slice(7, 40))]
    np.testing.assert_allclose(metric.value(merge(*parts)), twin, rtol=1e-6)
    broken = jnp.where(MASK.reshape(40, *[1] * (outputs.ndim - 1)), outputs, jnp.nan)
    np.testing.assert_allclose(value(metric, broken, ignored), twin, rtol=1e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("function", "outputs", "targets"),
    [
        (hits, LOGITS, LABELS),
        (hits, LOGITS, SOFT),
        (functools.partial(hits, k=2), LOGITS, LABELS),
        (binary_hits, ONE, YES),
        (binary_hits, MANY, MANY_YES),
    ],
)
def test_masks_and_weights_travel_in_the_targets(function, outputs, targets):
    metric = mean(lambda z, y: function(z, y["y"], where=y["mask"]))
    shape = function(outputs, targets).shape
    mask = jnp.broadcast_to(MASK.reshape(40, *[1] * (len(shape) - 1)), shape)
    twin = value(mean(function), outputs[MASK], targets[MASK])
    np.testing.assert_allclose(
        value(metric, outputs, {"y": targets, "mask": mask}), twin, rtol=1e-6
    )
    weighted = mean(lambda z, y: Weighted(function(z, y["y"]), y["weights"]))
    weights = 2.5 * mask.astype(jnp.float32)
    got = value(weighted, outputs, {"y": targets, "weights": weights})
    np.testing.assert_allclose(got, twin, rtol=1e-6)
    with pytest.raises(ValueError, match="expected where of bools"):
        function(outputs, targets, where=weights)


def test_what_is_no_target_gives_nan():
    assert np.isnan(value(accuracy(), LOGITS, MASKED))  # -100 is no label of its own
    assert np.isnan(value(accuracy(), LOGITS, LABELS + 5))
    assert np.isnan(value(accuracy(), LOGITS, LOGITS))  # a regression on several numbers
    assert np.isnan(value(binary_accuracy(), ONE, LABELS))
    assert value(accuracy(), jnp.full((3, 2), jnp.nan), jnp.array([0, 1, 1])) == 0
    assert value(binary_accuracy(), jnp.full(3, jnp.nan), jnp.array([0, 1, 1])) == 0


@pytest.mark.slow
def test_soft_labels_of_narrow_dtypes_are_probabilities():
    classes = 1000
    p = jax.nn.softmax(jnp.asarray(normal(6, classes)))
    labels = p.argmax(axis=1)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert value(accuracy(), p, p.astype(dtype)) == value(
            accuracy(), p, p.astype(dtype).argmax(axis=1)
        )
    assert value(accuracy(), p, labels) == 1


def test_the_confusion_matrix_leaves_out_what_is_ignored():
    labels, predictions = np.asarray(MASKED), np.asarray(LOGITS).argmax(axis=1)
    kept = labels != -100
    found = confusion.matrix(labels, predictions, 5, ignore_index=-100)
    np.testing.assert_array_equal(found, confusion.matrix(labels[kept], predictions[kept], 5))
    tokens = confusion.matrix(labels.reshape(8, 5), predictions.reshape(8, 5), 5, ignore_index=-100)
    np.testing.assert_array_equal(tokens, found)
