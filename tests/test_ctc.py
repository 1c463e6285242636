"""CTC against torch, and against its definition: the sum over all alignments.

B batch, T frames, S labels, C classes.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from fnn import losses
from tests.against_torch import expect_like_torch
from tests.draws import drawn, integers, numbers, ordinary

B, T, S, C = 4, 6, 4, 3  # two labels besides the blank: most draws repeat one


def _finite(z, labels, frames, lengths):
    loss = losses.ctc(z, labels, logit_lengths=frames, label_lengths=lengths)
    return jnp.where(jnp.isinf(loss), 0, loss)


def _torch(z, labels, frames, lengths):
    log_p = F.log_softmax(z, -1).transpose(0, 1)
    return F.ctc_loss(
        log_p, labels.long(), frames.long(), lengths.long(), reduction="none", zero_infinity=True
    )


@pytest.mark.slow
@drawn
@given(
    z=numbers(B, T, C, size=8.0),
    labels=integers(B, S, start=1, below=C),
    frames=integers(B, start=1, below=T + 1),
    lengths=integers(B, below=S + 1),
)
def test_values_and_gradients_are_those_of_torch(z, labels, frames, lengths):
    frames[0], lengths[0] = T, 2  # one example that always fits
    expect_like_torch({"ctc": (_finite, _torch)}, z, labels, frames, lengths)


@jax.jit
def loss_and_gradient(z, labels, frames, lengths):
    def total(z):
        loss = losses.ctc(z, labels, logit_lengths=frames, label_lengths=lengths)
        return loss[: len(loss) // 2].sum() + loss[len(loss) // 2 :].sum(), loss

    gradient, loss = jax.grad(total, has_aux=True)(z)
    return loss, gradient


def by_definition(z, labels):
    """-log of the summed probability of every alignment that gives the labels."""
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    total = 0.0
    for alignment in itertools.product(range(p.shape[1]), repeat=len(p)):
        merged = [c for c, _ in itertools.groupby(alignment)]
        if [c for c in merged if c] == list(labels):
            total += np.prod(p[np.arange(len(p)), alignment])
    with np.errstate(divide="ignore"):
        return -np.log(total)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("frames", [1, 3, 6])
def test_it_is_the_sum_over_all_alignments(frames):
    z = ordinary(B, T, C)
    sequences = [[], [1], [1, 1], [2, 1, 2]]
    labels = np.array([s + [1] * (S - len(s)) for s in sequences], np.int32)
    lengths = np.array([len(s) for s in sequences], np.int32)
    loss, _ = loss_and_gradient(z, labels, np.full(B, frames, np.int32), lengths)
    expected = [by_definition(row[:frames], s) for row, s in zip(z, sequences, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)  # six float32 log-sum-exps


LABELS = np.array([[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 1, 1], [2, 1, 1, 1]], np.int32)
FRAMES = np.array([6, 4, 5, 2], np.int32)
LENGTHS = np.array([4, 4, 3, 0], np.int32)


def test_labels_that_do_not_fit_cost_infinity_with_gradient_0():
    loss, gradient = loss_and_gradient(ordinary(B, T, C), LABELS, FRAMES, LENGTHS)
    # Four equal labels need three blanks between them: seven frames.
    assert np.isinf(loss).tolist() == [True, False, False, False]
    assert (gradient[0] == 0).all()
    assert np.isfinite(gradient).all() and (gradient[1] != 0).any()


def test_nothing_after_the_lengths_has_an_effect():
    z = ordinary(B, T, C)
    loss, gradient = loss_and_gradient(z, LABELS, FRAMES, LENGTHS)
    late_frame = np.arange(T)[None] >= FRAMES[:, None]
    late_label = np.arange(S)[None] >= LENGTHS[:, None]
    other = np.where(late_frame[..., None], np.nan, z).astype(np.float32)
    labels = np.where(late_label, [[-1, 0, 99, 2]], LABELS).astype(np.int32)
    other_loss, other_gradient = loss_and_gradient(other, labels, FRAMES, LENGTHS)
    np.testing.assert_array_equal(loss, other_loss)
    np.testing.assert_array_equal(gradient, other_gradient)
    assert (gradient[late_frame] == 0).all()


@pytest.mark.parametrize("wrong", [-1, C])
def test_a_label_out_of_range_gives_nan_and_not_another_loss(wrong):
    labels = LABELS.copy()
    labels[1, 2] = wrong
    loss, _ = loss_and_gradient(ordinary(B, T, C), labels, FRAMES, LENGTHS)
    assert np.isnan(loss).tolist() == [False, True, False, False]


@pytest.mark.parametrize("wrong", [-1, S + 1])
def test_a_label_length_out_of_range_gives_nan(wrong):
    lengths = LENGTHS.copy()
    lengths[1] = wrong
    loss, _ = loss_and_gradient(ordinary(B, T, C), LABELS, FRAMES, lengths)
    assert np.isnan(loss).tolist() == [False, True, False, False]


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_and_impossible_classes_have_finite_gradients(size):
    z = size * ordinary(B, T, C)
    z[2, :, 0] = -np.inf  # no blank: labels can still follow each other
    z[1, :, 1] = -np.inf  # a label that is needed
    loss, gradient = loss_and_gradient(z, LABELS, FRAMES, LENGTHS)
    assert np.isinf(loss).tolist() == [True, True, False, False]
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_any_class_may_be_the_blank():
    z = jnp.asarray(ordinary(2, 3, C))
    labels = jnp.array([[1, 2], [2, 2]])
    moved = losses.ctc(jnp.roll(z, -1, axis=-1), labels - 1, blank=C - 1)
    np.testing.assert_allclose(moved, losses.ctc(z, labels), rtol=1e-6)  # sums in another order


@pytest.mark.slow
def test_no_labels_at_all_leave_only_blanks():
    z = jnp.asarray(ordinary(2, 3, C))
    expected = -jax.nn.log_softmax(z)[..., 0].sum(axis=1)
    got = losses.ctc(z, jnp.zeros((2, 0), jnp.int32))
    np.testing.assert_allclose(got, expected, rtol=1e-6)  # three sums


def test_long_sequences_keep_their_digits():
    z, labels = ordinary(1, 400, 5), 1 + np.arange(60, dtype=np.int32)[None] % 4
    got = jax.jit(losses.ctc)(z, labels)
    log_p = F.log_softmax(torch.tensor(z, dtype=torch.float64), -1).transpose(0, 1)
    expected = F.ctc_loss(log_p, torch.tensor(labels).long(), [400], [60], reduction="none")
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # 400 additions to a sum of about 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": jnp.zeros((3, 2), jnp.int32)}, r"expected labels of shape \(2, 2\)"),
        ({"label_lengths": jnp.zeros(3, jnp.int32)}, r"expected label_lengths of shape \(2,\)"),
        ({"logit_lengths": jnp.zeros(1, jnp.int32)}, r"expected logit_lengths of shape \(2,\)"),
        ({"blank": C}, r"expected blank in \[0, 3\), got 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    given = {"logits": jnp.zeros((2, 4, C)), "labels": jnp.ones((2, 2), jnp.int32), **arguments}
    with pytest.raises(ValueError, match=f"ctc: {message}"):
        losses.ctc(**given)
