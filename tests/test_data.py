import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import checkpoint
from fnn.data import (
    Standardizer,
    class_weights,
    fit_standardizer,
    grouped_k_fold,
    grouped_split,
    k_fold,
    split,
    stratified_grouped_k_fold,
    stratified_k_fold,
    stratified_split,
)

SHARES = (0.7, 0.15, 0.15)


@settings(deadline=None, max_examples=30)
@given(n=st.sampled_from([10, 15, 100]), cut=st.floats(0.2, 0.5), seed=st.integers(0, 99))
def test_a_split_holds_every_example_once_in_parts_of_the_right_size(n, cut, seed):
    shares = (1 - cut, cut / 2, cut / 2)
    parts = split(jax.random.key(seed), n, shares)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share * n) < 1
    assert abs(len(parts[0]) - shares[0] * n) <= 0.5


def test_a_split_follows_from_its_key():
    once, again, other = (split(jax.random.key(seed), 100, SHARES) for seed in (0, 0, 1))
    for a, b, c in zip(once, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert set(a.tolist()) != set(c.tolist())


def test_an_example_comes_into_every_part_as_often_as_the_shares_say():
    n, trials = 10, 300
    into_test = np.zeros(n)
    for seed in range(trials):
        into_test[split(jax.random.key(seed), n, (0.8, 0.2))[1]] += 1
    # Binomial(300, 0.2): std 6.9; five of them are passed by chance in less than 1 of 10^5 seeds.
    assert np.abs(into_test - 0.2 * trials).max() < 5 * 6.9


@pytest.mark.parametrize("shares", [(0.7, 0.2), (0.7, 0.4), (1.2, -0.2), (1.0, 0.0), ()])
def test_shares_that_do_not_divide_the_whole_are_refused(shares):
    with pytest.raises(ValueError, match="split: expected fractions above 0 with a sum of 1, got"):
        split(jax.random.key(0), 10, shares)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_part_without_examples_is_refused(n):
    with pytest.raises(ValueError, match=f"split: expected enough examples for 3 parts, got {n}"):
        split(jax.random.key(0), n, SHARES)


X = np.random.default_rng(0).normal([3.0, -1.0, 0.0], [2.0, 0.1, 5.0], (50, 3)).astype(np.float32)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("axis", [0, 1, None, (0, 1), (-1,)])
def test_the_statistics_are_those_of_numpy(axis):
    s = fit_standardizer(jnp.asarray(X), axis=axis)
    wide = X.astype(np.float64)
    # float32: a sum of 150 rounded terms is off by less than 150 * 6e-8 of its size.
    np.testing.assert_allclose(s.mean, wide.mean(axis=axis, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(s.std, wide.std(axis=axis, keepdims=True), rtol=1e-5)


def test_standardized_data_have_mean_0_and_std_1_and_come_back():
    s = fit_standardizer(jnp.asarray(X))
    z = s.apply(jnp.asarray(X))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)  # rounding of 50 terms of size 1
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(s.invert(z), X, rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3e7])
def test_a_feature_that_does_not_vary_becomes_0_and_comes_back_exactly(constant):
    x = jnp.full((1001, 1), constant)  # the plain float32 mean of 1001 times 0.1 is not 0.1
    s = fit_standardizer(x)
    assert s.std.tolist() == [[1.0]] and (s.apply(x) == 0).all()
    assert (s.invert(s.apply(x)) == x).all()
    seen_later = s.apply(x + jnp.float32(4.0))
    assert jnp.isfinite(seen_later).all()


def test_the_variance_of_numbers_far_from_0_does_not_cancel():
    x = (1e6 + np.arange(8.0)[:, None]).astype(np.float32)  # exact in float32
    np.testing.assert_allclose(fit_standardizer(jnp.asarray(x)).std[0, 0], np.arange(8.0).std())


def test_images_have_statistics_per_channel():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 5, 5, 3)).astype(np.float32))
    s = fit_standardizer(images, axis=(0, 1, 2))
    assert s.mean.shape == (1, 1, 1, 3)
    np.testing.assert_allclose(s.apply(images).std(axis=(0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "got"), [("uint8", "float32"), ("float16", "float32"), ("int32", "float32")]
)
def test_statistics_are_in_at_least_float32(given, got):
    x = jnp.array([[1], [3]], given)
    s = fit_standardizer(x)
    assert (s.mean.dtype, s.std.dtype, s.apply(x).dtype) == (got, got, got)
    assert s.apply(x).tolist() == [[-1.0], [1.0]]


def test_float64_stays_float64():
    with jax.enable_x64(True):
        s = fit_standardizer(jnp.array([[1.0], [2.0]], jnp.float64))
        assert s.mean.dtype == s.std.dtype == s.apply(jnp.zeros((1, 1))).dtype == jnp.float64


def test_a_standardizer_passes_through_jit_and_a_checkpoint(tmp_path):
    x = jnp.asarray(X)
    s = fit_standardizer(x)
    inside = jax.jit(lambda s, x: s.apply(x))(s, x)
    np.testing.assert_allclose(inside, s.apply(x), rtol=1e-6, atol=1e-6)  # may divide otherwise
    checkpoint.save(tmp_path / "s.safetensors", s)
    loaded, _ = checkpoint.load(tmp_path / "s.safetensors", s)
    assert isinstance(loaded, Standardizer)
    np.testing.assert_array_equal(loaded.apply(x), s.apply(x))


def test_the_gradient_through_a_feature_that_does_not_vary_is_finite():
    def total(x):
        return fit_standardizer(x).apply(x).sum()

    assert jnp.isfinite(jax.grad(total)(jnp.ones((3, 2)))).all()


@pytest.mark.parametrize("shape", [(0, 3), (), (4, 0)])
def test_statistics_of_nothing_are_refused(shape):
    with pytest.raises(ValueError, match="fit_standardizer: expected at least one example, got"):
        fit_standardizer(jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(5, 2), (3,), (5, 3, 1)])
@pytest.mark.parametrize("name", ["apply", "invert"])
def test_other_features_than_those_it_was_fitted_on_are_refused(name, shape):
    standardizer = fit_standardizer(jnp.asarray(X))
    with pytest.raises(ValueError, match=rf"Standardizer.{name}: expected x to fit .* \(1, 3\)"):
        getattr(standardizer, name)(jnp.zeros(shape))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(20, 200), st.integers(2, 6), st.integers(0, 99))
def test_a_stratified_split_gives_every_part_its_share_of_every_class(n, classes, seed):
    labels = np.random.default_rng(seed).integers(classes, size=n)
    parts = stratified_split(jax.random.key(seed), labels, SHARES)
    plain = split(jax.random.key(seed), n, SHARES)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert [len(part) for part in parts] == [len(part) for part in plain]
    for part, share in zip(parts, SHARES, strict=True):
        counts = np.bincount(labels[part], minlength=classes)
        assert (np.abs(counts - share * np.bincount(labels, minlength=classes)) < 2).all()


def test_a_stratified_split_is_shuffled_and_follows_from_its_key():
    labels = np.repeat([0, 1], 50)
    once, again, other = (
        stratified_split(jax.random.key(seed), labels, SHARES)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(once, again)
    assert set(once.tolist()) != set(other.tolist())
    assert 10 < np.abs(np.diff(labels[once])).sum() < 60  # one change, were the classes in order


def test_a_grouped_split_keeps_groups_together():
    groups = np.random.default_rng(0).integers(20, size=100)
    parts = grouped_split(jax.random.key(0), groups, SHARES)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    found = [set(groups[part].tolist()) for part in parts]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def test_k_folds_validate_every_example_once():
    folds = k_fold(jax.random.key(0), 10, 3)
    assert sorted(np.concatenate([valid for _, valid in folds]).tolist()) == list(range(10))
    for train, valid in folds:
        assert sorted([*train.tolist(), *valid.tolist()]) == list(range(10))
        assert len(valid) in (3, 4)
    for folds in (1, 11):
        with pytest.raises(ValueError, match="k_fold: expected 2 to 10 folds"):
            k_fold(jax.random.key(0), 10, folds)


FOLDS = {  # by (key, labels, groups)
    "plain": lambda key, y, g, folds: k_fold(key, len(y), folds),
    "stratified": lambda key, y, g, folds: stratified_k_fold(key, y, folds),
    "grouped": lambda key, y, g, folds: grouped_k_fold(key, g, folds),
    "both": stratified_grouped_k_fold,
}


def patients(seed, n=400, classes=3, groups=60):
    """Groups of unequal size, whose examples mostly have a class that they prefer."""
    rng = np.random.default_rng(seed)
    g = rng.choice(groups, n, p=rng.dirichlet(np.ones(groups)))
    y = np.where(rng.random(n) < 0.6, g % classes, rng.integers(classes, size=n))
    return y, g


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FOLDS)
def test_folds_hold_every_example_once_and_follow_from_their_key(name):
    y, g = patients(0)
    once, again, other = (FOLDS[name](jax.random.key(s), y, g, 5) for s in (0, 0, 1))
    assert sorted(np.concatenate([valid for _, valid in once]).tolist()) == list(range(len(y)))
    for train, valid in once:
        assert len(valid) and sorted([*train.tolist(), *valid.tolist()]) == list(range(len(y)))
    assert all((a[1] == b[1]).all() for a, b in zip(once, again, strict=True))
    assert any(set(a[1].tolist()) != set(b[1].tolist()) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("name", ["grouped", "both"])
def test_no_group_is_in_two_folds(name):
    y, g = patients(1)
    folds = [set(g[valid].tolist()) for _, valid in FOLDS[name](jax.random.key(0), y, g, 5)]
    assert sum(map(len, folds)) == len(set(g.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_stratified_folds_differ_by_one_example_of_a_class(seed):
    y, _ = patients(seed)
    counts = [np.bincount(y[v], minlength=3) for _, v in stratified_k_fold(jax.random.key(0), y, 7)]
    assert np.ptp(counts, axis=0).max() <= 1 and np.ptp(np.sum(counts, axis=1)) <= 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", range(5))
def test_grouped_folds_differ_by_a_group_at_most(seed):
    y, g = patients(seed)
    sizes = [len(valid) for _, valid in grouped_k_fold(jax.random.key(0), g, 5)]
    assert np.ptp(sizes) <= np.bincount(g).max()


def unevenness(folds, y):
    """Standard deviation of the shares of the classes over the folds."""
    counts = np.array([np.bincount(y[valid], minlength=y.max() + 1) for _, valid in folds])
    return (counts / counts.sum(axis=0)).std(axis=0).mean()


def test_stratified_groups_are_as_even_as_those_of_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs, unstratified = [], [], []
    for seed in range(10):
        y, g = patients(seed)
        sklearn = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(y, y, g)
        ours.append(unevenness(stratified_grouped_k_fold(jax.random.key(seed), y, g, 5), y))
        theirs.append(unevenness(sklearn, y))
        unstratified.append(unevenness(grouped_k_fold(jax.random.key(seed), g, 5), y))
    assert np.mean(ours) < 1.1 * np.mean(theirs) and np.mean(ours) < 0.8 * np.mean(unstratified)


def test_groups_of_one_class_each_leave_no_fold_empty():
    y = np.repeat([0, 1], 20)
    g = np.repeat(np.arange(8), 5)
    for folds in (2, 4, 8):
        made = stratified_grouped_k_fold(jax.random.key(0), y, g, folds)
        assert all(len(valid) for _, valid in made)
    made = stratified_grouped_k_fold(jax.random.key(0), y, g, 4)
    assert [np.bincount(y[valid]).tolist() for _, valid in made] == [[5, 5]] * 4


def test_folds_that_cannot_be_are_refused():
    g = np.array([0, 0, 1, 1])
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="grouped_k_fold: expected 2 to 2 folds of 2 groups, got"):
        grouped_k_fold(key, g, 3)
    with pytest.raises(ValueError, match="stratified_k_fold: expected at most 1 folds, the exam"):
        stratified_k_fold(key, np.arange(4), 2)
    for folds in (0, 1, True):
        with pytest.raises(ValueError, match="k_fold: expected"):
            k_fold(key, 4, folds)


def test_class_weights_give_every_class_the_same_part():
    labels = np.array([0, 0, 0, 2, 2, 0])
    weights = class_weights(labels, 4)
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(weights * np.bincount(labels, minlength=4), [3, 0, 3, 0], rtol=1e-6)
    for wrong in (np.array([4]), np.array([-1]), np.array([], int)):
        with pytest.raises(ValueError, match=r"class_weights: expected labels in \[0, 4\)"):
            class_weights(wrong, 4)
