"""What would train without a word, and not as meant: an error, or a warning at the start."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fnn import layers, losses, nn, optim, schedules
from fnn.checkpoint import RunDir
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.train import fit, private_gradient, silent
from fnn.types import Batch, Data
from tests.registry import MODELS
from tests.tiny import BATCH, DATA, EVERY, HYPER, KEY, recipe


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Without the checks of annotations, and with the promotion of dtypes that JAX has."""
    jaxtyping.config.update("jaxtyping_disable", True)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jaxtyping.config.update("jaxtyping_disable", False)


def fit_tiny(recipe=recipe, data=DATA, **changes):
    arguments = dict(key=KEY, hyper=HYPER, steps=2 * EVERY, batch_size=BATCH, progress=silent)
    return fit(recipe, data, **(arguments | changes))


def test_patience_without_evaluations():
    with pytest.raises(ValueError, match="fit: expected eval_every beside patience=3, got None"):
        fit_tiny(patience=3)


def test_a_resume_with_fewer_steps_than_the_store_holds(tmp_path):
    store = RunDir(tmp_path)
    fit_tiny(store=store)
    with pytest.raises(ValueError, match="expected steps of at least the 10 that the store holds"):
        fit_tiny(store=store, resume=True, steps=4, eval_every=2 * EVERY)
    assert fit_tiny(store=store, resume=True).state.step == 10


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_])
def test_images_of_integers_into_a_linear_layer(dtype):
    def flat(hyper):
        return Recipe(
            sequential(nn.flatten(), nn.linear(2)),
            losses.cross_entropy,
            optim.sgd(),
            schedules.constant(hyper["lr"]),
        )

    images = Batch(IMAGES.astype(dtype), np.zeros(20, np.int32))
    got = f"got a traced {np.dtype(dtype).name}"
    with pytest.raises(ValueError, match=rf"linear: expected x .*of floats, {got}.*astype"):
        fit_tiny(flat, Data(train=images, valid=images), hyper={"lr": 0.1})


def _floats(row):
    return hasattr(row.x, "dtype") and jnp.issubdtype(row.x.dtype, jnp.floating)


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "row", [r for r in MODELS if _floats(r) and not r.slow], ids=lambda r: r.name
)
def test_no_layer_multiplies_integers_by_its_parameters(row):
    model = row.make()
    params, state = model.init(KEY, row.x)
    if not params:
        return
    with pytest.raises(ValueError, match="uint8|int"):
        model.apply(params, state, jnp.zeros(row.x.shape, jnp.uint8))


def with_batch_norm(hyper):
    return Recipe(
        sequential(nn.linear(3), nn.batch_norm(), nn.linear(2)),
        losses.cross_entropy,
        optim.sgd(),
        schedules.constant(hyper["lr"]),
    )


def test_batch_norm_trained_on_one_value_of_a_feature():
    with pytest.raises(ValueError, match=r"batch_norm: expected several values .* got one, in x of shape \(1, 3\)"):  # noqa: E501  # fmt: skip
        fit_tiny(with_batch_norm, hyper={"lr": 0.1}, batch_size=1)
    gradient = private_gradient(1.0, 0.0)  # each example by itself
    with pytest.raises(ValueError, match="batch_norm: expected several values"):
        fit_tiny(lambda h: with_batch_norm(h)._replace(gradient=gradient), hyper={"lr": 0.1})


@pytest.mark.slow
def test_batch_norm_trained_on_two_values_of_a_feature_warns_once():
    with pytest.warns(UserWarning, match="batch_norm: got two values of each feature") as caught:
        fit_tiny(with_batch_norm, hyper={"lr": 0.1}, batch_size=2)
    assert len({str(w.message) for w in caught}) == 1


@pytest.mark.slow
def test_batch_norm_counts_positions_as_values_and_evaluates_one():
    params, state = layers.batch_norm_init(3)
    layers.batch_norm(params, state, jnp.ones((1, 3, 3)), train=True)
    layers.batch_norm(params, state, jnp.ones((1, 3)), train=False)
