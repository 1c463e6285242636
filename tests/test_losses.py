"""What must hold of losses by their definition: laws, extremes, labels, scalars, penalties."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from fnn import losses
from tests.draws import drawn, integers, numbers, ordinary, probabilities, products

ROUNDING = 1e-6  # a dozen float32 roundings of numbers of about 1


def run(loss, *arrays, **options):
    """The losses, compiled: operation by operation each test would compile dozens of programs."""
    return np.asarray(products(jax.jit(functools.partial(loss, **options))(*arrays)))


def value_and_gradient(loss, predictions, *rest):
    """The losses, and the gradient of their sum, as NumPy arrays; compiled together."""

    def total(predictions):
        values = loss(predictions, *rest)
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(predictions)
    return np.asarray(values), jax.tree.map(np.asarray, gradient)


# Cross-entropy.


@jax.jit
def cross_entropies(z, y, p, shift):
    """What the laws below compare, from one compilation."""
    ce = losses.cross_entropy
    return {
        "labels": ce(z, y),
        "gradient": jax.grad(lambda z: ce(z, y).sum())(z),
        "softmax less one-hot": jax.nn.softmax(z) - jax.nn.one_hot(y, z.shape[-1]),
        "one-hot": ce(z, jax.nn.one_hot(y, z.shape[-1])),
        "shifted": ce(z + shift, y),
        "smoothed by 0": ce(z, y, label_smoothing=0 * shift),
        "smoothed": ce(z, y, label_smoothing=0.25),
        "smoothed twice as much": ce(z, y, label_smoothing=0.5),
        "soft": ce(z, p),
        "kl": losses.kl_divergence(z, p),
        "focal": losses.focal(z, y, gamma=0.0),
        "soft focal": losses.focal(z, p, gamma=0.0),
    }


@pytest.mark.slow
@drawn
@given(z=numbers(5, 4), y=integers(5, below=4), p=probabilities(5, 4))
def test_the_laws_of_cross_entropy(z, y, p):
    z = np.round(z * 256) / 256  # so that adding 128 is exact
    got = {k: np.asarray(v) for k, v in cross_entropies(z, y, p, np.float32(128)).items()}
    labels = got["labels"]
    assert (labels >= 0).all()
    size = ROUNDING * max(1, labels.max())

    def expect(name, other, atol=size):
        np.testing.assert_allclose(got[name], other, rtol=0, atol=atol, err_msg=name)

    expect("one-hot", labels)
    expect("shifted", labels)
    expect("gradient", got["softmax less one-hot"], ROUNDING)
    expect("gradient", got["gradient"] - got["gradient"].sum(-1, keepdims=True), ROUNDING)
    expect("smoothed by 0", labels)
    expect("smoothed twice as much", labels + 2 * (got["smoothed"] - labels), 4 * size)
    expect("focal", labels)
    expect("soft focal", got["soft"])
    assert (got["kl"] >= -ROUNDING).all()
    expect("kl", got["soft"] + (p * np.log(p)).sum(-1))


@pytest.mark.parametrize("classes", [2, 7])
def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes(classes):
    loss = run(losses.cross_entropy, np.full((1, classes), 3, np.float32), np.array([1]))
    np.testing.assert_allclose(loss, math.log(classes), rtol=ROUNDING)


def test_cross_entropy_of_large_logits_keeps_its_digits():
    # log(1 + exp(-1)) in the end, which a sum with 1e4 would round to 0.3125.
    loss = run(losses.cross_entropy, np.array([[1e4, 1e4 - 1]], np.float32), np.array([0]))
    np.testing.assert_allclose(loss, math.log1p(math.exp(-1)), rtol=ROUNDING)


OF_LABELS = [losses.cross_entropy, losses.focal, losses.multiclass_hinge, losses.dice]


@jax.jit
def with_labels(z, y):
    return [loss(z, y).reshape(len(z), -1) for loss in OF_LABELS]


@pytest.mark.parametrize("wrong", [-1, 4, 100])
def test_a_label_out_of_range_gives_nan_and_not_the_loss_of_another_class(wrong):
    y = np.array([[0, 1], [3, wrong], [2, 0]], np.int32)
    for rows in with_labels(np.zeros((3, 2, 4), np.float32), y):
        assert np.isnan(rows).any(axis=1).tolist() == [False, True, False]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("dtype", "ignored"), [("int32", -100), ("uint8", 255), ("int8", -1)])
def test_an_ignored_label_costs_nothing_in_any_integer_type(dtype, ignored):
    z, y = ordinary(3, 4), np.array([1, 0, 3], dtype)
    loss = functools.partial(losses.cross_entropy, z_loss=0.1, label_smoothing=0.1)
    clean = run(loss, z, y)
    y[1] = ignored
    got = run(loss, z, y, ignore_index=ignored)
    np.testing.assert_allclose(got, [clean[0], 0, clean[2]], rtol=ROUNDING)


def test_a_label_that_its_type_does_not_have_is_ignored_nowhere():
    y = np.array([1, 0, 156], np.uint8)  # -100 in eight bits is 156
    got = run(losses.cross_entropy, ordinary(3, 4), y, ignore_index=-100)
    assert (got[:2] > 0).all() and np.isnan(got[2])


def test_impossible_classes_have_no_part_in_the_smoothing():
    z = np.array([[1.0, -np.inf, 0.5]], np.float32)
    got = run(losses.cross_entropy, z, np.array([0]), label_smoothing=0.3)
    without = run(losses.cross_entropy, z[:, ::2], np.array([0]), label_smoothing=0.3)
    np.testing.assert_allclose(got, without, rtol=ROUNDING)


INF_LOGITS = np.array([[0.5, -np.inf, 1.0, -np.inf], [-np.inf, 1.0, -np.inf, -np.inf]], np.float32)
OF_CLASSES = {
    "cross_entropy": lambda z, y: losses.cross_entropy(z, y, z_loss=0.1, label_smoothing=0.1),
    "focal": losses.focal,
    "multiclass_hinge": losses.multiclass_hinge,
    "cross_entropy of probabilities": lambda z, y: losses.cross_entropy(z, jax.nn.one_hot(y, 4)),
    "focal of probabilities": lambda z, y: losses.focal(z, jax.nn.one_hot(y, 4), gamma=1.5),
    "kl_divergence": lambda z, y: losses.kl_divergence(z, jax.nn.one_hot(y, 4)),
    "jensen_shannon": lambda z, y: losses.jensen_shannon(z, jax.nn.one_hot(y, 4)),
    "dice": lambda z, y: losses.dice(z[:, None], y[:, None]),
}


@jax.jit
def with_impossible_classes(z, y):
    def both(loss):
        gradient, values = jax.grad(lambda z: (loss(z, y).sum(), loss(z, y)), has_aux=True)(z)
        return values, gradient

    return {name: both(loss) for name, loss in OF_CLASSES.items()}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OF_CLASSES)
def test_impossible_classes_give_no_nan(name):
    values, gradient = with_impossible_classes(INF_LOGITS, np.array([2, 1]))[name]
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
    # And where the target is impossible, the loss may be infinite, but the gradient is not.
    values, gradient = with_impossible_classes(INF_LOGITS, np.array([1, 0]))[name]
    assert not np.isnan(values).any()
    assert np.isfinite(gradient).all()


def test_a_row_of_impossible_classes_costs_infinity_and_not_nan():
    z = np.full((1, 3), -np.inf, np.float32)
    values, gradient = value_and_gradient(losses.cross_entropy, z, jnp.array([0]))
    assert np.isposinf(values).all()
    assert np.isfinite(gradient).all()


def test_derivatives_reach_the_smoothing_where_targets_are_0_or_1():
    # q = (1 - a) y + a / 2 moves both sides, though one of them has weight 0 at a = 0.
    z, y = np.array([2.0, -1.0], np.float32), np.array([1.0, 0.0], np.float32)
    total = lambda a: losses.binary_cross_entropy(  # noqa: E731
        jnp.asarray(z), jnp.asarray(y), label_smoothing=a
    ).sum()
    expected = ((0.5 - y) * np.log((1 + np.exp(-z)) / (1 + np.exp(z)))).sum()
    np.testing.assert_allclose(jax.jit(jax.grad(total))(0.0), expected, rtol=ROUNDING)


# Other laws.


@jax.jit
def of_numbers(p, t):
    return {
        "square": losses.mean_squared_error(p, t),
        "square turned": losses.mean_squared_error(t, p),
        "huber": losses.huber(p, t, delta=0.5),
        "huber turned": losses.huber(t, p, delta=0.5),
        "huber of a large delta": losses.huber(p, t, delta=1e3),
        "gradient of huber": jax.grad(lambda p: losses.huber(p, t, delta=0.5).sum())(p),
        "median": losses.quantile(p, t, q=0.5),
        "absolute": losses.mean_absolute_error(p, t),
        "js": losses.jensen_shannon(p, jax.nn.softmax(t)),
        "js turned": losses.jensen_shannon(t, jax.nn.softmax(p)),
        "nt_xent": losses.nt_xent(p, t),
        "nt_xent turned": losses.nt_xent(t, p),
        "siglip": losses.sigmoid_contrastive(p, t),
        "siglip turned": losses.sigmoid_contrastive(t, p),
        "yes": losses.binary_cross_entropy(p, t > 0),
        "no": losses.binary_cross_entropy(-p, t <= 0),
        "focal": losses.binary_focal(p, t > 0, gamma=0.0),
    }


@pytest.mark.slow
@drawn
@given(p=numbers(4, 3), t=numbers(4, 3, seed=1))
def test_the_symmetries_of_losses(p, t):
    got = {name: np.asarray(value) for name, value in of_numbers(p, t).items()}

    def same(a, b):
        atol = ROUNDING * max(1, np.abs(b).max())
        np.testing.assert_allclose(got[a], b, rtol=0, atol=atol, err_msg=a)

    for name in ("square", "huber", "js", "nt_xent", "siglip"):
        same(name, got[f"{name} turned"])
    same("huber of a large delta", 0.5 * got["square"])
    same("median", 0.5 * got["absolute"])
    same("yes", got["no"])
    same("focal", got["yes"])
    assert (np.abs(got["gradient of huber"]) <= 0.5 / 3 + ROUNDING).all()  # delta over features
    assert (got["js"] >= -ROUNDING).all() and (got["js"] <= math.log(2) + ROUNDING).all()


@pytest.mark.parametrize("loss", [losses.kl_divergence, losses.jensen_shannon])
def test_a_divergence_is_0_only_between_equals(loss):
    z, other = ordinary(3, 4), ordinary(3, 4, seed=1)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(run(loss, z, p), 0, atol=ROUNDING)
    assert (run(loss, z + other, p) > 1e-3).all()


def test_kl_takes_log_probabilities_as_they_are():
    z, p = ordinary(3, 4), np.full((3, 4), 0.25, np.float32)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    from_logits = run(losses.kl_divergence, z, p)
    np.testing.assert_allclose(run(losses.kl_divergence, log_p, p), from_logits, atol=ROUNDING)


def test_log_cosh_keeps_the_digits_of_small_errors():
    e = np.array([1e-6, 1e-3, 0.5, 0.999, 1.001, 30.0], np.float32)
    exact = [np.log1p(2 * np.sinh(x / 2) ** 2) for x in e.astype(float)]
    np.testing.assert_allclose(run(losses.log_cosh, e, 0 * e), exact, rtol=ROUNDING)


def test_errors_of_0_have_gradient_0():
    x = jnp.asarray(ordinary(3, 4))
    for loss in (losses.mean_absolute_error, losses.huber, losses.log_cosh):
        assert (value_and_gradient(loss, x, x)[1] == 0).all()
    _, gradient = value_and_gradient(lambda p: losses.triplet(x, p, x + 0.1), x)
    assert (gradient == 0).all()


def test_vectors_of_zeros_are_at_distance_1_with_gradient_0():
    zeros, ones = jnp.zeros((2, 3)), jnp.ones((2, 3))
    values, gradient = value_and_gradient(losses.cosine, zeros, ones)
    assert (values == 1).all()
    assert (gradient == 0).all()
    for loss in (losses.nt_xent, losses.sigmoid_contrastive):
        values, gradient = value_and_gradient(loss, zeros, ones)
        assert np.isfinite(values).all() and (gradient == 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_angles_do_not_depend_on_lengths(size):
    a, b = ordinary(3, 4), ordinary(3, 4, seed=1)
    scaled = run(losses.cosine, a * np.float32(size), b)
    np.testing.assert_allclose(scaled, run(losses.cosine, a, b), atol=ROUNDING)


def test_a_batch_of_one_has_no_negatives():
    one = ordinary(1, 4)
    np.testing.assert_array_equal(run(losses.nt_xent, one, -one), [0.0])


def test_a_certain_mean_with_a_tiny_variance_is_no_nan():
    m, s = np.zeros((1, 1), np.float32), np.full((1, 1), -1e4, np.float32)
    values, gradient = value_and_gradient(losses.gaussian_nll, (m, s), jnp.asarray(m))
    assert values == -5e3
    assert (gradient[0] == 0).all() and (gradient[1] == 0.5).all()


def test_signs_and_zeros_and_bools_name_the_sides_of_a_hinge():
    s, yes = ordinary(5), np.array([True, False, True, True, False])
    expected = run(losses.hinge, s, yes)
    np.testing.assert_array_equal(run(losses.hinge, s, yes.astype(np.int32)), expected)
    np.testing.assert_array_equal(run(losses.hinge, s, np.where(yes, 1, -1)), expected)


# Refusals.

WRONG_TARGETS = {
    "mean_squared_error": (losses.mean_squared_error, (3, 1), (3,)),
    "huber": (losses.huber, (3,), (3, 1)),
    "binary_cross_entropy": (losses.binary_cross_entropy, (3,), (3, 1)),
    "hinge": (losses.hinge, (3,), (2,)),
    "poisson": (losses.poisson, (3, 2), (3,)),
    "cosine": (losses.cosine, (3, 2), (3, 1)),
    "kl_divergence": (losses.kl_divergence, (3, 2), (3,)),
    "jensen_shannon": (losses.jensen_shannon, (3, 2), (2, 3)),
    "cross_entropy": (losses.cross_entropy, (3, 2), (3,)),
    "focal": (losses.focal, (3, 2), (3, 1)),
    "nt_xent": (losses.nt_xent, (3, 2), (2, 2)),
    "sigmoid_contrastive": (losses.sigmoid_contrastive, (3, 2), (3, 1)),
    "binary_dice": (losses.binary_dice, (3, 2), (3,)),
    "dice": (losses.dice, (3, 2, 4), (3, 2)),
}


@pytest.mark.parametrize("name", WRONG_TARGETS)
def test_targets_of_another_shape_are_refused(name):
    loss, shape, other = WRONG_TARGETS[name]
    with pytest.raises(
        ValueError,
        match=rf"{name}: expected (targets of the shape of the pred|integer labels of shape)",
    ):
        loss(jnp.zeros(shape), jnp.zeros(other))


@pytest.mark.parametrize("loss", OF_LABELS)
def test_labels_of_another_shape_are_refused(loss):
    with pytest.raises(ValueError, match=r"expected integer targets of shape \(3, 2\) .*\(3, 1\)"):
        loss(jnp.zeros((3, 2, 4)), jnp.zeros((3, 1), jnp.int32))


def test_other_options_that_do_not_fit_are_refused():
    z, p, y = jnp.zeros((3, 4)), jnp.ones((3, 4)), jnp.zeros(3, jnp.int32)
    with pytest.raises(ValueError, match="expected integer labels with ignore_index, got float32"):
        losses.cross_entropy(z, p, ignore_index=0)
    with pytest.raises(ValueError, match="multiclass_hinge: expected integer labels, got float32"):
        losses.multiclass_hinge(z, p)
    for loss in (losses.cross_entropy, losses.focal):
        with pytest.raises(ValueError, match=r"expected class_weights of shape \(4,\).*\(3,\)"):
            loss(z, y, class_weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"triplet: negatives: expected .*\(3, 4\), got \(1, 4\)"):
        losses.triplet(z, z, z[:1])


# Scalars and penalties.


def test_every_scalar_may_be_traced():
    z, y, t = jnp.asarray(ordinary(3, 4)), jnp.array([0, 1, 3]), jnp.asarray(ordinary(3, 4, seed=1))

    def total(h):
        yes = t > 0
        return sum(
            loss.sum()
            for loss in (
                losses.cross_entropy(z, y, label_smoothing=h[0], z_loss=h[1]),
                losses.binary_cross_entropy(z, yes, label_smoothing=h[0], positive_weight=h[2]),
                losses.focal(z, y, gamma=h[3]),
                losses.binary_focal(z, yes, gamma=h[3], alpha=h[4]),
                losses.huber(z, t, delta=h[5]),
                losses.quantile(z, t, q=h[6]),
                losses.triplet(z, t, t + 0.1, margin=h[7]),
                losses.nt_xent(z, t, temperature=h[8]),
                losses.sigmoid_contrastive(z, t, scale=h[9], bias=h[10]),
                losses.dice(z[:, None], y[:, None], smooth=h[11]),
            )
        )

    h = [0.1, 0.1, 2.0, 1.5, 0.25, 0.5, 0.3, 5.0, 0.5, 2.0, -1.0, 1.0]
    gradient = jax.jit(jax.grad(total))(h)
    assert all(np.isfinite(g) and g != 0 for g in gradient)


def test_penalties_count_the_leaves_that_the_patterns_name():
    params = {"a": [{"kernel": jnp.array([3.0, -4.0]), "bias": jnp.array([10.0])}]}
    assert losses.l1_penalty(params) == 17
    assert losses.l1_penalty(params, "*kernel") == 7
    assert losses.l2_penalty(params, "*kernel") == 12.5
    assert losses.l2_penalty(params, "*kernel", "*bias") == 62.5
    with pytest.raises(ValueError, match="expected '\\*scale' to match a leaf"):
        losses.l2_penalty(params, "*scale")


def test_the_gradient_of_a_penalty_is_the_sign_or_the_parameter_itself():
    params = {"w": jnp.array([3.0, -4.0, 0.0]), "b": jnp.array([1.0])}
    slope = jax.jit(jax.grad(lambda p: losses.l1_penalty(p, "w")))(params)
    assert slope["w"].tolist() == [1, -1, 0] and slope["b"] == 0
    slope = jax.jit(jax.grad(lambda p: losses.l2_penalty(p, "w")))(params)
    assert slope["w"].tolist() == [3, -4, 0] and slope["b"] == 0


def test_penalties_are_summed_in_float32_at_least():
    ones = {"w": jnp.ones(1000, jnp.bfloat16)}  # a sum in bfloat16 stops at 256
    assert losses.l1_penalty(ones) == 1000
    with jax.enable_x64(True):
        mixed = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, jnp.bfloat16)}
        assert losses.l2_penalty(mixed).dtype == jnp.float64
