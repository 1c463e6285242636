import base64
import io
import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib._pylab_helpers import Gcf
from PIL import Image

from fnn import report
from fnn.report.curves import extremes, panels, smoothed
from fnn.types import History
from tests.pages import Page

MEASURED = ("loss", "lr", "grad_norm", "update_norm", "param_norm")


def history(steps: int = 40, evals: int = 4, names=("loss", "accuracy")) -> History:
    values = np.random.default_rng(0).uniform(0.1, 2.0, (steps, 5)).astype(np.float32)
    return History(
        train=dict(zip(MEASURED, jnp.asarray(values.T), strict=True)),
        eval_steps=jnp.linspace(1, steps, evals).astype(jnp.int32),
        valid={name: jnp.linspace(0.5, 0.9, evals) for name in names},
    )


NORMS = ["learning rate", "gradient norm", "update norm", "parameter norm"]


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize("others", [(), ("accuracy",), ("accuracy", "top 5", "<f1>")])
def test_every_validation_metric_has_a_panel(others):
    drawn = report.curves.draw(history(names=("loss", *others)))
    assert titles(drawn) == ["loss", *others, *NORMS]


def test_loss_is_drawn_raw_and_smoothed_and_on_the_validation_part():
    axes = report.curves.draw(history(), best_step=20).axes[0]
    raw, smooth, valid, best = axes.get_lines()
    np.testing.assert_allclose(raw.get_ydata(), history().train["loss"], rtol=1e-6)
    assert [line.get_label() for line in (smooth, valid, best)] == [
        "training",
        "validation",
        "best",
    ]
    np.testing.assert_array_equal(valid.get_xdata(), history().eval_steps)
    assert list(best.get_xdata()) == [20, 20]


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("steps", "evals"), [(0, 0), (1, 0), (1, 1), (2, 2), (3000, 200)])
def test_short_and_long_histories_are_drawn(steps, evals, tmp_path):
    names = ("loss",) if evals else ()
    report.curves.save(history(steps, evals, names), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1080, 480)


def test_what_is_not_finite_or_0_on_a_log_axis_is_a_gap(tmp_path):
    given = history()
    train = {name: values.at[-1].set(jnp.nan).at[0].set(0) for name, values in given.train.items()}
    train["grad_norm"] = train["grad_norm"].at[-2].set(jnp.inf)
    broken = History(train=train, eval_steps=jnp.array([]), valid={})
    drawn = report.curves.draw(broken)
    drawn.savefig(tmp_path / "curves.svg")
    for axes in drawn.axes:
        low, high = axes.get_ylim()
        assert np.isfinite([low, high]).all() and high < 10
        if axes.get_yscale() == "log":  # a 0 would be a line down to the edge
            assert not any((line.get_ydata() == 0).any() for line in axes.get_lines())


@pytest.mark.parametrize("shape", [(3, 10), ()])
def test_a_history_that_is_not_of_one_run_is_refused(shape):
    many = History(train={"loss": jnp.zeros(shape)}, eval_steps=jnp.array([]), valid={})
    with pytest.raises(ValueError, match="report.curves: expected the history of one run"):
        panels(many)


def test_training_metrics_vectors_and_what_is_measured_now_and_then_are_drawn():
    train = history().train | {
        "accuracy": jnp.linspace(0, 1, 40),
        "by_layer": jnp.ones((4, 3)),
        "penalty": jnp.ones(40),
    }
    seldom = {"by_layer": jnp.arange(0, 40, 10)}
    drawn = report.curves.draw(replace(history(), train=train, train_steps=seldom))
    panels = dict(zip(titles(drawn), drawn.axes, strict=True))
    assert list(panels) == ["loss", "accuracy", NORMS[0], "penalty", *NORMS[1:], "by_layer"]
    assert len(panels["accuracy"].get_lines()) == 3  # training, raw and smoothed; validation
    lines = panels["by_layer"].get_lines()
    assert [line.get_xdata().tolist() for line in lines] == [[0, 10, 20, 30]] * 3


def test_one_of_many_runs_is_drawn_as_the_error_says():
    many = jax.tree.map(lambda a: jnp.stack([a, a]), history())
    assert titles(report.curves.draw(jax.tree.map(lambda a: a[0], many)))[0] == "loss"


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    report.curves.save(history(), tmp_path / "curves.png")
    write(tmp_path / "report.html")
    assert dict(matplotlib.rcParams) == before and not Gcf.figs


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"report: needs matplotlib; pip install 'fnn\["):
        report.curves.draw(history())


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 300), most=st.sampled_from([2, 10, 64]), seed=st.integers(0, 9))
def test_thinning_keeps_the_least_and_the_greatest(n, most, seed):
    values = np.random.default_rng(seed).normal(size=n)
    x, y = extremes(np.arange(n), values, most)
    assert len(x) == len(y) <= max(most, 1)
    assert (y.min(), y.max()) == (values.min(), values.max())
    assert (np.diff(x) >= 0).all() and 0 <= x[0] and x[-1] < n


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 400), seed=st.integers(0, 9))
def test_smoothing_is_the_mean_over_the_known_values_around(n, seed):
    random = np.random.default_rng(seed)
    values = np.where(random.uniform(size=n) < 0.1, np.nan, random.normal(size=n))
    x, y = smoothed(np.arange(n), values, most=50)
    r = n // 100
    for step, got in zip(x, y, strict=True):
        around = values[max(step - r, 0) : step + r + 1]
        known = around[np.isfinite(around)]
        want = known.mean() if len(known) else np.nan
        np.testing.assert_allclose(got, want, atol=1e-12)  # float64 sums of 400 terms


@settings(deadline=None, max_examples=30)
@given(data=st.data(), classes=st.integers(1, 5))
def test_a_confusion_matrix_counts_pairs(data, classes):
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1)
    )
    labels, predictions = np.array(pairs).T
    counted = report.confusion.matrix(labels, predictions, classes)
    for i in range(classes):
        for j in range(classes):
            assert counted[i, j] == pairs.count((i, j))


@pytest.mark.parametrize(("bad", "name"), [(3, "labels"), (-1, "labels"), (3, "predictions")])
def test_a_class_that_there_is_not_is_refused(bad, name):
    given = {"labels": np.array([0, 1]), "predictions": np.array([0, 1]), name: np.array([0, bad])}
    with pytest.raises(ValueError, match=rf"expected {name} in \[0, 3\), got {bad}"):
        report.confusion.matrix(**given, classes=3)


def test_a_prediction_must_come_for_each_label():
    with pytest.raises(ValueError, match="expected a prediction for each label"):
        report.confusion.matrix(np.array([0, 1]), np.array([0]), 2)


def test_the_table_shows_counts_recall_and_precision():
    table = report.confusion.table(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["<a>", "b", "c"])
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    assert rows == [
        ["", "&lt;a&gt;", "b", "c", "recall"],
        ["&lt;a&gt;", "3", "1", "", "75 %"],
        ["b", "", "4", "", "100 %"],
        ["c", "", "", "", "–"],
        ["precision", "100 %", "80 %", "–", ""],
    ]
    with pytest.raises(ValueError, match="confusion.table: expected 3 class names, got 1"):
        report.confusion.table(np.zeros((3, 3), int), ["a"])


def probabilities(*rows: float) -> np.ndarray:
    """Of two classes, from those of class 1."""
    return np.array([[1 - p, p] for p in rows], np.float32)


def images_of(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(f))).convert("RGB")) for f in found]


def test_the_gallery_shows_the_mistakes_with_the_most_confident_first():
    images = np.arange(4.0)[:, None, None] * np.ones((4, 2, 3))
    labels = np.array([0, 0, 1, 0])
    html = report.misclassified.gallery(images, labels, probabilities(0.6, 0.1, 0.001, 0.99))
    assert re.findall(r'alt="([^"]*)"', html) == [
        "example 2: 1 classified as 0",
        "example 3: 0 classified as 1",
        "example 0: 0 classified as 1",
    ]
    assert re.findall(r"<span>([^<]*)</span>", html)[:2] == ["&lt; 1 %", "100 %"]
    # Black is the least and white the greatest of all the images, shown or not.
    assert [p[0, 0, 0] for p in images_of(html)] == [170, 255, 0]
    assert {p.shape for p in images_of(html)} == {(2, 3, 3)}


def test_the_gallery_keeps_to_the_most_and_says_how_many_more():
    html = report.misclassified.gallery(
        np.zeros((5, 2, 2)), np.zeros(5, int), probabilities(*[0.9] * 5), most=2
    )
    assert html.count("<figure>") == 2 and "And 3 more." in html


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_the_gallery_takes_gray_and_color(channels):
    images = np.linspace(-1, 1, 4 * int(np.prod(channels))).reshape(1, 2, 2, *channels)
    html = report.misclassified.gallery(images, np.array([0]), probabilities(0.9))
    assert images_of(html)[0].shape == (2, 2, 3)


def test_the_gallery_escapes_names_and_refuses_mixed_lengths():
    images = np.zeros((1, 2, 2))
    html = report.misclassified.gallery(
        images, np.array([0]), probabilities(0.9), class_names=["<a>", '"b"']
    )
    assert "&lt;a&gt; classified as &quot;b&quot;" in html and "<a>" not in html
    with pytest.raises(
        ValueError, match="misclassified.gallery: expected .* of one length, got 1, 1 "
    ):
        report.misclassified.gallery(images, np.array([0]), probabilities(0.9, 0.9))


def write(path, **changes) -> Page:
    sections = {
        "Confusion": report.confusion.table(np.array([[3, 1], [0, 4]])),
        "Misread": report.misclassified.gallery(
            np.random.default_rng(0).uniform(size=(2, 4, 4)),
            np.zeros(2, int),
            probabilities(0.9, 0.8),
        ),
    }
    given = {
        "title": "A run",
        "headline": {"Test accuracy": "98.5 %"},
        "config": {"lr": 0.1, "widths": (8, 8)},
        "history": history(),
        "sections": sections,
    }
    report.html.write(path, **(given | changes))
    return Page(path.read_text("utf-8"))


def test_the_page_is_valid_and_needs_nothing_beside_itself(tmp_path):
    page = write(tmp_path / "report.html", best_step=20)
    page.assert_needs_nothing_else()
    assert page.tags.count("svg") == 6 and page.tags.count("img") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_what_it_was_given(tmp_path):
    text = write(tmp_path / "report.html").text
    for said in ("A run", "98.5 %", "lr", "0.1", "(8, 8)", "Confusion", "loss", "JAX"):
        assert said in text


def test_the_page_escapes_what_it_is_given_as_text(tmp_path):
    bad = "<script>alert('&')</script>"
    names = ("loss", bad)
    page = write(
        tmp_path / "a.html",
        title=bad,
        headline={bad: bad},
        config={bad: bad},
        history=history(names=names),
    )
    page.assert_needs_nothing_else()
    assert page.text.count(bad) >= 5


def test_the_page_has_no_rest_of_the_template(tmp_path):
    write(tmp_path / "report.html", sections=None)
    assert not re.search(r"\$[a-z]", (tmp_path / "report.html").read_text("utf-8"))


@pytest.mark.slow
def test_the_page_stays_small_for_a_long_run(tmp_path):
    write(tmp_path / "report.html", history=history(100_000, 500), sections=None)
    assert (tmp_path / "report.html").stat().st_size < 600_000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<!DOCTYPE html><p><b></p>", "closes nothing"),
        ("<!DOCTYPE html><p>", "never closed"),
        ('<!DOCTYPE html><i id="a"></i><i id="a"></i>', "twice"),
        ('<!DOCTYPE html><img src="https://x.org/a.png">', "refers to https"),
        ('<!DOCTYPE html><a href="#b"></a>', "refers to #b"),
    ],
)
def test_a_fault_in_a_page_is_found(text, fault):
    with pytest.raises(AssertionError, match=fault):
        Page(text).assert_needs_nothing_else()
