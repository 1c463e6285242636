"""The battery: the laws of fnn.testing over every row of the registry, also under `xla.plain`."""

from contextlib import nullcontext

import jax.numpy as jnp
import pytest

from fnn import testing, xla
from tests import registry
from tests.registry.rows import normal

# Long to compile, or a rule like that of another row, or made of rows.
SLOW_OPTIMIZERS = {
    "acprop", "adamax with decay", "adamw on some leaves", "add_l2 in front of adam", "ademamix",
    "amsgrad", "asam", "chain of a clip by norm and momentum", "chain of a clip by value and adam",
    "cocob", "dadapt_adam", "decoupled_decay of momentum", "dog", "dowg", "dynamic_loss_scale",
    "freeze a vector and train the rest", "fromage", "galore",
    "groups of adamw with a mask and lion", "kron", "lamb", "layerwise_lr_decay of nesterov",
    "lion with decay", "madgrad", "mechanize",
    "momo", "momo with a bound that adapts", "momo_adam with a bound that adapts", "nadamw",
    "noisy_sgd", "novograd", "optimistic_adam", "optimistic_gradient_descent",
    "reduce_on_plateau of momentum", "scheduled nesterov", "schedule_free_sgd",
    "sgd with nesterov", "shampoo", "shampoo in blocks", "signum",
    "simplified_ademamix on some leaves", "skip_spikes", "soap", "stochastic_rounding", "swa",
    "yogi",
}  # fmt: skip


@pytest.fixture(autouse=True, params=["", pytest.param("plain", marks=pytest.mark.slow)])
def program(request):
    with xla.plain() if request.param else nullcontext():
        yield


def over(rows, slow=()):
    """A test for each row; those of the slow ones bear the marker."""

    def marks(row):
        return [pytest.mark.slow] * (row.name in slow or getattr(row, "slow", False))

    params = [pytest.param(row, id=row.name, marks=marks(row)) for row in rows]
    return pytest.mark.parametrize("row", params)


@pytest.mark.sampled(24)
@over(registry.MODELS)
def test_the_laws_of_models_hold_for(row):
    testing.check_model(
        row.make(),
        row.x,
        noisy=row.noisy or "auto",
        rowwise=row.rowwise,
        smooth=row.smooth,
        policy="fnn",
    )


@pytest.mark.sampled(24)
@over(registry.OPTIMIZERS, SLOW_OPTIMIZERS)
def test_the_laws_of_optimizers_hold_for(row):
    testing.check_optimizer(
        row.make,
        row.scalars,
        lr=row.lr,
        leafwise=row.leafwise,
        decays=row.decays,
        draws=row.draws,
        linear_in_lr=row.linear_in_lr,
        skip=row.skip,
        policy="fnn",
    )


@pytest.mark.sampled(8)
@over(registry.TRANSFORMS)
def test_the_laws_of_transforms_hold_for(row):
    testing.check_transform(
        row.make, row.scalars, leafwise=row.leafwise, draws=row.draws, policy="fnn"
    )


@pytest.mark.sampled(18)
@over(registry.LOSSES)
def test_the_laws_of_losses_hold_for(row):
    testing.check_loss(
        row.loss,
        row.predictions,
        row.targets,
        rowwise=row.rowwise,
        at_least_zero=row.at_least_zero,
        policy="fnn",
    )


@pytest.mark.sampled(6)
@over(registry.FUNCTIONS)
def test_the_laws_of_activations_hold_for(row):
    x = jnp.asarray(normal(2, 3))
    testing.jit_equals_eager(row.function, x)
    testing.keeps_structure_and_dtype(row.function, x)
    testing.keeps_structure_and_dtype(row.function, x.astype(jnp.bfloat16))
    if row.elementwise:
        testing.is_elementwise(row.function, x)
    if row.smooth:
        testing.gradients_match_finite_differences(row.function, x)


@pytest.mark.sampled(5)
@over(registry.INITIALIZERS)
def test_the_laws_of_initializers_hold_for(row):
    testing.check_initializer(
        row.initializer, row.shape, std=row.std, random=row.random, policy="fnn"
    )


@pytest.mark.sampled(13)
@over(registry.SCHEDULES)
def test_the_laws_of_schedules_hold_for(row):
    testing.check_schedule(row.make, row.scalars, row.values, policy="fnn")


@pytest.mark.sampled(8)
@over(registry.METRICS)
def test_the_laws_of_metrics_hold_for(row):
    testing.check_metric(row.make(), row.predictions, row.targets, policy="fnn")


def test_every_slow_optimizer_is_a_row():
    assert SLOW_OPTIMIZERS <= {row.name for row in registry.OPTIMIZERS}
