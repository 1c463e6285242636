import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import losses, nn, optim, report, schedules
from fnn.diagnose import RangeCurve, lr_find
from fnn.diagnose.range_curve import before_blow_up, smooth, suggest
from fnn.recipe import Recipe
from fnn.train import make_init
from fnn.types import Data
from tests.tiny import KEY, assert_same_bits

# The loss is mean (kernel^T x)^2, and x^T x / n is diagonal: its curvature is known.
CURVATURES = np.array([0.25, 4.0])
LIMIT = 2 / CURVATURES.max()  # above it, gradient descent diverges
X = np.array([[np.sqrt(CURVATURES[0]), 0], [0, np.sqrt(CURVATURES[1])]], np.float32)
QUADRATIC = Data(train=(X, np.zeros((2, 1), np.float32)), valid=(X, np.zeros((2, 1), np.float32)))
DRAWN = lambda key, shape: jax.random.normal(key, shape)  # noqa: E731


def quadratic(optimizer):
    def made(hyper):
        model = nn.linear(1, bias=False, kernel_init=DRAWN)
        loss = lambda p, t: hyper["scale"] * losses.mean_squared_error(p, t)  # noqa: E731
        return Recipe(model, loss, optimizer, schedules.constant(hyper["lr"]))

    return made


plain, signs = quadratic(optim.sgd()), quadratic(optim.sign_sgd())
WHOLE = dict(key=KEY, batch_size=2, lr_min=1e-4, lr_max=100.0)


def find(made=plain, scale=1.0, **changes) -> RangeCurve:
    return lr_find(made, QUADRATIC, hyper={"lr": 7.0, "scale": scale}, **WHOLE | changes)


@pytest.fixture(scope="module")
def curve():
    return find()


def test_the_rate_grows_by_the_same_factor_from_the_first_to_the_last(curve):
    lrs = np.asarray(curve.lrs, np.float64)
    np.testing.assert_allclose(lrs[[0, -1]], [1e-4, 100], rtol=1e-5)  # exp of a float32 log of 9
    np.testing.assert_allclose(lrs[1:] / lrs[:-1], 10 ** (6 / 99), rtol=1e-5)


def test_on_a_quadratic_the_suggestion_is_below_the_limit_of_stability(curve):
    assert LIMIT / 100 < curve.suggestion < LIMIT


def test_on_a_quadratic_the_loss_falls_up_to_the_limit_of_stability_and_grows_above(curve):
    for losses_of_seed in np.asarray(curve.losses):
        below = losses_of_seed[: 1 + int((np.asarray(curve.lrs) < LIMIT).sum())]
        assert (np.diff(below) <= 0).all()
        above = losses_of_seed[len(below) - 1 :]
        assert not (above[-5:] < 1e6 * below[0]).any()
    assert not bool(curve.kept[-1]) and bool(curve.kept[0])


def test_the_limit_that_is_found_follows_the_curvature(curve):
    steeper = find(scale=16.0)  # its curvature is 16 times as large, so its curve comes 16 x sooner
    # Both curves are read at steps, whose rates are a factor of 1.15 apart.
    np.testing.assert_allclose(curve.suggestion / steeper.suggestion, 16, rtol=0.2)


def test_the_suggestion_does_not_depend_on_the_scale_of_the_loss_where_the_optimizer_does_not():
    once, more = find(signs), find(signs, scale=1024.0)  # a power of two: not even the bits differ
    np.testing.assert_array_equal(1024 * once.losses, more.losses)
    assert once.suggestion == more.suggestion


def test_the_state_is_left_as_it_was():
    hyper = {"lr": 7.0, "scale": 1.0}
    state = jax.jit(make_init(plain))(jax.random.key(5), hyper, X[:1])
    before = jax.tree.map(lambda a: np.array(a, copy=True), state)
    found = find(state=state, batch_size=1, steps=10, seeds=2)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert_same_bits(before, state)
    # Each seed starts from the same state, on batches of its own.
    kernel = np.asarray(before.params["kernel"], np.float64).ravel()
    assert found.losses.shape == (2, 10)
    for loss in found.losses[:, 0]:  # of one example or of the other, with the kernel of the state
        assert np.isclose(loss, (X @ kernel) ** 2, rtol=1e-5).any()
    assert (found.losses[0] != found.losses[1]).any()


def test_a_hyperparameter_that_only_the_replaced_schedule_reads_is_no_misspelt_one():
    def late(hyper):
        return plain(hyper)._replace(schedule=lambda step: hyper["late"])

    hyper = {"lr": 1.0, "scale": 1.0}
    found = lr_find(late, QUADRATIC, hyper=hyper | {"late": 3.0}, steps=4, seeds=1, **WHOLE)
    assert jnp.isfinite(found.lrs).all()
    with pytest.raises(ValueError, match="got also .'lat'"):
        lr_find(late, QUADRATIC, hyper=hyper | {"late": 3.0, "lat": 1.0}, steps=4, **WHOLE)


def test_the_rates_and_the_hyperparameters_may_be_traced(curve):
    def suggested(scale, lr_max):
        return find(scale=scale, lr_max=lr_max).suggestion

    both = jax.jit(jax.vmap(suggested))(jnp.array([1.0, 16.0]), jnp.array([100.0, 100.0]))
    np.testing.assert_allclose(both[0], curve.suggestion, rtol=1e-5)
    assert both[1] < both[0]


def test_smoothing_has_no_pull_towards_zero_and_no_memory_at_decay_0():
    values = jnp.asarray(np.random.default_rng(0).uniform(1, 2, 20), jnp.float32)
    np.testing.assert_allclose(smooth(jnp.full(20, 3.0), 0.9), 3.0, rtol=1e-6)
    np.testing.assert_array_equal(smooth(values, 0.0), values)
    weights = 0.7 ** np.arange(20)[::-1]  # the last value is the weighted mean of all
    mean = (weights * np.asarray(values, np.float64)).sum() / weights.sum()
    np.testing.assert_allclose(smooth(values, 0.7)[-1], mean, rtol=1e-6)


SUGGEST = jax.jit(suggest)
LRS = jnp.asarray(np.geomspace(1e-5, 1, 24), jnp.float32)
CURVES = st.lists(st.floats(0.125, 8.0, width=32), min_size=24, max_size=24)


@settings(max_examples=30)
@given(CURVES, st.integers(5, 23), st.sampled_from([np.nan, np.inf, 1e30]))
def test_what_comes_after_a_blow_up_does_not_change_the_suggestion(values, end, blown):
    values = np.asarray(values, np.float32)
    values[end] = blown
    other = values.copy()
    other[end + 1 :] = 1e-3  # it seems to come back
    assert not np.asarray(before_blow_up(jnp.asarray(values)))[end:].any()
    found = SUGGEST(LRS, values)
    np.testing.assert_array_equal(found, SUGGEST(LRS, other))
    assert np.isnan(found) or LRS[0] / 2 <= found <= LRS[end - 1] / 2


@settings(max_examples=30)
@given(CURVES)
def test_the_suggestion_is_half_of_the_rate_at_80_percent_of_the_fall(values):
    values = np.minimum(np.asarray(values, np.float32), 0.5)  # at most 4 times the lowest: no end
    first = len(values) // 10
    start, lowest = values[first], values[first:].min()
    if start == lowest:
        assert np.isnan(SUGGEST(LRS, values))
        return
    i = next(i for i in range(first, 24) if values[i] <= start - np.float32(0.8) * (start - lowest))
    assert SUGGEST(LRS, values) == LRS[i] / 2


def test_a_fall_within_the_noise_of_the_batches_suggests_nothing():
    draws = np.random.default_rng(0).normal(2.0, 0.5, (5, 100)).astype(np.float32)
    lrs = jnp.asarray(np.geomspace(1e-6, 10, 100), jnp.float32)

    def curve_of(losses):
        smoothed = jnp.stack([smooth(jnp.asarray(row), 0.8) for row in losses])
        return RangeCurve(lrs=lrs, losses=jnp.asarray(losses), smoothed=smoothed)

    flat, falling = curve_of(draws), curve_of(draws - np.linspace(0, 1.5, 100, dtype=np.float32))
    np.testing.assert_allclose(flat.noise, 0.5 / np.sqrt(5), rtol=0.2)  # of the mean of 5 seeds
    assert np.isnan(flat.suggestion) and "the loss falls nowhere between 1e-06 and 10" in str(flat)
    assert falling.suggestion > 0 and "larger lr_max" in str(falling)


def test_the_reason_is_printed(curve):
    found = float(curve.suggestion)
    assert str(curve).startswith(f"RangeCurve: take lr {found:.2g}, half of the rate at which")
    assert "it blows up at" in str(curve)


@pytest.mark.parametrize("values", [np.full(24, 2.0), np.linspace(1, 2, 24), np.full(24, np.nan)])
def test_a_loss_that_never_falls_suggests_nothing(values):
    assert np.isnan(SUGGEST(LRS, jnp.asarray(values, jnp.float32)))


def test_bad_arguments_are_refused():
    state = jax.jit(make_init(plain))(KEY, {"lr": 7.0, "scale": 1.0}, np.ones((2, 3), np.float32))
    for ends in (dict(lr_min=0.0), dict(lr_min=1.0, lr_max=0.5), dict(lr_max=np.nan)):
        with pytest.raises(
            ValueError,
            match="lr_find: expected (0 < lr_min < lr_max|lr_max), got|lr_m.. (to be|in .0, inf.)",
        ):
            find(**ends)
    with pytest.raises(ValueError, match="lr_find: expected at least 2 steps, got 1"):
        find(steps=1)
    with pytest.raises(ValueError, match="lr_find: the recipe's state and the given one differ"):
        find(state=state)


def test_the_figure_has_a_band_the_mean_and_a_mark_for_the_suggestion(curve, tmp_path):
    axes = report.lr_find.draw(curve).axes[0]
    labels = [line.get_label() for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert [label.split(":")[0] for label in labels] == ["mean of 5 seeds", "suggestion"]
    assert len(axes.collections) == 1  # the band
    assert axes.get_lines()[-1].get_xdata()[0] == curve.suggestion.item()
    mean = next(line for line in axes.get_lines() if line.get_label() == "mean of 5 seeds")
    assert len(mean.get_xdata()) == int(curve.kept.sum()) + 1  # ends with the blow-up
    report.lr_find.save(curve, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_of_one_seed_or_without_a_finite_loss_is_drawn_too():
    for values in (np.linspace(2, 1, 24), np.full(24, np.nan)):
        values = jnp.asarray(values, jnp.float32)[None]
        axes = report.lr_find.draw(RangeCurve(lrs=LRS, losses=values, smoothed=values)).axes[0]
        assert not axes.collections
    with pytest.raises(ValueError, match="report.lr_find: expected the curve of one test"):
        report.lr_find.draw(RangeCurve(lrs=LRS, losses=values[None], smoothed=values[None]))
