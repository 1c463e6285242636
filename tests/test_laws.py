"""The battery: the laws of fnn.testing over every row of the registry, also under `xla.plain`."""

from contextlib import nullcontext

import jax.numpy as jnp
import pytest

from fnn import testing, xla
from tests import registry
from tests.registry.rows import normal


@pytest.fixture(autouse=True, params=["", pytest.param("plain", marks=pytest.mark.slow)])
def program(request):
    with xla.plain() if request.param else nullcontext():
        yield


def over(rows):
    """A test for each row; those of the slow ones bear the marker."""
    marked = [
        pytest.param(row, id=row.name, marks=[pytest.mark.slow] * getattr(row, "slow", False))
        for row in rows
    ]
    return pytest.mark.parametrize("row", marked)


@over(registry.MODELS)
def test_the_laws_of_models_hold_for(row):
    testing.check_model(row.make(), row.x, noisy=row.noisy, rowwise=row.rowwise, smooth=row.smooth)


@over(registry.OPTIMIZERS)
def test_the_laws_of_optimizers_hold_for(row):
    testing.check_optimizer(
        row.make,
        row.scalars,
        lr=row.lr,
        leafwise=row.leafwise,
        decays=row.decays,
        draws=row.draws,
    )


@over(registry.TRANSFORMS)
def test_the_laws_of_transforms_hold_for(row):
    testing.check_transform(row.make, row.scalars, leafwise=row.leafwise, draws=row.draws)


@over(registry.LOSSES)
def test_the_laws_of_losses_hold_for(row):
    testing.check_loss(
        row.loss,
        row.predictions,
        row.targets,
        rowwise=row.rowwise,
        at_least_zero=row.at_least_zero,
    )


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


@over(registry.INITIALIZERS)
def test_the_laws_of_initializers_hold_for(row):
    testing.check_initializer(row.initializer, row.shape, std=row.std, random=row.random)


@over(registry.SCHEDULES)
def test_the_laws_of_schedules_hold_for(row):
    testing.check_schedule(row.make, row.scalars, row.values)


@over(registry.METRICS)
def test_the_laws_of_metrics_hold_for(row):
    testing.check_metric(row.make(), row.predictions, row.targets)
