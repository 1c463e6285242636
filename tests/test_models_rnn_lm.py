import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import models

TOKENS = jnp.asarray(np.random.default_rng(0).integers(5, size=(3, 6)), jnp.int32)


def config(cell=models.rnn_lm.RNN) -> models.rnn_lm.RNNLMConfig:
    return models.rnn_lm.RNNLMConfig(vocab_size=5, features=3, widths=(4, 6), cell=cell)


def start(cell=models.rnn_lm.RNN):
    """The config, its model and its parameters, none of them at 0."""
    model = models.rnn_lm.rnn_lm(config(cell))
    params, _ = jax.jit(model.init)(jax.random.key(0), TOKENS)
    return config(cell), model, jax.tree.map(lambda leaf: leaf + 0.1, params)


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("cell", [models.rnn_lm.RNN, models.rnn_lm.LSTM, models.rnn_lm.GRU])
def test_decoding_in_pieces_gives_the_logits_of_the_whole_sequence(cell):
    shape, model, params = start(cell)
    whole, _ = jax.jit(model.apply)(params, (), TOKENS)
    decoder = models.rnn_lm.rnn_decoder(shape)
    carry, parts = decoder.init(params, len(TOKENS), 6), []
    for piece in (TOKENS[:, :3], TOKENS[:, 3:4], TOKENS[:, 4:]):
        logits, carry = jax.jit(decoder.step)(params, piece, carry)
        parts.append(logits)
    # The same float32 products, summed in another order over at most 6 terms.
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, rtol=1e-5, atol=1e-6)


def test_the_plain_network_is_what_its_equations_say():
    _, model, params = start()
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = wide["embedding"]["table"][np.asarray(TOKENS)]
    for own in wide["layers"]:
        h, rows = np.zeros((3, own["hidden"]["kernel"].shape[0])), []
        for t in range(TOKENS.shape[1]):
            drive = x[:, t] @ own["input"]["kernel"] + own["input"]["bias"]
            h = np.tanh(drive + h @ own["hidden"]["kernel"])
            rows.append(h)
        x = np.stack(rows, axis=1)
    expected = x @ wide["head"]["kernel"] + wide["head"]["bias"]
    # Six steps of float32 rounding through tanh, whose slope is at most 1.
    np.testing.assert_allclose(model.apply(params, (), TOKENS)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_token_changes_its_own_logits_and_later_ones_alone():
    _, model, params = start()
    other = TOKENS.at[:, 3].set((TOKENS[:, 3] + 1) % 5)
    apply = jax.jit(model.apply)
    changed = apply(params, (), TOKENS)[0] != apply(params, (), other)[0]
    assert not changed[:, :3].any() and changed[:, 3:].any(axis=(0, 2)).all()


def test_every_dropout_has_noise_of_its_own_and_needs_a_key():
    # A cell that passes x on, ones in the table and a head that changes nothing.
    through = models.rnn_lm.Recurrent(
        lambda key, inputs, hidden: {}, lambda params, x, carry: (carry, x)
    )
    shape = models.rnn_lm.RNNLMConfig(vocab_size=40, features=40, widths=(40,), cell=through)
    model = models.rnn_lm.rnn_lm(shape, rate=0.5)
    head = {"kernel": jnp.eye(40), "bias": jnp.zeros(40)}
    params = {"embedding": {"table": jnp.ones((40, 40))}, "layers": [{}], "head": head}
    with pytest.raises(ValueError, match="rnn_lm: expected a key"):
        model.apply(params, (), TOKENS, train=True)
    apply = jax.jit(lambda key: model.apply(params, (), TOKENS, key=key, train=True)[0])
    y = np.asarray(apply(jax.random.key(0)))
    assert set(np.unique(y)) == {0, 4}  # two places that double what they keep
    # A quarter of 720, if the two are independent; a half if they share a mask. Five deviations.
    assert abs((y != 0).mean() - 0.25) < 5 * (0.25 * 0.75 / 720) ** 0.5
    assert (y != np.asarray(apply(jax.random.key(1)))).any()


def test_tokens_of_another_shape_or_kind_are_refused():
    shape, model, params = start()
    with pytest.raises(ValueError, match=r"rnn_lm: expected tokens of shape \(batch, time\)"):
        model.init(jax.random.key(0), TOKENS[0])
    with pytest.raises(ValueError, match="rnn_lm: expected integer ids"):
        model.apply(params, (), TOKENS.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"rnn_decoder: expected tokens of shape \(batch, time\)"):
        models.rnn_lm.rnn_decoder(shape).step(params, TOKENS[0], [])


def test_a_language_model_without_a_layer_is_refused():
    with pytest.raises(ValueError, match="rnn_lm: expected the width of one or more layers"):
        models.rnn_lm.rnn_lm(models.rnn_lm.RNNLMConfig(vocab_size=5, widths=()))
