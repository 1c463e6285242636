"""The squares of finite numbers may leave float32; what is computed from them must not.

A law for each kind, at the ends of the range: what does not depend on the scale of its input gives
the same at 1e30 as at 1, what is proportional to it gives 1e30 times as much.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import layers, losses, optim, tree
from fnn.autodiff import safe_norm
from fnn.data import fit_standardizer
from fnn.data.augment import add_noise, smote
from fnn.layers._normalization import moments
from tests.registry.rows import normal


def key():
    return jax.random.key(0)


HUGE, TINY = [1e20, 1e36], [1e-25, 1e-30]
X = normal(6, 8)
TREE = {"a": X[:2], "b": X[2:].reshape(4, 2, 4)}
RTOL = 2e-6  # some ten roundings


def scaled(values, scale):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) * jnp.float32(scale), values)


def expect_close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        largest = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(np.asarray(a), b, rtol=0, atol=5 * RTOL * largest)


NORMS = {
    "layer_norm": lambda x: layers.layer_norm(layers.layer_norm_init(8), x),
    "layer_norm without scale": lambda x: layers.layer_norm({}, x),
    "rms_norm": lambda x: layers.rms_norm(layers.rms_norm_init(8), x),
    "group_norm": lambda x: layers.group_norm(layers.group_norm_init(8), x, num_groups=2),
    "instance_norm": lambda x: layers.instance_norm(
        layers.instance_norm_init(2), x.reshape(6, 4, 2)
    ),
    "batch_norm": lambda x: layers.batch_norm(*layers.batch_norm_init(8), x, train=True)[0],
    "spectral_norm": lambda x: layers.spectral_norm(
        x, layers.spectral_norm_init(key(), x), train=True
    )[0],
    "weight_norm": lambda x: layers.weight_norm({"direction": x, "scale": jnp.ones(8)}),
    "cosine": lambda x: losses.cosine(x, jnp.asarray(X[::-1])),
    "nt_xent": lambda x: losses.nt_xent(x, jnp.asarray(X[::-1])),
    "sigmoid_contrastive": lambda x: losses.sigmoid_contrastive(x, jnp.asarray(X[::-1])),
    "newton_schulz": lambda x: optim.newton_schulz(x),
    "standardizer": lambda x: fit_standardizer(x).apply(x),
    "clip_by_global_norm": lambda x: clipped(optim.clip_by_global_norm(1.0), x),
    "clip_by_leaf_norm": lambda x: clipped(optim.clip_by_leaf_norm(1.0), x),
    "adaptive_clip": lambda x: clipped(optim.adaptive_clip(1e-2), x),
    "lars": lambda x: updated(optim.lars(), x),
    "fromage": lambda x: updated(optim.contrib.fromage(), x),
    "sam, uphill": lambda x: x / tree.global_norm({"w": x}),
}
# eps is above the square of the smallest numbers of these, and rightly so.
WITH_EPS = {
    "layer_norm", "layer_norm without scale", "rms_norm", "group_norm", "instance_norm",
    "batch_norm", "weight_norm", "newton_schulz",
}  # fmt: skip
# A ratio of norms would be below the smallest number of float32.
RATIOS = {"adaptive_clip", "lars"}
BOUNDED = {"clip_by_global_norm", "clip_by_leaf_norm", "adaptive_clip", "fromage"}


def clipped(clip, grads):
    params = {"w": jnp.ones_like(grads)}
    return clip.update({"w": grads}, clip.init(params), params)[0]["w"]


def updated(optimizer, grads):
    params = {"w": jnp.ones_like(grads)}
    return optimizer.update({"w": grads}, optimizer.init(params), params, 0.1)[0]["w"]


@pytest.mark.parametrize("name", NORMS)
def test_what_is_free_of_scale_is_so_at_the_ends_of_float32(name):
    at = jax.jit(NORMS[name])
    usual = at(jnp.asarray(X) * 1e3)
    for scale in ([1e20, 1e30] if name in RATIOS else HUGE) + (
        [] if name in WITH_EPS | BOUNDED else TINY
    ):
        expect_close(at(jnp.asarray(X) * jnp.float32(scale)), usual)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "cosine", "weight_norm"])
def test_gradients_at_the_end_of_float32_are_those_elsewhere(name):
    """The gradient of what is free of scale falls with the scale."""
    weights = jnp.asarray(normal(6, 8, seed=3))

    @jax.jit
    def slope(x):
        def total(x):
            y = NORMS[name](x)
            return (y * weights).sum() if y.ndim == 2 else (y * weights[:, 0]).sum()

        return jax.grad(total)(x)

    expect_close(slope(jnp.asarray(X) * 1e20) * 1e20, slope(jnp.asarray(X) * 1e3) * 1e3)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("scale", [*HUGE, *TINY, 1.0])
def test_norms_of_trees_and_arrays_follow_the_scale(scale):
    expected = np.sqrt(sum((np.float64(leaf) ** 2).sum() for leaf in TREE.values()))
    got = jax.jit(tree.global_norm)(scaled(TREE, scale))
    np.testing.assert_allclose(got, expected * np.float64(np.float32(scale)), rtol=RTOL)
    slope = jax.jit(jax.grad(tree.global_norm))(scaled(TREE, scale))
    expect_close(slope, jax.tree.map(lambda leaf: leaf / np.float32(expected), TREE))
    for axis in (None, 0, 1):
        rows = safe_norm(scaled(X, scale), axis) / jnp.float32(scale)
        np.testing.assert_allclose(
            rows, np.sqrt((np.float64(X) ** 2).sum(axis, keepdims=True)), rtol=RTOL
        )


@pytest.mark.parametrize("scale", [*HUGE, *TINY])
def test_distances_follow_the_scale(scale):
    a, b, c = (normal(4, 3, seed=i) for i in range(3))
    at = [losses.triplet(*scaled((a, b, c), s), margin=0.0) for s in (1.0, scale)]
    np.testing.assert_allclose(at[1] / jnp.float32(scale), at[0], rtol=1e-5)


@pytest.mark.parametrize("scale", [*HUGE, *TINY])
def test_statistics_follow_the_scale(scale):
    fitted = fit_standardizer(scaled(X, scale))
    np.testing.assert_allclose(
        fitted.std[0] / jnp.float32(scale), np.float64(X).std(axis=0), rtol=1e-5
    )
    mean, _ = moments(scaled(X, scale), (0,))
    np.testing.assert_allclose(mean[0] / jnp.float32(scale), X.mean(axis=0), rtol=1e-5, atol=1e-7)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("scale", [*HUGE, *TINY])
def test_trust_ratios_follow_the_scale_of_the_parameters(scale):
    params, grads = {"w": jnp.asarray(X)}, {"w": jnp.asarray(X[::-1])}
    for optimizer in (optim.lars(), optim.lamb()):

        @jax.jit
        def update(params, optimizer=optimizer):
            return optimizer.update(grads, optimizer.init(params), params, 0.1)[0]

        expect_close(scaled(update(scaled(params, scale)), 1 / scale), update(params))


def test_infinity_and_nan_pass_on():
    for value, expected in ((jnp.inf, jnp.inf), (jnp.nan, jnp.nan)):
        values = {"a": jnp.ones(3), "b": jnp.array([1e30, value, 0])}
        np.testing.assert_array_equal(tree.global_norm(values), expected)
    both = {"a": jnp.array([jnp.nan]), "b": jnp.array([jnp.inf])}
    assert jnp.isnan(tree.global_norm(both))
    grads = {"w": jnp.array([jnp.inf, 1.0])}
    assert jnp.isnan(optim.clip_by_global_norm(1.0).update(grads, (), grads)[0]["w"]).any()


def test_a_norm_beyond_float32_is_clipped_all_the_same():
    grads = {"w": jnp.full(100, 3e38)}
    np.testing.assert_allclose(
        optim.clip_by_global_norm(1.0).update(grads, (), grads)[0]["w"], 0.1, rtol=RTOL
    )


def test_in_the_usual_range_not_a_bit_is_changed():
    """The scale is 1 there."""
    assert tree.scaled_norm(TREE)[0] == 1


@pytest.mark.slow
def test_neighbors_and_noise_are_found_at_every_scale():
    rows = smote(key(), scaled(X, 1e25), 5) / jnp.float32(1e25)
    np.testing.assert_allclose(rows, smote(key(), jnp.asarray(X), 5), rtol=1e-5, atol=1e-5)
    wave = jnp.asarray(normal(100))
    noisy = add_noise(10.0)(key(), wave * 1e25) / jnp.float32(1e25)
    np.testing.assert_allclose(noisy, add_noise(10.0)(key(), wave), rtol=1e-5, atol=1e-6)


def test_a_gaussian_with_a_large_variance_has_its_likelihood():
    error, log_var = jnp.float32([[1e20]]), jnp.float32([[92.0]])
    loss = losses.gaussian_nll((error, log_var), jnp.zeros((1, 1)))
    np.testing.assert_allclose(loss, 0.5 * (92 + 1e40 * np.exp(-92.0)), rtol=1e-5)
