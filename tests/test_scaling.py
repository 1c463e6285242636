"""Chinchilla's law is found again from its own losses, and its optimum is the lowest loss."""

import numpy as np
import pytest

from fnn import scaling
from fnn.scaling import Law

LAWS = [
    Law(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28),  # Hoffmann et al. 2022
    Law(E=1.82, A=482.0, a=0.35, B=2085.4, b=0.37),  # Besiroglu et al. 2024
    Law(E=0.9, A=30.0, a=0.4, B=200.0, b=0.4),
    Law(E=0.05, A=3.0, a=0.15, B=2e4, b=0.9),
]
NAMES = ("E", "A", "a", "B", "b")
N, D = (g.ravel() for g in np.meshgrid(np.geomspace(4e7, 1.6e10, 6), np.geomspace(1e9, 1e12, 6)))


def numbers(law):
    return np.array([getattr(law, name) for name in NAMES])


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_found_again_from_its_own_losses(law):
    found = scaling.fit(N, D, law.loss(N, D), bootstraps=0)
    np.testing.assert_allclose(numbers(found), numbers(law), rtol=1e-5)  # a valley, nearly flat
    assert found.error < 1e-9 and found.intervals == {}


def test_of_small_models_too_and_whatever_the_unit_of_the_losses():
    law = LAWS[2]
    n, d = (g.ravel() for g in np.meshgrid([16e3, 6e4, 16e4, 35e4], np.geomspace(1e5, 1.6e6, 12)))
    for unit in (1.0, 1 / np.log(2)):
        found = scaling.fit(n, d, unit * law.loss(n, d), bootstraps=0)
        expected = numbers(law) * [unit, unit, 1, unit, 1]
        np.testing.assert_allclose(numbers(found), expected, rtol=1e-5)


def test_the_fit_is_deterministic_and_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    losses = LAWS[0].loss(N, D) * np.exp(0.01 * rng.normal(size=len(N)))
    once = scaling.fit(N, D, losses, bootstraps=5)
    assert once == scaling.fit(list(N), list(D), list(losses), bootstraps=5)
    turned = scaling.fit(N[::-1], D[::-1], losses[::-1], bootstraps=0)
    np.testing.assert_allclose(numbers(turned), numbers(once), rtol=1e-4)


def test_outliers_do_not_pull_the_law_away():
    rng = np.random.default_rng(1)
    losses = LAWS[0].loss(N, D) * np.exp(1e-4 * rng.normal(size=len(N)))
    losses[::9] *= 1.5
    found = scaling.fit(N, D, losses, bootstraps=0)
    np.testing.assert_allclose(numbers(found)[[0, 2, 4]], numbers(LAWS[0])[[0, 2, 4]], rtol=0.02)


def test_intervals_hold_the_law_and_grow_with_the_noise():
    rng = np.random.default_rng(2)
    noise, widths = rng.normal(size=len(N)), []
    for size in (1e-3, 1e-2):
        found = scaling.fit(N, D, LAWS[0].loss(N, D) * np.exp(size * noise), bootstraps=60)
        assert list(found.intervals) == list(NAMES)
        for name, (low, high) in found.intervals.items():
            assert low < getattr(found, name) < high
        low, high = found.intervals["E"]
        assert low < LAWS[0].E < high  # of one draw; 95 % of them
        assert 0.5 * size < found.error < 1.5 * size
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]
    assert "E: " in str(found) and str(found).startswith("L = ")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("flops", [1e18, 1e24])
def test_the_best_size_for_a_budget_has_the_lowest_loss_of_all(law, flops):
    best = scaling.optimal(law, flops)
    assert 6 * best.params * best.tokens == pytest.approx(flops)
    others = best.params * np.array([0.5, 0.99, 1.01, 2])
    assert best.loss < law.loss(others, flops / 6 / others).min()


def test_several_budgets_at_once_are_each_as_alone():
    many = scaling.optimal(LAWS[0], np.array([1e20, 1e22]))
    np.testing.assert_allclose([many.params[1], many.tokens[1], many.loss[1]],
                               scaling.optimal(LAWS[0], 1e22), rtol=1e-12)  # fmt: skip
    exponent = LAWS[0].b / (LAWS[0].a + LAWS[0].b)
    assert many.params[1] / many.params[0] == pytest.approx(100**exponent)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((N, D, N[:3]), "expected three columns of one length"),
        ((N[:, None], D[:, None], D[:, None]), "expected three columns of one length"),
        ((N, D, -D), "expected losses above 0, got -"),
        ((0 * N, D, D), "expected params above 0, got 0"),
        ((N, np.full(len(N), np.nan), D), "expected tokens above 0, got nan"),
        ((N[:4], D[:4], D[:4]), "expected 5 points"),
        (
            (N, np.where(D > 1e10, 2.0, 1.0), D),
            "expected .* with 6 and 2; the law is not determined",
        ),
    ],
)
def test_columns_that_cannot_be_fitted_are_refused(columns, message):
    with pytest.raises(ValueError, match=f"scaling.fit: {message}"):
        scaling.fit(*columns)


def test_budgets_and_laws_without_an_optimum_are_refused():
    with pytest.raises(ValueError, match="scaling.optimal: expected flops above 0"):
        scaling.optimal(LAWS[0], 0)
    with pytest.raises(ValueError, match="scaling.optimal: expected A, a, B and b above 0"):
        scaling.optimal(Law(E=1.0, A=1.0, a=-0.1, B=1.0, b=0.5), 1e20)
    with pytest.raises(ValueError, match="scaling.fit: expected level in"):
        scaling.fit(N, D, N, level=95)
