"""The shapes in signatures are checked while the tests run."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from fnn.diagnose.range_curve import smooth
from fnn.initializers import normal
from fnn.keys import fold_name
from fnn.losses import cross_entropy
from fnn.optim import adam


def test_an_argument_of_the_wrong_rank_is_found():
    with pytest.raises(TypeCheckError, match="logits"):
        cross_entropy(jnp.float32(0), jnp.int32(0))


def test_an_argument_of_the_wrong_dtype_is_found():
    with pytest.raises(TypeCheckError, match="losses"):
        smooth(jnp.arange(3), 0.5)


def test_a_legacy_key_is_found():
    with pytest.raises(TypeCheckError, match="key"):
        fold_name(jax.random.key_data(jax.random.key(0)), "init")


def test_an_int_may_stand_for_a_float():
    assert normal(1)(jax.random.key(0), (2,)).shape == (2,)


def test_a_dataclass_may_hold_shapes_in_place_of_arrays():
    state = jax.eval_shape(adam().init, {"w": jnp.zeros(2)})
    assert state.m["w"].shape == (2,)
