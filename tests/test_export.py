"""Exported programs take any batch size, on every platform, and compute what the model does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from fnn import losses, models
from fnn.interop import export
from tests.registry import LOSSES, MODELS

KEY = jax.random.key(0)
ROWS = {row.name: row for row in MODELS}
# Rows whose code asks for the batch size where it is a number; the others run with the slow tests.
ASKING = [
    "conv",
    "conv of volumes, circular",
    "separable_conv",
    "conv_transpose",
    "moe",
    "moe of plain experts, one a token",
    "cnn",
    "rnn_lm",
]


def abstract(row):
    """The model of a row, with the shapes of its parameters and state."""
    model = row.make()
    return model, *jax.eval_shape(model.init, KEY, row.x)


def filled(shapes):
    """Numbers in [0.5, 1.5) of these shapes: parameters and statistics without a compilation."""
    draw = np.random.default_rng(0).uniform
    return jax.tree.map(lambda leaf: jnp.asarray(draw(0.5, 1.5, leaf.shape), leaf.dtype), shapes)


def expect_close(theirs, ours):
    # The same sums in float32, in another order where the form depends on the batch size.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), theirs, ours)


def resized(x, n):
    return jax.tree.map(lambda leaf: np.resize(leaf, (n, *leaf.shape[1:])), x)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", ROWS)
def test_every_model_is_lowered_for_any_batch_size_and_platform(name):
    model, params, state = abstract(ROWS[name])
    exported = export.function(model, params, state, ROWS[name].x)
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")
    batches = {str(shape.shape[0]) for shape in jax.tree.leaves(exported.in_avals[-1:])}
    assert batches == {"batch"}


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    "name", [n if n in ASKING else pytest.param(n, marks=pytest.mark.slow) for n in ROWS]
)
def test_at_several_batch_sizes_it_computes_what_the_model_does(name):
    model, *shapes = abstract(ROWS[name])
    exported = export.function(model, *shapes, ROWS[name].x, platforms=["cpu"])
    params, state = filled(shapes)

    @jax.jit
    def both(*batches):
        theirs = [exported.call(params, state, export._plain(x)) for x in batches]
        ours = [export._plain(model.apply(params, state, x)[0]) for x in batches]
        return theirs, ours

    theirs, ours = both(*(resized(ROWS[name].x, n) for n in (1, 3, 8)))
    expect_close(theirs, ours)


# Models of real size, where the form for the CPU depends on sizes that the small rows never reach.
LARGE = {
    "resnet18": (lambda: models.resnet.resnet(models.resnet.resnet18()), (224, 224, 3)),
    "vit": (lambda: models.vit.vit(models.vit.vit_base(num_layers=1)), (224, 224, 3)),
    "unet": (
        lambda: models.unet.unet(models.unet.UNetConfig(widths=(32, 64), out_features=2)),
        (32, 32, 3),
    ),
}


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", LARGE)
def test_models_of_real_size_are_lowered(name):
    make, shape = LARGE[name]
    model, x = make(), jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    export.function(model, *jax.eval_shape(model.init, KEY, x), x)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ASKING)
def test_gradients_are_lowered_for_any_batch_size_too(name):
    model, params, state = abstract(ROWS[name])

    def total(params, x):
        return model.apply(params, state_of_zeros, x, key=KEY, train=True)[0].sum()

    state_of_zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), state)
    x = ROWS[name].x
    (batch,) = jax_export.symbolic_shape("batch")
    any_x = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    jax_export.export(jax.jit(jax.grad(total)), platforms=export.PLATFORMS)(params, any_x)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
def test_losses_are_lowered_for_any_batch_size(row):
    shapes = export._any_batch(jax.tree.map(jnp.asarray, (row.predictions, row.targets)))
    jax_export.export(jax.jit(row.loss), platforms=export.PLATFORMS)(*shapes)


@pytest.mark.slow
def test_a_fused_loss_takes_any_number_of_rows():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(8, 30)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(10, 8)), jnp.float32)
    labels = jnp.arange(10, dtype=jnp.int32)

    def slope(x, labels):
        loss = lambda x: losses.fused_cross_entropy(x, kernel, labels, chunk_rows=4).sum()  # noqa: E731
        return jax.value_and_grad(loss)(x)

    (n,) = jax_export.symbolic_shape("n")
    shapes = jax.ShapeDtypeStruct((n, 8), x.dtype), jax.ShapeDtypeStruct((n,), labels.dtype)
    fused = jax_export.export(jax.jit(slope))(*shapes)
    for rows in (1, 4, 10):
        some = x[:rows], labels[:rows]
        expect_close(fused.call(*some), jax.jit(slope)(*some))
