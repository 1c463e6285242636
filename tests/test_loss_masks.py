"""A mask hides elements from a loss: no value, no weight, no gradient, whatever they hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses
from tests.draws import ordinary

RTOL = 1e-6  # the same numbers, summed in another order


def _of_q(predictions, targets, *, where):
    return losses.quantile(predictions, targets, q=0.3, where=where)


def _gaussian(predictions, targets, *, where):
    return losses.gaussian_nll((predictions, predictions), targets, where=where)


def _probabilities(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


NUMBERS = ordinary(3, 2, seed=1)
LABELS = np.array([[0, 2], [1, 1], [2, 0]], np.int32)
SOFT = _probabilities(ordinary(3, 2, 4))
MASKED = {  # each with targets for three examples of two elements, or of two rows of logits
    "mean_squared_error": (losses.mean_squared_error, NUMBERS),
    "mean_absolute_error": (losses.mean_absolute_error, NUMBERS),
    "huber": (losses.huber, NUMBERS),
    "log_cosh": (losses.log_cosh, NUMBERS),
    "quantile": (_of_q, NUMBERS),
    "poisson": (losses.poisson, NUMBERS),
    "gaussian_nll": (_gaussian, NUMBERS),
    "binary_cross_entropy": (losses.binary_cross_entropy, NUMBERS),
    "binary_focal": (losses.binary_focal, NUMBERS),
    "hinge": (losses.hinge, NUMBERS),
    "squared_hinge": (losses.squared_hinge, NUMBERS),
    "binary_dice": (losses.binary_dice, NUMBERS),
    "cosine": (losses.cosine, NUMBERS),
    "cross_entropy": (losses.cross_entropy, LABELS),
    "focal": (losses.focal, LABELS),
    "multiclass_hinge": (losses.multiclass_hinge, LABELS),
    "dice": (losses.dice, LABELS),
    "cross_entropy of probabilities": (losses.cross_entropy, SOFT),
    "focal of probabilities": (losses.focal, SOFT),
    "kl_divergence": (losses.kl_divergence, SOFT),
    "jensen_shannon": (losses.jensen_shannon, SOFT),
}
WHERE = np.array([[True, True], [False, True], [False, False]])


def _predictions(targets):
    return ordinary(3, 2) if targets is NUMBERS else ordinary(3, 2, 4, seed=2)


def _with_nonsense(values, nonsense):
    """`values`, and `nonsense` wherever the mask hides them."""
    hidden = ~WHERE if values.ndim == 2 else ~WHERE[..., None]
    return np.where(hidden, nonsense, values).astype(values.dtype)


@functools.cache
def results(nonsense):
    """Of each loss: values and gradient under the mask, and the values of what it shows alone."""

    @jax.jit
    def compute(arrays):
        return {name: _compare(MASKED[name][0], *given) for name, given in arrays.items()}

    arrays = {}
    for name, (_, targets) in MASKED.items():
        predictions = _predictions(targets)
        bad_targets = _with_nonsense(targets, -7 if targets is LABELS else nonsense)
        arrays[name] = _with_nonsense(predictions, nonsense), bad_targets, predictions, targets
    return jax.tree.map(np.asarray, compute(arrays))


def _compare(loss, bad, bad_targets, predictions, targets):
    def total(p):
        found = loss(p, bad_targets, where=jnp.asarray(WHERE))
        return found.sum(), found

    gradient, found = jax.grad(total, has_aux=True)(bad)
    first = loss(predictions[:1], targets[:1], where=None)
    shown_of_second = loss(predictions[1:2, 1:], targets[1:2, 1:], where=None)
    return found, gradient, first, shown_of_second


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", MASKED)
def test_what_a_mask_hides_adds_nothing_and_has_gradient_0(name, nonsense):
    (values, weights), gradient, first, shown_of_second = results(nonsense)[name]
    np.testing.assert_allclose(values[:1], first, rtol=RTOL)
    np.testing.assert_allclose(values[1].ravel()[-1:], shown_of_second.ravel(), rtol=RTOL)
    assert (values[2] == 0).all() and (weights[2] == 0).all() and (weights[0] > 0).all()
    assert (gradient[~WHERE] == 0).all()
    assert np.isfinite(gradient).all() and (gradient[0] != 0).any()


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_of_another_shape_is_refused(name):
    loss, targets = MASKED[name]
    predictions, targets = jnp.asarray(_predictions(targets)), jnp.asarray(targets)
    with pytest.raises(ValueError, match=r"expected where of shape \(3, 2\), got \(3, 1\)"):
        loss(predictions, targets, where=jnp.ones((3, 1), bool))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", [losses.nt_xent, losses.sigmoid_contrastive])
def test_hidden_examples_are_nobodys_negatives(loss):
    a, b = ordinary(4, 3), ordinary(4, 3, seed=1)
    shown, bad = np.array([True, False, True, True]), a.copy()
    bad[1] = np.nan

    @jax.jit
    def masked(a, where):
        def total(a):
            found = loss(a, jnp.asarray(b), where=where)
            return found.sum(), found

        return jax.grad(total, has_aux=True)(a)

    gradient, (values, weights) = jax.tree.map(np.asarray, masked(bad, shown))
    assert weights.tolist() == shown.tolist()
    alone = jax.jit(loss)(a[shown], b[shown])
    np.testing.assert_allclose(values[shown], alone, rtol=1e-5)  # sums of other lengths
    assert values[1] == 0 and (gradient[1] == 0).all() and np.isfinite(gradient).all()
    nothing = masked(a, np.zeros(4, bool))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nothing))


def test_the_mean_over_a_batch_is_that_of_all_numbers_that_count():
    """An example with one number weighs a third of one with three."""
    p, t = ordinary(4, 3), ordinary(4, 3, seed=1)
    where = np.tri(4, 3, -1, dtype=bool)  # 0, 1, 2 and 3 of them
    found = losses.mean_squared_error(jnp.asarray(p), jnp.asarray(t), where=jnp.asarray(where))
    assert found.weights.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.mean(), np.square(p - t)[where].mean(), rtol=RTOL)
