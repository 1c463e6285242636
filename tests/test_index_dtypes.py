"""Integers of any dtype mean the same ids, labels, lengths and masks: index arithmetic is wide."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import layers, losses, metrics, models, nn, order
from fnn.data import augment, class_weights, grouped_split, pack, stratified_split, windows
from fnn.generate import generate, sample
from fnn.models.bert import BERTInput, bert_base
from fnn.report import confusion
from fnn.types import Decoder
from tests.draws import ordinary

SLOW = [  # each compiles all functions anew
    pytest.param(dtype, marks=pytest.mark.slow)
    for dtype in ("int16", "uint16", "uint32", "int64", "uint64")
]
DTYPES = ["int8", "uint8", *SLOW]
SIZE = 300  # classes, positions, rows: more than int8 and uint8 hold
IDS = {  # small ones, and those just beyond what 8 bits hold, where the dtype holds them
    "int8": np.array([0, 5, 44, 127, 1, 100]),
    "uint8": np.array([0, 5, 44, 255, 128, 100]),
    "wide": np.array([0, 5, 44, 299, 256, 257]),
}
N = 6
TABLE = jnp.asarray(ordinary(SIZE, 3))
LOGITS = jnp.asarray(ordinary(N, SIZE, seed=1))
FRAMES = jnp.asarray(ordinary(2, SIZE, 4, seed=2))
LONG = jnp.asarray(ordinary(N, SIZE, 2, seed=3))
WEIGHTS = jnp.abs(jnp.asarray(ordinary(SIZE, seed=4)))


def where(mask, x):
    """The values of x (N, SIZE, 2) that a mask (1, 1, 1, SIZE) shows."""
    return jnp.where(mask[0, 0, 0][:, None], x[0], 0)


def _ctc(z, ids):
    """Labels of many classes, and lengths beyond 8 bits where the dtype has them."""
    labels = jnp.maximum(ids, jnp.ones_like(ids)).reshape(2, 3)
    lengths = jnp.array([2, 3]).astype(ids.dtype)
    return losses.ctc(
        jnp.tile(z.reshape(2, 3, SIZE), (1, 3, 1)),
        labels,
        label_lengths=lengths,
        blank=SIZE - 1,
    )


def _ctc_frames(z, ids):
    return losses.ctc(z, jnp.ones((2, 2), ids.dtype), logit_lengths=ids[2:4])


def _fused(kernel, ids):
    return losses.fused_cross_entropy(
        jnp.ones((N, 3), jnp.float32), kernel.T, ids, chunk_rows=4, label_smoothing=0.1
    )


def _attention(values, ids):
    mask = layers.padding_mask(ids, SIZE)
    return layers.dot_product_attention(
        jnp.ones((N, 1, 1, 2), jnp.float32), values[:, :, None], values[:, :, None], mask=mask
    )


def _segments(values, ids):
    segments = jnp.broadcast_to(ids[:, None], (N, 2))
    mask = layers.segment_mask(segments, jnp.concatenate([ids] * 50)[None].repeat(N, axis=0))
    query = jnp.ones((N, 2, 1, 2), jnp.float32)
    return layers.dot_product_attention(query, values[:, :, None], values[:, :, None], mask=mask)


def _last(values, ids):
    return nn.last_step().apply({}, (), (values, ids))[0]


def _mixed(values, ids):
    x, y = augment.mixup(0.0, classes=SIZE)(jax.random.key(0), (values, ids))
    return x, y


# name: (a function of floats and ids, the floats); ids are (N,) numbers in [0, SIZE)
DIFFERENTIABLE = {
    "cross_entropy": (losses.cross_entropy, LOGITS),
    "cross_entropy, ignored": (functools.partial(losses.cross_entropy, ignore_index=5), LOGITS),
    "cross_entropy, ignored and outside": (
        functools.partial(losses.cross_entropy, ignore_index=-100),
        LOGITS,
    ),
    "cross_entropy, weighted": (
        functools.partial(losses.cross_entropy, class_weights=WEIGHTS, label_smoothing=0.1),
        LOGITS,
    ),
    "focal": (losses.focal, LOGITS),
    "multiclass_hinge": (losses.multiclass_hinge, LOGITS),
    "dice": (lambda z, ids: losses.dice(z[None], ids[None]), LOGITS),
    "ctc of many classes": (_ctc, LOGITS),
    "ctc of many frames": (_ctc_frames, FRAMES),
    "fused_cross_entropy": (_fused, TABLE),
    "poisson": (lambda z, ids: losses.poisson(z[:, 0], ids), LOGITS),
    "mean_squared_error": (lambda z, ids: losses.mean_squared_error(z[:, 0], ids), LOGITS),
    "binary_cross_entropy": (
        lambda z, ids: losses.binary_cross_entropy(z[:, 0], (ids > 100).astype(ids.dtype)),
        LOGITS,
    ),
    "hinge": (lambda z, ids: losses.hinge(z[:, 0], (ids > 100).astype(ids.dtype)), LOGITS),
    "accuracy": (lambda z, ids: metrics.accuracy().measure(z, ids), LOGITS),
    "accuracy, ignored": (
        lambda z, ids: metrics.accuracy(ignore_index=-100).measure(z, ids),
        LOGITS,
    ),
    "perplexity": (metrics.perplexity(losses.cross_entropy).measure, LOGITS),
    "embedding": (lambda table, ids: layers.embedding({"table": table}, ids), TABLE),
    "learned_positions": (
        lambda table, ids: layers.learned_positions({"table": table}, 2, start=ids[1]),
        TABLE,
    ),
    "over_tokens": (
        lambda table, ids: layers.over_tokens(
            layers.rnn, RNN, table, jnp.concatenate([ids] * 60)[None]
        ),
        TABLE,
    ),
    "rnn of lengths": (lambda x, ids: layers.rnn(RNN_OF_2, x, lengths=ids), LONG),
    "reverse_sequences": (lambda x, ids: layers.reverse_sequences(x, lengths=ids), LONG),
    "last_step": (_last, LONG),
    "padding_mask": (_attention, LONG),
    "segment_mask": (_segments, LONG),
    "window_mask": (
        lambda x, ids: where(layers.window_mask(1, SIZE, before=ids[2], offset=ids[3]), x),
        LONG,
    ),
    "causal_mask": (lambda x, ids: where(layers.causal_mask(1, SIZE, offset=ids[3]), x), LONG),
    "rope": (lambda x, ids: layers.rope(x[:1, :N, None], ids), LONG),
    "alibi": (lambda x, ids: x[0, 0, 0] * layers.alibi(2, ids, ids[::-1]), LONG),
    "sinusoidal_positions": (
        lambda x, ids: layers.sinusoidal_positions(ids, 4) * x[0, :1, :1],
        LONG,
    ),
    "mixup": (_mixed, LONG),
}
RNN = jax.tree.map(jnp.asarray, layers.rnn_cell_init(jax.random.key(0), 3, 2))
RNN_OF_2 = layers.rnn_cell_init(jax.random.key(0), 2, 2)


def ids_in(dtype):
    return IDS.get(dtype, IDS["wide"])


def value_and_gradient(function, floats, ids):
    def total(floats):
        found = function(floats, ids)
        leaves = [leaf for leaf in jax.tree.leaves(found) if leaf.dtype == jnp.float32]
        return sum(jnp.sin(leaf).sum() for leaf in leaves), found

    return jax.value_and_grad(total, has_aux=True)(floats)


@jax.jit
def of_all(ids):
    return {name: value_and_gradient(*row, ids) for name, row in DIFFERENTIABLE.items()}


@functools.cache
def results(values, dtype):
    """Of every function: what it returns for the ids in a dtype, and its gradient."""
    with jax.enable_x64(dtype.endswith("64")):
        return jax.tree.map(np.asarray, of_all(jnp.asarray(ids_in(values).astype(dtype))))


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients_are_those_of_int32(dtype, name):
    values = dtype if dtype in IDS else "wide"
    got, expected = (results(values, each)[name] for each in (dtype, "int32"))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        # The same program but for casts of integers; float32 sums may be fused in another order.
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


COUNTING = Decoder(  # the token after t is t + 1
    init=lambda params, batch, length: (),
    step=lambda params, tokens, carry: (jax.nn.one_hot(tokens + 1, SIZE), carry),
)
HOST = {  # functions of ids on the host, or that make ids
    "generate": lambda ids: generate(
        COUNTING, {}, ids[None].repeat(2, 0), key(), max_tokens=2, temperature=0.0,
        lengths=ids[1:3] % 5 + 1,
    ),
    "sample, top_k": lambda ids: sample(key(), jnp.arange(300.0), top_k=jnp.asarray(ids[1])),
    "order": lambda ids: order.order(key(), jnp.asarray(ids[3]), 1000, 7),
    "mixture": lambda ids: order.mixture(key(), jnp.asarray(ids[3]), (100, 900), (1.0, 2.0), 7),
    "confusion.matrix": lambda ids: confusion.matrix(ids, ids[::-1].copy(), SIZE),
    "class_weights": lambda ids: class_weights(ids, SIZE),
    "stratified_split": lambda ids: stratified_split(key(), ids.repeat(4), (0.5, 0.5)),
    "grouped_split": lambda ids: grouped_split(key(), ids.repeat(4), (0.5, 0.5)),
    "windows": lambda ids: windows(ids, 2),
    "pack": lambda ids: pack([ids, ids[:2]], 4),
    "Packed.labels": lambda ids: pack([ids, ids[:2]], 4).labels(),
    "replace_by_synonyms": lambda ids: augment.replace_by_synonyms(
        1.0, jnp.minimum(jnp.arange(SIZE, dtype=jnp.int32)[:, None] + 1, int(ids.max()))
    )(key(), jnp.asarray(ids)),
    "delete_tokens": lambda ids: augment.delete_tokens(0.5, pad=0)(key(), jnp.asarray(ids)),
    "swap_tokens": lambda ids: augment.swap_tokens(2, pad=0)(key(), jnp.asarray(ids)),
    "mask_spans": lambda ids: augment.mask_spans(0.5, mask=1, pad=0)(key(), jnp.asarray(ids)),
    "smoothed labels of mixup": lambda ids: augment.mixup(0.5, classes=SIZE)(
        key(), (jnp.ones((N, 2)), jnp.asarray(ids))
    ),
}  # fmt: skip


def key():
    return jax.random.key(0)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", HOST)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "uint64"])
def test_ids_on_the_host_are_those_of_int32(dtype, name):
    ids = ids_in(dtype)
    got, expected = (HOST[name](ids.astype(each)) for each in (dtype, "int32"))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


BERT = dataclasses.replace(
    bert_base(vocab_size=SIZE, max_length=8, features=8, num_layers=1, num_heads=2),
    num_segments=SIZE,
)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_models_read_narrow_tokens_segments_and_lengths(dtype):
    ids = IDS[dtype][None].astype(dtype)
    model = models.bert.bert(BERT)

    @jax.jit
    def features(ids, lengths):
        x = BERTInput(ids, segments=ids, lengths=lengths)
        return model.apply(model.init(key(), x)[0], (), x)[0]

    narrow = features(ids, np.array([4], dtype))
    wide = features(ids.astype(np.int32), np.array([4], np.int32))
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_label_that_wraps_around_in_32_bits_is_out_of_range():
    with jax.enable_x64(True):
        for dtype in (jnp.int64, jnp.uint64):
            labels = jnp.array([2**32 + 1], dtype)
            assert jnp.isnan(losses.cross_entropy(LOGITS[:1], labels)).all()
            assert jnp.isnan(layers.embedding({"table": TABLE}, labels)).all()
    top = jnp.array([2**32 - 1], jnp.uint32)  # as int32 it would be -1, the last row
    assert jnp.isnan(losses.cross_entropy(LOGITS[:1], top)).all()
    assert layers.padding_mask(top, 3).all()


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (losses.cross_entropy, (jnp.ones((2, 4)), jnp.zeros(2, int))),
        (losses.fused_cross_entropy, (jnp.ones((2, 4)), jnp.ones((4, 5)), jnp.zeros(2, int))),
        (losses.huber, (jnp.ones(2), jnp.ones(2))),
        (losses.nt_xent, (jnp.ones((2, 3)), jnp.ones((2, 3)))),
    ],
)
def test_a_mask_that_is_not_of_bools_is_refused(loss, arguments, dtype):
    with pytest.raises(
        ValueError, match=f"expected where of bools, True for what counts, got {dtype}"
    ):
        loss(*arguments, where=jnp.ones(2, dtype))


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
def test_attention_masks_that_are_not_of_bools_are_refused(dtype):
    with pytest.raises(ValueError, match=f"expected masks of bools, .* got {dtype}"):
        layers.combine_masks(layers.causal_mask(2), jnp.zeros((1, 1, 2, 2), dtype))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: augment.mask_spans(0.5, mask=300, pad=0),
            "mask_spans: .* that holds 300, got uint8",
        ),
        (
            lambda: augment.delete_tokens(0.5, pad=-1),
            "delete_tokens: expected pad to be a non-negative integer, got -1",
        ),
        (
            lambda: augment.replace_by_synonyms(1.0, jnp.full((9, 1), 300)),
            "replace_by_synonyms: .* that holds 300, got uint8",
        ),
    ],
)
def test_a_token_that_the_dtype_cannot_hold_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()(key(), jnp.array([1, 2], jnp.uint8))
