"""Packed sequences: nothing is lost, rows are full, and segments do not see each other."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn.data import pack
from fnn.layers import causal_mask, combine_masks, dot_product_attention, segment_mask
from fnn.losses import cross_entropy

LENGTHS = st.lists(st.integers(0, 23), min_size=1, max_size=30).filter(any)


def numbered(lengths):
    """Sequences in which every token is a number of its own, from 1."""
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end) + 1 for n, end in zip(lengths, ends, strict=True)]


@given(LENGTHS, st.integers(1, 12))
def test_every_token_comes_once_with_its_neighbors(lengths, length):
    tokens, segments, positions = pack(numbered(lengths), length, padding=-7)
    real = segments > 0
    assert sorted(tokens[real]) == list(range(1, sum(lengths) + 1))
    assert (tokens[~real] == -7).all() and (positions[~real] == 0).all()
    # One place on in a segment is the next token and the next position.
    goes_on = real[:, 1:] & (segments[:, 1:] == segments[:, :-1])
    assert (tokens[:, 1:] - tokens[:, :-1])[goes_on].tolist() == [1] * goes_on.sum()
    assert (positions[:, 1:] - positions[:, :-1])[goes_on].tolist() == [1] * goes_on.sum()
    starts = real.copy()
    starts[:, 1:] &= ~goes_on
    assert (positions[starts] == 0).all()
    assert starts.sum() == sum(-(-n // length) for n in lengths)  # each piece is one segment
    firsts = np.cumsum(lengths) - lengths
    cuts = {
        first + i + 1 for first, n in zip(firsts, lengths, strict=True) for i in range(0, n, length)
    }
    assert set(tokens[starts].tolist()) == cuts


@given(LENGTHS, st.integers(1, 12))
def test_segments_are_numbered_in_a_row_and_padding_ends_it(lengths, length):
    segments = pack(numbered(lengths), length).segments
    assert segments.dtype == np.int32 and (segments[:, 0] == 1).all()
    change = np.diff(segments, axis=1)
    ends = segments[:, 1:] == 0
    assert np.isin(change[~ends], (0, 1)).all()
    assert (np.diff(ends.astype(int), axis=1) >= 0).all()


@given(LENGTHS, st.integers(1, 12))
def test_rows_are_few(lengths, length):
    packed = pack(numbered(lengths), length)
    needed = -(-sum(lengths) // length)
    pieces = [min(length, n - i) for n in lengths for i in range(0, n, length)]
    # No two rows of best fit would fit into one, so all but one are more than half full; and pieces
    # above a half need a row each, whatever is done.
    fewest = max(needed, sum(2 * size > length for size in pieces))
    assert fewest <= len(packed.tokens) <= 11 / 9 * best(pieces, length) + 1
    filled = np.sort((packed.segments > 0).sum(1))
    assert len(filled) == 1 or filled[0] + filled[1] > length


def best(sizes, length):
    """A lower bound of the rows that any packing needs (Martello & Toth 1990, L2)."""
    bounds = []
    for small in range(length // 2 + 1):
        large = [s for s in sizes if s > length - small]
        medium = [s for s in sizes if length - small >= s > length / 2]
        rest = sum(s for s in sizes if small <= s <= length / 2)
        spare = length * len(medium) - sum(medium)
        bounds.append(len(large) + len(medium) + max(0, -(-(rest - spare) // length)))
    return max(bounds)


def test_sequences_that_fit_exactly_fill_every_row():
    packed = pack(numbered([5, 3, 6, 2, 4, 4]), 8)
    assert packed.tokens.shape == (3, 8) and (packed.segments > 0).all()


def test_tokens_keep_their_type():
    tokens = pack([np.array([1, 2], np.uint16)], 3).tokens
    assert tokens.dtype == np.uint16 and tokens.tolist() == [[1, 2, 0]]


def attend(x):
    """Causal attention of one head over (T, D), in float64."""
    scores = np.where(np.tri(len(x), dtype=bool), x @ x.T / np.sqrt(x.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ x


def test_a_packed_sequence_attends_as_if_it_were_alone():
    lengths = [5, 3, 4, 2]
    table = np.random.default_rng(0).normal(size=(sum(lengths) + 1, 4))
    packed = pack(numbered(lengths), 8)

    @jax.jit
    def together(x, segments):
        mask = combine_masks(causal_mask(8), segment_mask(segments))
        return dot_product_attention(x, x, x, mask=mask)

    x = table[packed.tokens][:, :, None].astype(np.float32)  # (rows, 8, one head, 4)
    y = np.asarray(together(x, packed.segments))[:, :, 0]
    for sequence in numbered(lengths):
        here = np.isin(packed.tokens, sequence)
        # float32 sums of at most 8 terms of about 1.
        np.testing.assert_allclose(y[here], attend(table[sequence]), rtol=1e-4, atol=1e-5)


@given(LENGTHS, st.integers(1, 12))
def test_labels_are_the_next_tokens_of_the_same_segment(lengths, length):
    packed = pack(numbered(lengths), length)
    labels = packed.labels(ignore_index=-1)
    counted = labels != -1
    assert (labels[counted] == packed.tokens[counted] + 1).all()
    pieces = sum(-(-n // length) for n in lengths)
    assert counted.sum() == sum(lengths) - pieces  # all but the last token of each piece


def test_an_ignored_label_that_is_a_token_is_refused():
    with pytest.raises(ValueError, match="expected an ignore_index that is no token, got 2"):
        pack(numbered([3]), 3).labels(ignore_index=2)


@pytest.mark.slow
def test_loss_and_gradient_do_not_depend_on_how_sequences_are_packed_and_padded():
    sequences = numbered([5, 3, 4, 2])
    logits_of = np.random.default_rng(0).normal(size=(15, 15)).astype(np.float32)  # a bigram model

    @jax.jit
    @jax.value_and_grad
    def loss(table, tokens, labels):
        return cross_entropy(table[tokens], labels, ignore_index=-100).mean()

    def of_rows(length, more_rows=0):
        packed = pack(sequences, length)
        extra = [(0, more_rows), (0, 0)]
        tokens = np.pad(packed.tokens, extra)
        return loss(logits_of, tokens, np.pad(packed.labels(), extra, constant_values=-100))

    expected = of_rows(8)
    for other in (of_rows(5), of_rows(20), of_rows(8, more_rows=3)):
        # float32 sums of 10 terms of about 1, in another order.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), other, expected
        )


@pytest.mark.parametrize(
    ("sequences", "length", "message"),
    [
        ([], 4, "pack: expected at least one token, got none"),
        ([np.array([], int)], 4, "pack: expected at least one token, got none"),
        ([np.array([1])], 0, "pack: expected a length of at least 1, got 0"),
        ([np.array([[1]])], 4, "got int64 of shape .1, 1. at 0"),
        ([np.array([1]), np.array([0.5])], 4, "got float64 of shape .1,. at 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(sequences, length, message):
    with pytest.raises(ValueError, match=message):
        pack(sequences, length)
