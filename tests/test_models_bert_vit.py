"""BERT, ViT and the encoder-decoder: their numbers, what sees what, and decoding."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import tree
from fnn.generate import generate
from fnn.models.bert import BERTInput, bert, bert_base, masked_lm
from fnn.models.encoder_decoder import (
    encoder_decoder,
    encoder_decoder_decoder,
    transformer_base,
    with_source,
)
from fnn.models.transformer import pre_norm
from fnn.models.vit import vit, vit_base, vit_features

SIZES = {"vocab_size": 11, "features": 8, "num_layers": 2, "num_heads": 2}
PAD = 0
TOKENS = jnp.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], jnp.int32)
SOURCE = jnp.array([[1, 2, 3, 4], [5, 6, PAD, PAD]], jnp.int32)


def key(i=0):
    return jax.random.key(i)


def count(model, x):
    return tree.count(jax.eval_shape(model.init, key(), x)[0])


def weights(model, x):
    """Parameters large enough for every token to make a difference, drawn without a program."""

    def draw(path, leaf):
        numbers = 0.5 * np.random.default_rng(len(path) + leaf.size).normal(size=leaf.shape)
        return jnp.asarray(numbers + path.endswith("scale"), leaf.dtype)

    return tree.map_with_path(draw, jax.eval_shape(model.init, key(), x)[0])


def test_the_parameters_are_as_many_as_published():
    words = BERTInput(jax.ShapeDtypeStruct((1, 2), jnp.int32))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    assert count(bert(bert_base()), words) == 109_482_240
    assert count(vit(vit_base()), images) == 86_567_656
    # Without the pooler, with a head whose last kernel is the table: BertForMaskedLM.
    assert count(masked_lm(bert_base()), words) == 109_514_298
    large = vit_base(features=1024, num_layers=24, num_heads=16)
    assert count(vit(large), images) == 304_326_632


def test_the_2017_transformer_has_the_parameters_that_its_table_says():
    pair = (jax.ShapeDtypeStruct((1, 2), jnp.int32),) * 2
    # 65 million in table 3, rounded, with a vocabulary of "about 37,000".
    assert 62e6 < count(encoder_decoder(transformer_base(vocab_size=37_000)), pair) < 66e6


@cache
def bert_program():
    model = bert(bert_base(**{**SIZES, "num_layers": 1}, max_length=8))
    x = BERTInput(TOKENS, jnp.zeros_like(TOKENS), jnp.array([5, 3]))
    params = weights(model, x)
    apply = jax.jit(lambda x: model.apply(params, (), x)[0])
    return apply, x


def test_padding_changes_nothing_of_bert():
    apply, x = bert_program()
    changed = x._replace(tokens=x.tokens.at[1, 3:].set(0))
    one, other = apply(x), apply(changed)
    np.testing.assert_array_equal(one.features[1, :3], other.features[1, :3])
    np.testing.assert_array_equal(one.pooled, other.pooled)


def test_every_real_token_and_every_segment_counts_for_the_pooled_sentence():
    apply, x = bert_program()
    pooled = apply(x).pooled
    for place in range(3):
        for name in ("tokens", "segments"):
            value = getattr(x, name)
            other = apply(x._replace(**{name: value.at[1, place].set(1 - value[1, place] % 2)}))
            assert not np.allclose(other.pooled[1], pooled[1], atol=1e-4), (name, place)


@pytest.mark.slow
def test_a_vit_without_a_class_token_reads_the_mean_of_the_tiles():
    config = vit_base(
        patch_size=2, features=8, num_layers=1, num_heads=2, out_features=3, class_token=False
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    params = weights(vit(config), x)
    assert "class" not in params and params["positions"]["table"].shape == (6, 8)
    y, features = jax.jit(
        lambda x: (vit(config).apply(params, (), x)[0], vit_features(config, params, x))
    )(x)
    head = params["head"]
    expected = np.asarray(features).mean(axis=1) @ np.asarray(head["kernel"]) + head["bias"][None]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


CONFIGS = {
    "post-norm": transformer_base(**{**SIZES, "num_layers": 1}, hidden_features=12, pad=PAD),
    "pre-norm, learned, scanned": transformer_base(
        **SIZES, hidden_features=12, pad=PAD, source_vocab_size=7, max_length=9, scan=True,
        residual=pre_norm,
    ),
}  # fmt: skip


@cache
def translation(name):
    config = CONFIGS[name]
    model = encoder_decoder(config)
    params = weights(model, (SOURCE, TOKENS))
    apply = jax.jit(lambda source, target: model.apply(params, (), (source, target))[0])
    return config, params, apply


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_target_sees_its_past_and_all_of_its_source_but_the_padding(name):
    _, _, apply = translation(name)
    y = apply(SOURCE, TOKENS)
    later = apply(SOURCE, TOKENS.at[:, 3].set(0))
    np.testing.assert_array_equal(y[:, :3], later[:, :3])
    assert not np.allclose(y[:, 3:], later[:, 3:], atol=1e-3)
    for place in range(2):
        other = apply(SOURCE.at[1, place].set(3), TOKENS)
        assert not np.allclose(other[1], y[1], atol=1e-3)
        np.testing.assert_array_equal(other[0], y[0])


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_decoder_reads_in_pieces_and_more_padding_what_the_model_reads_at_once(name):
    config, params, apply = translation(name)
    decoder = encoder_decoder_decoder(config)

    @jax.jit
    def in_pieces(source, target):
        given = with_source(config, params, source)
        carry, outputs = decoder.init(given, 2, 5), []
        for piece in (target[:, :2], target[:, 2:3], target[:, 3:]):
            logits, carry = decoder.step(given, piece, carry)
            outputs.append(logits)
        return jnp.concatenate(outputs, axis=1)

    padded = jnp.pad(SOURCE, ((0, 0), (0, 2)), constant_values=PAD)
    expected = apply(SOURCE, TOKENS)
    # Logits of up to some tens, from float32 sums in another order.
    np.testing.assert_allclose(in_pieces(padded, TOKENS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_generation_takes_the_likeliest_token_of_the_whole_model_at_temperature_0():
    config, params, apply = translation("post-norm")
    given = jax.jit(lambda source: with_source(config, params, source))(SOURCE)
    decoder = encoder_decoder_decoder(config)
    new = generate(decoder, given, TOKENS[:, :1], key(1), max_tokens=4, temperature=0.0)
    written = jnp.concatenate([TOKENS[:, :1], new], axis=1)
    np.testing.assert_array_equal(apply(SOURCE, written)[:, :-1].argmax(axis=-1), new)


def test_a_head_of_its_own_and_a_table_of_the_source_have_their_parameters():
    config = CONFIGS["pre-norm, learned, scanned"]
    untied = type(config)(**{**vars(config), "tied": False})
    pair = (jax.ShapeDtypeStruct((1, 2), jnp.int32),) * 2
    params, _ = jax.eval_shape(encoder_decoder(untied).init, key(), pair)
    assert params["head"]["table"].shape == (11, 8)
    assert params["source"]["table"].shape == (7, 8)
    assert {"positions", "encoder_norm", "decoder_norm"} <= params.keys()


BERT, VIT = (
    bert(bert_base(**SIZES, max_length=4)),
    vit(vit_base(patch_size=2, features=4, num_heads=2)),
)
TRANSLATOR = encoder_decoder(CONFIGS["pre-norm, learned, scanned"])
integers = partial(jnp.zeros, dtype=jnp.int32)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (BERT, integers((1, 2)), "bert: expected a BERTInput, got"),
        (BERT, BERTInput(integers(3)), r"bert: expected tokens of shape \(batch, time\)"),
        (BERT, BERTInput(jnp.zeros((1, 2))), "bert: expected integer ids"),
        (BERT, BERTInput(integers((1, 5))), "bert: expected tokens of at most max_length = 4"),
        (BERT, BERTInput(integers((1, 2)), integers((1, 3))), r"segments of shape \(1, 2\)"),
        (BERT, BERTInput(integers((2, 2)), lengths=integers(1)), r"lengths of shape \(2,\)"),
        (VIT, jnp.zeros((1, 4, 4)), r"vit: expected x of shape \(batch, height, width, channels\)"),
        (VIT, jnp.zeros((1, 4, 5, 1)), "vit: expected a height and width that 2 divides"),
        (TRANSLATOR, integers((1, 2)), r"expected the pair \(source, target\), got"),
        (TRANSLATOR, (integers((1, 2)), jnp.zeros((1, 2))), "expected integer ids"),
        (TRANSLATOR, (integers(2), integers((1, 2))), r"source of shape \(batch, time\)"),
        (TRANSLATOR, (integers((1, 2)), integers((1, 10))), "target of at most max_length = 9"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model, x, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, key(), x)


def test_a_image_of_another_size_than_the_positions_is_refused():
    params, _ = jax.eval_shape(VIT.init, key(), jnp.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="vit: expected an image of 5 tokens, got 7"):
        jax.eval_shape(lambda p: VIT.apply(p, (), jnp.zeros((1, 4, 6, 1))), params)


def test_the_decoder_needs_a_target_for_each_source():
    config, params, _ = translation("post-norm")
    decoder = encoder_decoder_decoder(config)
    with pytest.raises(ValueError, match="expected as many targets as sources, 2, got 3"):
        jax.eval_shape(lambda p: decoder.init(with_source(config, p, SOURCE), 3, 5), params)
