"""GPT and Llama: their numbers, their masks, their forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import tree
from fnn.losses import fused_cross_entropy
from fnn.models.gpt import gpt, gpt2, gpt_features, llama
from fnn.models.transformer import post_norm

SIZES = {"vocab_size": 11, "max_length": 8, "features": 8, "num_layers": 2, "num_heads": 4}
TOKENS = jnp.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], jnp.int32)


def key(i=0):
    return jax.random.key(i)


def count(config):
    params, _ = jax.eval_shape(gpt(config).init, key(), jnp.zeros((1, 2), jnp.int32))
    return tree.count(params)


def test_the_parameters_are_as_many_as_published():
    assert count(gpt2()) == 124_439_808
    assert count(gpt2(features=1024, num_layers=24, num_heads=16)) == 354_823_168
    llama_3_2_1b = llama(
        vocab_size=128256,
        max_length=8192,
        features=2048,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        hidden_features=8192,
        tied=True,
    )
    assert count(llama_3_2_1b) == 1_235_814_400


def test_a_token_has_no_effect_on_the_logits_before_it():
    model = gpt(llama(**SIZES, num_kv_heads=2, hidden_features=12))
    params, _ = model.init(key(), TOKENS)
    changed = TOKENS.at[:, 3].set(0)
    one, other = (model.apply(params, (), x)[0] for x in (TOKENS, changed))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert not np.allclose(one[:, 3:], other[:, 3:])


def test_scanned_blocks_begin_as_blocks_in_a_list():
    plain, scanned = (gpt(gpt2(**SIZES, scan=scan)) for scan in (False, True))
    params, _ = plain.init(key(), TOKENS)
    stacked, _ = scanned.init(key(), TOKENS)
    np.testing.assert_array_equal(
        stacked["blocks"]["mlp"]["up"]["kernel"][1], params["blocks"][1]["mlp"]["up"]["kernel"]
    )


def test_a_list_of_blocks_and_a_scan_compute_the_same_with_the_same_noise():
    plain, scanned = (gpt(gpt2(**SIZES, scan=scan), rate=0.5) for scan in (False, True))
    outputs = []
    for model in (plain, scanned):
        params, _ = model.init(key(), TOKENS)
        outputs.append(model.apply(params, (), TOKENS, key=key(1), train=True)[0])
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    again = scanned.apply(params, (), TOKENS, key=key(2), train=True)[0]
    assert not np.allclose(outputs[1], again)


def test_dropout_in_training_needs_a_key():
    model = gpt(gpt2(**SIZES), rate=0.1)
    params, _ = model.init(key(), TOKENS)
    with pytest.raises(ValueError, match="gpt: expected a key with train=True"):
        model.apply(params, (), TOKENS, train=True)


def test_the_projections_into_the_residual_stream_begin_smaller():
    params, _ = gpt(gpt2(**{**SIZES, "features": 64})).init(key(), TOKENS)
    blocks = params["blocks"]
    for name, std in (("up", 0.02), ("down", 0.02 / 2)):
        kernels = np.concatenate([np.ravel(b["mlp"][name]["kernel"]) for b in blocks])
        # 32,768 draws: their std is within 2 % of the true one, five of its own deviations.
        np.testing.assert_allclose(kernels.std(), std, rtol=0.02)


def test_post_norm_ends_each_block_with_a_norm_and_needs_no_last_one():
    config = gpt2(**SIZES)
    block = config.block.__class__(**{**vars(config.block), "residual": post_norm})
    config = config.__class__(**{**vars(config), "block": block})
    params, _ = gpt(config).init(key(), TOKENS)
    assert "norm" not in params
    features = gpt_features(config, params, TOKENS)
    np.testing.assert_allclose(features.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=-1), 1, rtol=1e-2)


def test_the_fused_loss_of_the_features_is_the_loss_of_the_logits():
    config = gpt2(**SIZES)
    params, _ = gpt(config).init(key(), TOKENS)
    logits, _ = gpt(config).apply(params, (), TOKENS)
    features = gpt_features(config, params, TOKENS)
    fused = fused_cross_entropy(
        features.reshape(-1, 8), params["tokens"]["table"].T, TOKENS.ravel()
    )
    plain = -jnp.take_along_axis(jax.nn.log_softmax(logits), TOKENS[..., None], axis=-1)
    np.testing.assert_allclose(fused, plain.ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.zeros((1, 9), jnp.int32), "expected tokens of at most max_length = 8 steps, got 9"),
        (np.zeros(5, np.int32), r"expected tokens of shape \(batch, time\), got \(5,\)"),
        (np.zeros((1, 5), np.float32), "expected integer ids, got float32"),
    ],
)
def test_what_is_no_text_is_refused(x, message):
    with pytest.raises(ValueError, match=f"gpt: {message}"):
        gpt(gpt2(**SIZES)).init(key(), x)
