"""Logits of a language model in training: not all in memory, and the array to every reader."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, nn, optim, schedules
from fnn.losses import LazyLogits, lazy
from fnn.models import gpt
from fnn.recipe import Recipe
from fnn.train import make_init, make_step
from tests.compiled import expect_same
from tests.registry.rows import normal
from tests.shapes import unchecked

LAZY = LazyLogits(
    x=jnp.asarray(normal(2, 3, 4)),
    kernel=jnp.asarray(normal(4, 5, seed=1)),
    bias=jnp.asarray(normal(5, seed=2)),
)
ARRAY = LAZY.array()
LABELS = jnp.array([[0, 4, -100], [2, 1, 3]])

READ = {
    "a function": lambda z: jax.nn.log_softmax(z),
    "a NumPy function": lambda z: np.exp(z),
    "an operator": lambda z: 2 * z - z / 2,
    "a comparison": lambda z: (z > 0).astype(jnp.float32),
    "an index": lambda z: z[:, 0],
    "a method": lambda z: z.reshape(2, -1).max(axis=1),
    "a loop": lambda z: jnp.stack(list(z)),
    "shape and dtype": lambda z: jnp.zeros(z.shape, z.dtype) + z.ndim + len(z),
    "focal": lambda z: unchecked(losses.focal)(z, jnp.abs(LABELS) % 5),
    "cross_entropy of probabilities": lambda z: losses.cross_entropy(z, jnp.full((2, 3, 5), 0.2)),
    "accuracy": lambda z: metrics.hits(z, jnp.abs(LABELS) % 5),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_the_array_to(name):
    expect_same(READ[name](LAZY), READ[name](ARRAY))


def test_an_attribute_that_no_array_has_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'logits'"):
        LAZY.logits  # noqa: B018


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3}])
def test_a_loss_by_chunks_is_the_loss_of_all_logits(options, monkeypatch):
    def result(lazily):
        def loss(logits):
            given = logits if lazily else logits.array()
            return losses.cross_entropy(given, LABELS, ignore_index=-100, **options).mean()

        return jax.jit(jax.value_and_grad(loss))(LAZY)

    expected = result(lazily=False)
    expect_same(result(lazily=True), expected)
    monkeypatch.setattr(lazy, "is_large", lambda logits: True)
    monkeypatch.setattr("fnn.losses.classification.is_large", lambda logits: True)
    expect_same(result(lazily=True), expected, 1e-5)


def bytes_of_step(vocab_size, dtype):
    config = gpt.gpt2(vocab_size=vocab_size, max_length=256, features=8, num_layers=1, num_heads=1)

    def recipe(hyper):
        whole = Recipe(
            gpt.gpt(config), losses.cross_entropy, optim.sgd(), schedules.constant(hyper["lr"])
        )
        return nn.mixed_bfloat16(whole) if dtype == "bfloat16" else whole

    tokens = jax.ShapeDtypeStruct((16, 256), jnp.int32)
    key, hyper = jax.random.key(0), {"lr": 0.1}
    state = jax.eval_shape(make_init(recipe), key, hyper, tokens)
    step = jax.jit(make_step(recipe), donate_argnums=0)
    compiled = step.lower(state, (tokens, tokens), key, hyper).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_a_language_model_does_not_hold_its_logits(dtype):
    """4,096 tokens x 32,768 classes: 512 MiB in float32, in chunks of 128 MiB."""
    assert bytes_of_step(2**15, dtype) < 450 * 2**20


def test_narrow_features_stay_narrow_and_their_loss_is_wide():
    config = gpt.gpt2(vocab_size=11, max_length=8, features=8, num_layers=1, num_heads=2)
    model = nn.cast(gpt.gpt(config), jnp.bfloat16)
    tokens = jnp.zeros((1, 8), int)
    params, _ = model.init(jax.random.key(0), tokens)
    logits, _ = model.apply(params, (), tokens, train=True)
    assert isinstance(logits, LazyLogits) and logits.dtype == jnp.bfloat16
    assert losses.cross_entropy(logits, tokens).dtype == jnp.float32
    assert model.apply(params, (), tokens)[0].dtype == jnp.float32
