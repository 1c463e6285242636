"""The plateau as a pure state transition: against Optax, and at worked values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnn import schedules


def factors(plateau, values):
    """The factor after each value."""

    def see(state, value):
        state = plateau.update(value, state)
        return state, state.factor

    return np.asarray(
        jax.jit(lambda v: jax.lax.scan(see, plateau.init(), v)[1])(jnp.float32(values))
    )


LOSSES = np.random.default_rng(0).uniform(1, 2, 60) * np.linspace(1.5, 1, 60)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_a_plateau_is_that_of_optax(patience, cooldown):
    """Whose patience is one more."""
    arguments = dict(factor=0.7, rtol=0.05, cooldown=cooldown)
    peer = optax.contrib.reduce_on_plateau(**arguments, patience=patience, min_scale=0.05)
    state, expected = peer.init({"w": jnp.zeros(1)}), []
    update = jax.jit(lambda value, state: peer.update({"w": jnp.zeros(1)}, state, value=value)[1])
    for loss in LOSSES:
        with jax.numpy_dtype_promotion("standard"):
            state = update(jnp.float32(loss), state)
        expected.append(state.scale)
    ours = factors(
        schedules.reduce_on_plateau(**arguments, patience=patience - 1, least=0.05), LOSSES
    )
    np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-6)
    assert len(set(ours.tolist())) > 3


def test_a_plateau_cuts_with_the_value_after_its_patience():
    plateau = schedules.reduce_on_plateau(factor=0.5, patience=1)
    np.testing.assert_array_equal(
        factors(plateau, [3, 2, 2, 2, 2, 2, 1]), [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    )


def test_a_plateau_rests_after_a_cut():
    plateau = schedules.reduce_on_plateau(factor=0.5, patience=0, cooldown=2)
    np.testing.assert_array_equal(
        factors(plateau, [1, 1, 1, 1, 1, 1]), [1, 0.5, 0.5, 0.5, 0.25, 0.25]
    )


def test_a_factor_falls_no_further_than_the_least():
    plateau = schedules.reduce_on_plateau(factor=0.1, patience=0, least=0.05)
    np.testing.assert_allclose(factors(plateau, [1, 1, 1, 1]), [1, 0.1, 0.05, 0.05])


def test_values_that_are_no_number_are_never_better():
    plateau = schedules.reduce_on_plateau(factor=0.5, patience=1)
    got = factors(plateau, [np.nan, np.nan, 1, np.inf, np.nan, 0.5])
    np.testing.assert_array_equal(got, [1, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_better_means_lower_for_negative_values_too():
    plateau = schedules.reduce_on_plateau(factor=0.5, patience=0, rtol=0.1)
    np.testing.assert_array_equal(factors(plateau, [-1.0, -0.95]), [1, 0.5])  # worse
    np.testing.assert_array_equal(factors(plateau, [-1.0, -1.05]), [1, 0.5])  # not enough
    np.testing.assert_array_equal(factors(plateau, [-1.0, -1.2]), [1, 1])


def test_the_arguments_of_a_plateau_may_be_swept():
    def last(factor, patience):
        plateau = schedules.reduce_on_plateau(factor=factor, patience=patience)
        return jax.lax.scan(
            lambda s, v: (plateau.update(v, s), None), plateau.init(), jnp.float32([1, 1, 1, 1, 1])
        )[0].factor

    swept = jax.jit(jax.vmap(last))(jnp.float32([0.5, 0.5, 0.1]), jnp.int32([0, 1, 3]))
    np.testing.assert_allclose(swept, [0.5**4, 0.5**2, 0.1], rtol=1e-6)
    assert jax.grad(last)(jnp.float32(0.5), 1) == 1  # of factor^2
