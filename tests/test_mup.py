"""The coordinate check: what a few steps of Adam do to activations, at several widths."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, optim, tree
from fnn.activations import relu
from fnn.initializers import ones
from fnn.layers import linear
from fnn.optim.lr_scaling import _inputs_ratio

MLP = models.mlp.MLPConfig(widths=(64, 64), out_features=4)
GPT = models.gpt.gpt2(vocab_size=16, max_length=8, features=64, num_layers=1, num_heads=4)
STEPS = 4


def key(i=0):
    return jax.random.key(i)


def train(model, optimizer, lr, x, y):
    """Parameters before and after a few steps on one batch."""

    @jax.jit
    def run(key):
        params, _ = model.init(key, x)

        def step(carry, _):
            params, state = carry
            loss = lambda p: losses.cross_entropy(model.apply(p, (), x)[0], y).mean()  # noqa: E731
            updates, state = optimizer.update(jax.grad(loss)(params), state, params, lr)
            return (tree.add(params, updates), state), None

        first = (params, optimizer.init(params))
        return params, jax.lax.scan(step, first, None, length=STEPS)[0][0]

    return run(key())


def slope(widths, sizes):
    """Of the logarithm of a size over that of the width."""
    return np.polyfit(np.log(widths), np.log(sizes), 1)[0]


def size(x):
    return float(jnp.abs(x).mean())


def shapes(model, x):
    return jax.eval_shape(model.init, key(), x)[0]


X = jax.random.normal(jax.random.key(1), (8, 6))
Y = jnp.arange(8) % 4


def mlp_activations(params):
    h = X
    for layer in params["hidden"]:
        h = relu(linear(layer["linear"], h))
        yield h
    yield linear(params["head"], h)


def mlp_moves(width, with_mup):
    """How far four steps move each hidden layer's activations and the logits, in the mean."""
    config, optimizer = replace(MLP, widths=(width, width)), optim.adam()
    if with_mup:
        config = models.mup.mup_mlp(config, MLP)
        optimizer = optim.scaled_for_width(optimizer, shapes(models.mlp.mlp(MLP), X))
    before, after = train(models.mlp.mlp(config), optimizer, 0.003, X, Y)
    return [size(b - a) for a, b in zip(*map(mlp_activations, (before, after)), strict=True)]


WIDTHS = (64, 256, 1024)


@pytest.fixture(scope="module")
def mlp_by_width():
    return {way: np.array([mlp_moves(w, way) for w in WIDTHS]) for way in (False, True)}


@pytest.mark.slow
def test_in_an_mlp_with_mup_a_step_moves_activations_alike_at_every_width(mlp_by_width):
    moves = mlp_by_width[True]  # (widths, layers)
    # One seed with 8 examples: the exact law holds for infinite widths. The standard way has
    # slopes of about 1 for what is tested below, and a ratio of 10 and more.
    for layer in moves.T:
        assert abs(slope(WIDTHS, layer)) < 0.2
        assert layer.max() / layer.min() < 1.7


@pytest.mark.slow
def test_without_mup_a_wide_mlp_moves_further(mlp_by_width):
    moves = mlp_by_width[False]
    assert slope(WIDTHS, moves[:, 1]) > 0.5 and slope(WIDTHS, moves[:, 2]) > 0.5


@pytest.mark.slow
def test_at_the_width_of_the_base_mup_is_the_standard_way(mlp_by_width):
    np.testing.assert_allclose(mlp_by_width[True][0], mlp_by_width[False][0], rtol=1e-5)


TOKENS = jax.random.randint(jax.random.key(2), (4, 9), 0, 16)


def gpt_moves(width, with_mup):
    """How far four steps move the features before the head, and the logits."""
    config = models.gpt.gpt2(vocab_size=16, max_length=8, features=width, num_layers=1, num_heads=4)
    optimizer = optim.adam()
    if with_mup:
        config = models.mup.mup_gpt(config, GPT)
        optimizer = optim.scaled_for_width(optimizer, shapes(models.gpt.gpt(GPT), TOKENS[:, :-1]))
    model = models.gpt.gpt(config)
    both = train(model, optimizer, 0.003, TOKENS[:, :-1], TOKENS[:, 1:])
    a, b = (jax.jit(model.apply)(params, (), TOKENS[:, :-1])[0] for params in both)
    return size(b - a)


@pytest.mark.slow
def test_a_gpts_logits_move_alike_with_mup_and_further_without():
    narrow, wide = gpt_moves(64, True), gpt_moves(256, True)
    standard = gpt_moves(256, False)
    assert 0.6 < wide / narrow < 1.6  # four times as wide: 4^-0.36 to 4^0.34
    assert standard / narrow > 2.5  # at the base both ways are one, which is tested below


@pytest.mark.slow
def test_a_gpt_of_the_width_of_the_base_is_what_it_was():
    model, other = models.gpt.gpt(GPT), models.gpt.gpt(models.mup.mup_gpt(GPT, GPT))
    params, _ = model.init(key(), TOKENS[:, :-1])
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, (), TOKENS[:, :-1])[0],
        jax.jit(other.apply)(params, (), TOKENS[:, :-1])[0],
        rtol=1e-6,
    )


def test_a_head_that_is_not_tied_begins_smaller_and_is_not_multiplied():
    base = replace(GPT, tied=False, head_init=ones)
    wide = replace(
        models.gpt.gpt2(features=256, num_layers=1, num_heads=4), tied=False, head_init=ones
    )
    config = models.mup.mup_gpt(wide, base)
    assert config.head_multiplier == 1
    assert float(config.head_init(key(), (1,))[0]) == 0.25


def test_attention_is_scaled_by_the_features_of_a_head_not_by_their_root():
    wide = models.gpt.gpt2(features=256, num_layers=1, num_heads=4)
    assert models.mup.mup_gpt(wide, GPT).block.attend.keywords["scale"] == pytest.approx(4 / 64)


@pytest.mark.parametrize(
    ("path", "base", "shape", "times"),
    [
        ("hidden/0/linear/kernel", (6, 64), (6, 256), 1),  # reads the data
        ("hidden/1/linear/kernel", (64, 64), (256, 256), 4),
        ("head/kernel", (64, 10), (256, 10), 4),
        ("linear/bias", (64,), (256,), 1),
        ("tokens/table", (16, 64), (16, 256), 1),
        ("conv/kernel", (3, 3, 8, 8), (3, 3, 32, 32), 4),
        ("query/kernel", (64, 4, 16), (256, 4, 64), 4),  # wider heads
        ("query/kernel", (64, 4, 16), (256, 16, 16), 4),  # more heads
        ("query/kernel", (64, 4, 16), (256, 8, 32), 4),  # both
        ("out/kernel", (4, 16, 64), (4, 64, 256), 4),
        ("out/kernel", (4, 16, 64), (16, 16, 256), 4),
        ("out/kernel", (4, 16, 64), (8, 32, 256), 4),
        ("kernel", (64, 32), (256, 64), 4),  # not in proportion
    ],
)
def test_the_inputs_of_a_kernel_are_told_from_its_outputs(path, base, shape, times):
    assert _inputs_ratio(path, base, shape) == times


def test_scaled_blocks_are_scaled_one_by_one():
    # Blocks in a scan have a first axis of their number, which does not differ.
    assert _inputs_ratio("blocks/mlp/up/kernel", (2, 64, 256), (2, 256, 1024)) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: models.mup.mup_mlp(replace(MLP, widths=(8,)), MLP),
            "mup_mlp: expected 2 hidden layers, as the base has, got 1",
        ),
        (
            lambda: models.mup.mup_gpt(
                models.gpt.gpt2(features=128, num_layers=2, num_heads=4), GPT
            ),
            "mup_gpt: expected 1 layers and hidden features 2 times the base's",
        ),
        (
            lambda: _inputs_ratio("out/kernel", (4, 16, 64), (8, 32, 128)),
            "expected inputs and outputs of 'out/kernel' to grow alike",
        ),
        (
            lambda: optim.scaled_for_width(optim.sgd(), {"a": jnp.ones(1)}).update(
                {"b": jnp.ones(1)}, (), {"b": jnp.ones(1)}, 1.0
            ),
            "expected base to have the leaves of params",
        ),
    ],
)
def test_what_is_not_the_same_model_in_wider_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
