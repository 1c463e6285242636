"""The proximal step of L1, against the soft threshold and scikit-learn's Lasso."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from tests.registry.rows import normal

ROWS, FEATURES = 200, 30
X = normal(ROWS, FEATURES)
TRUE = np.where(np.arange(FEATURES) % 6 == 0, 2.0, 0.0).astype(np.float32)
Y = X @ TRUE + 0.3 * normal(ROWS, seed=1)


def least_squares(params):
    return jnp.square(jnp.asarray(X) @ params["w"] + params["b"] - jnp.asarray(Y)).mean()


def minimized(optimizer, lr, steps=1000):
    def step(carry, _):
        params, state = carry
        grads = jax.grad(least_squares)(params)
        updates, state = optimizer.update(grads, state, params, lr)
        return (tree.add(params, updates), state), None

    params = {"b": jnp.zeros(()), "w": jnp.zeros(FEATURES)}
    start = params, optimizer.init(params)
    return jax.jit(lambda: jax.lax.scan(step, start, None, length=steps))()[0][0]


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_descent_with_a_proximal_step_is_the_lasso(alpha):
    linear_model = pytest.importorskip("sklearn.linear_model")
    peer = linear_model.Lasso(alpha=alpha, tol=1e-7, max_iter=100_000).fit(X, Y)
    optimizer = optim.proximal_l1(optim.sgd(), 2 * alpha, mask=tree.matching("w"))
    found = minimized(optimizer, lr=0.2)
    # Some hundred roundings of 6e-8 in the sums of the gradient.
    np.testing.assert_allclose(found["w"], peer.coef_, atol=2e-5)
    np.testing.assert_allclose(found["b"], peer.intercept_, atol=2e-5)
    np.testing.assert_array_equal(found["w"] == 0, peer.coef_ == 0)
    assert 5 <= (peer.coef_ == 0).sum() < FEATURES


def test_with_momentum_the_penalty_is_a_fraction_of_l1():
    """The velocity sums 1 / (1 - momentum) gradients, and the threshold none."""
    found = minimized(optim.proximal_l1(optim.sgd(momentum=0.5), 0.4), lr=0.05)
    expected = minimized(optim.proximal_l1(optim.sgd(), 0.2), lr=0.1)
    np.testing.assert_allclose(found["w"], expected["w"], atol=2e-5)
    assert (found["w"] == 0).sum() > 5


def test_an_average_of_zeros_is_zero():
    optimizer = optim.proximal_l1(optim.ema(optim.sgd(), decay=0.5), 0.5)
    assert (minimized(optimizer, lr=0.05)["w"] == 0).sum() > 5


def test_the_step_is_a_soft_threshold():
    optimizer, params = optim.proximal_l1(optim.sgd(), 2.0), {"w": jnp.float32([3, -3, 0.5, 0])}
    grads = {"w": jnp.float32([1, -1, 0, 10])}
    updates, _ = optimizer.update(grads, optimizer.init(params), params, 0.5)
    np.testing.assert_array_equal(params["w"] + updates["w"], [1.5, -1.5, 0, -4])


def test_bfloat16_parameters_become_exactly_zero_too():
    optimizer = optim.proximal_l1(optim.sgd(), 1.0)
    params = {"w": jnp.asarray([0.3, -0.2], jnp.bfloat16)}
    updates, _ = optimizer.update(params, optimizer.init(params), params, 0.5)
    np.testing.assert_array_equal(np.float32(tree.add(params, updates)["w"]), 0)
