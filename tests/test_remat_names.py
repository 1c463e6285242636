"""Rematerialization by name: the same values, and the memory that the policy leaves."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import nn
from fnn.models import encoder_decoder, gpt, resnet
from tests.compiled import expect_same

KEY = jax.random.key(0)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 6)))
POLICIES = [None, "nothing", "dots", "attention", ("query", "key", "value", "mlp_hidden")]


def config(policy, scan):
    small = gpt.gpt2(vocab_size=11, max_length=8, features=8, num_layers=2, num_heads=2, scan=scan)
    return replace(small, block=replace(small.block, remat=policy))


def loss(model, params, x):
    y, _ = model.apply(params, (), x, train=True, key=jax.random.key(1))
    return jnp.square(y).mean()


@pytest.mark.parametrize(
    "scan", [pytest.param(False, marks=pytest.mark.slow, id="list"), pytest.param(True, id="scan")]
)
def test_no_value_and_no_gradient_changes_with_the_policy(scan):
    plain = gpt.gpt(config(None, scan), rate=0.1)
    params, _ = plain.init(KEY, TOKENS)

    @jax.jit
    def all_gradients(params):
        models = [gpt.gpt(config(policy, scan), rate=0.1) for policy in POLICIES]
        return [jax.value_and_grad(lambda p, m=m: loss(m, p, TOKENS))(params) for m in models]

    expected, *others = all_gradients(params)
    for found in others:
        expect_same(found, expected, 1e-5)


def saved(policy):
    """The names of the residuals of a block, of those in `POLICIES`."""
    model = gpt.gpt(config(policy, scan=False))
    params, _ = jax.eval_shape(model.init, KEY, TOKENS)
    text = str(jax.make_jaxpr(jax.grad(lambda p: loss(model, p, TOKENS)))(params))
    return {name: text.count(f"name={name}]") for name in ("attention", "query", "mlp_hidden")}


def test_what_is_not_saved_is_computed_again():
    once, again = saved(None), saved("nothing")
    assert all(again[name] > once[name] for name in once)
    assert saved(("query", "mlp_hidden"))["query"] < again["query"]


@pytest.mark.slow
def test_an_encoder_and_a_decoder_follow_the_policy():
    small = encoder_decoder.transformer_base(vocab_size=11, features=8, num_layers=2, num_heads=2)
    x = (TOKENS, TOKENS[:, :4])
    models = [
        encoder_decoder.encoder_decoder(replace(small, block=replace(small.block, remat=policy)))
        for policy in (None, "nothing")
    ]
    params, _ = models[0].init(KEY, x)
    plain, again = (jax.jit(jax.grad(lambda p, m=m: loss(m, p, x)))(params) for m in models)
    # The gradient of a key's bias is 0: what is there are roundings.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
    jax.tree.map(close, again, plain)


@pytest.mark.parametrize("policy", ["nothing", ("conv",)])
def test_a_resnet_follows_the_policy(policy):
    small = resnet.resnet18(out_features=3)
    small = replace(small, depths=(1,), widths=(4,), stem_features=4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)
    plain, again = (resnet.resnet(replace(small, remat=p)) for p in (None, policy))
    params, state = plain.init(KEY, x)

    def gradients(model, params):
        def loss(params):
            y, new = model.apply(params, state, x, train=True)
            return jnp.square(y).sum(), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    got, expected = (jax.jit(lambda p, m=m: gradients(m, p))(params) for m in (again, plain))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, got, expected)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="expected policy to be one of 'nothing', .* 'attention'"):
        nn.remat(nn.linear(2), "atention")
