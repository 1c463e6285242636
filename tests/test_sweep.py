import csv
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import losses, models, nn, optim, report, schedules
from fnn.recipe import Recipe
from fnn.train import halving, make_run, search, silent, sweep
from fnn.train.sweeps._chunk import choose_layout
from fnn.train.sweeps.halving import rung_ends, survivors
from fnn.train.sweeps.result import SweepResult, SweepTable
from fnn.types import Batch, Data, History
from tests.shapes import unchecked
from tests.tiny import BATCH, DATA, EVERY, HYPER, assert_same_bits, recipe

STEPS = 20
KEYS = jax.random.split(jax.random.key(3), 3)
SETTINGS = search.grid(**(HYPER | {"lr": [0.02, 1e30, 0.1], "rate": [0.1, 0.3]}))
DEAD = [2, 3]  # the settings with the lr of 1e30
SIZES = {"steps": STEPS, "batch_size": BATCH, "eval_every": EVERY}  # a whole number of intervals


@pytest.fixture(scope="module")
def result():
    return sweep(recipe, DATA, SETTINGS, KEYS, **SIZES, progress=silent)


def hyper_of(settings, i):
    return {name: values[i] for name, values in settings.items()}


# A quicker problem: a line by gradient descent, with a hyperparameter that does nothing.

X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
LINE = Data(train=Batch(X, 3 * X), valid=Batch(X[::2], 3 * X[::2]))
SHORT = {"steps": 12, "batch_size": 4, "eval_every": 3, "progress": silent}
LRS = np.array([0.05, 0.3, 0.1, 1e25, 0.01, 0.2, 0.15], np.float32)


def line(hyper):
    return Recipe(
        nn.linear(1), losses.mean_squared_error, optim.sgd(), schedules.constant(hyper["lr"])
    )


@pytest.fixture(scope="module")
def whole():
    return sweep(line, LINE, {"lr": LRS}, KEYS, **SHORT)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize(("setting", "key"), [(0, 0), (5, 2)])
def test_a_member_is_the_run_with_its_key_and_hyperparameters(result, setting, key):
    hyper = hyper_of(SETTINGS, setting)
    state, history = RUN(KEYS_AGAIN[key], hyper, DATA)
    ours = jax.tree.map(lambda a: a[setting, key], result.history)
    # A batched product sums in another order than a single one, and 20 steps carry that on.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, ours, history)
    jax.tree.map(close, result.member(setting, key), state)


RUN = jax.jit(make_run(recipe, **SIZES))
KEYS_AGAIN = [jax.random.wrap_key_data(w) for w in np.asarray(jax.random.key_data(KEYS))]


def test_a_member_that_dies_is_kept_at_its_last_finite_state_and_counted(result):
    alive = np.ones((6, 3), bool)
    alive[DEAD] = False
    np.testing.assert_array_equal(result.diverged, ~alive)
    rows = result.table().rows
    assert [(row["n"], row["diverged"]) for row in rows] == [
        (0, 3) if i in DEAD else (3, 0) for i in range(6)
    ]
    for setting in DEAD:
        step = int(result.made[setting, 0])
        state = result.member(setting)
        assert state.step == step < STEPS
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
        values = np.stack([v[setting, 0] for v in result.history.train.values()])
        assert np.isfinite(result.history.train["loss"][setting, 0, :step]).all()
        assert not np.isfinite(values[:, step]).all() and np.isnan(values[:, step + 1 :]).all()
        assert np.isnan(result.history.valid["loss"][setting, 0, step // EVERY :]).all()


@pytest.mark.slow
def test_the_state_of_one_that_died_is_that_of_a_run_up_to_its_death():
    settings = {"lr": np.array([1e5], np.float32)}
    died = sweep(line, LINE, settings, KEYS[:1], **SHORT)
    step = int(died.made[0, 0])
    assert 1 < step < SHORT["steps"]  # it took some steps to overflow
    up_to = jax.jit(make_run(line, steps=step, batch_size=4))
    state, history = up_to(KEYS_AGAIN[0], hyper_of(settings, 0), LINE)
    assert np.isfinite(history.train["loss"]).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), died.member(0), state)


def test_settings_share_the_batches_the_first_weights_and_the_noise_of_their_key(whole):
    first = whole.history.train["loss"][:, :, 0]
    assert (first == first[:1]).all()
    assert len(set(first[0].tolist())) == len(KEYS)


def test_chunks_change_no_bit_and_are_compiled_once(whole):
    traces, shown = [], []

    def counting(predictions, targets):
        traces.append(1)
        return losses.mean_squared_error(predictions, targets)

    @contextmanager
    def counted(steps):
        yield shown.append

    def traced(memory_bytes):
        """How often the loss is traced for a sweep, and how many chunks that has."""
        traces.clear(), shown.clear()
        options = SHORT | {"progress": counted, "memory_bytes": memory_bytes}
        recipe = lambda hyper: line(hyper)._replace(loss=counting)  # noqa: E731  a new function
        in_chunks = sweep(recipe, LINE, {"lr": LRS}, KEYS, **options)
        for a, b in ((in_chunks.history, whole.history), (in_chunks.kept, whole.kept)):
            assert_same_bits(a, b)
        total = len(traces)
        sweep(recipe, LINE, {"lr": 2 * LRS}, KEYS, **options)
        assert len(traces) == total  # nothing is traced for other values
        return total, len(shown) // 2

    (at_once, one), (again, several) = traced(2**24), traced(11_300)
    assert one == 1 and several > 1
    assert again == at_once


@pytest.mark.slow
def test_halving_goes_on_with_the_best_and_changes_no_bit_of_them(whole):
    halved = sweep(line, LINE, {"lr": LRS}, KEYS, **SHORT, halving=halving(eta=2, rungs=2))
    early = whole.history.valid["loss"][:, :, 1].mean(axis=1)  # after 6 of 12 steps
    best = np.sort(np.argsort(early)[:4])
    reached = np.where(np.isin(np.arange(len(LRS)), best), 12, 6)
    np.testing.assert_array_equal(halved.reached, np.broadcast_to(reached[:, None], (7, 3)))
    assert [row["steps"] for row in halved.table().rows] == reached.tolist()
    for i, steps in enumerate(reached):
        for name, theirs in whole.history.train.items():
            ours = halved.history.train[name][i]
            np.testing.assert_array_equal(ours[:, :steps], theirs[i][:, :steps])
            assert np.isnan(ours[:, steps:]).all()
        if steps == 12:
            assert_same_bits(halved.member(i, 1), whole.member(i, 1))
            assert_same_bits(halved.final()["loss"][i], whole.final()["loss"][i])
        else:  # the last evaluation that it came to
            np.testing.assert_array_equal(
                halved.final()["loss"][i], whole.history.valid["loss"][i, :, 1]
            )


@pytest.mark.slow
def test_groups_of_other_shapes_stand_in_one_table():
    def make_recipe(width):
        def recipe(hyper):
            model = models.mlp.mlp(models.mlp.MLPConfig(widths=(width,), out_features=1))
            return line(hyper)._replace(model=model)

        return recipe

    groups = search.shapes(make_recipe, width=[2, 3])
    both = sweep(groups, LINE, {"lr": LRS[:2]}, KEYS, **SHORT)
    assert [(row["width"], row["lr"]) for row in both.table().rows] == [
        (width, pytest.approx(lr)) for width in (2, 3) for lr in LRS[:2]
    ]
    widths = [both.member(i).params["head"]["kernel"].shape[0] for i in range(4)]
    assert widths == [2, 2, 3, 3]
    alone = sweep(groups[1].recipe, LINE, {"lr": LRS[:2]}, KEYS, **SHORT)
    assert_same_bits(jax.tree.map(lambda a: a[2:], both.history), alone.history)


def test_an_interrupt_keeps_the_chunks_that_are_done(whole):
    @contextmanager
    def interrupting(steps):
        yield lambda report: signal.raise_signal(signal.SIGINT)

    options = SHORT | {"progress": interrupting, "memory_bytes": 9_500}
    part = sweep(line, LINE, {"lr": LRS}, KEYS, **options)
    assert part.interrupted and not whole.interrupted
    done = part.reached > 0
    assert 0 < done.sum() < done.size
    for name, values in part.history.train.items():
        np.testing.assert_array_equal(values[done], whole.history.train[name][done])
        assert np.isnan(values[~done]).all()
    assert sum(row["n"] + row["diverged"] for row in part.table().rows) == done.sum()
    with pytest.raises(ValueError, match="SweepResult: expected a member that was run"):
        part.member(*np.argwhere(~done)[0])


def test_the_table_is_mean_std_and_n_over_the_members_that_live(whole):
    final = whole.history.valid["loss"][..., -1]
    final = np.asarray(final, np.float64)
    for row, values, lr in zip(whole.table().rows, final, LRS, strict=True):
        living = values[np.isfinite(values)]
        assert (row["n"], row["diverged"]) == (len(living), 3 - len(living))
        assert row["lr"] == pytest.approx(lr)
        expected = (living.mean(), living.std(ddof=1)) if len(living) else (np.nan, np.nan)
        # Not to the last bit: NumPy may sum in another order along an axis.
        np.testing.assert_allclose((row["loss mean"], row["loss std"]), expected, rtol=1e-12)


def test_a_table_prints_aligned_sorts_and_saves_as_csv(whole, tmp_path):
    table = whole.table()
    lines = str(table).split("\n")
    assert len(lines) == 1 + len(LRS) and len({len(text) for text in lines}) == 1
    least_first = [row["loss mean"] for row in table.sorted("loss mean").rows]
    most_first = [row["loss mean"] for row in table.sorted("loss mean", descending=True).rows]
    assert least_first[:-1] == sorted(least_first[:-1]) == most_first[-2::-1]
    assert np.isnan([least_first[-1], most_first[-1]]).all()  # NaN is last either way
    with pytest.raises(ValueError, match="SweepTable: expected one of"):
        table.sorted("los mean")

    report.sweep.save_csv(table, tmp_path / "sweep.csv")
    with open(tmp_path / "sweep.csv") as file:
        for row, read in zip(table.rows, csv.DictReader(file), strict=True):
            numbers = {name: float(text) if text else np.nan for name, text in read.items()}
            np.testing.assert_array_equal(list(numbers.values()), list(row.values()))


def test_a_second_sweep_of_the_kind_compiles_nothing():
    compiled = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    recipe = lambda hyper: line(hyper)  # noqa: E731  a new function
    one = sweep(recipe, LINE, {"lr": LRS}, KEYS, **SHORT)
    assert compiled
    compiled.clear()
    other = sweep(recipe, LINE, {"lr": 2 * LRS}, KEYS, **SHORT)
    assert not compiled
    assert (one.history.train["loss"] != other.history.train["loss"]).any()


def test_what_is_kept_is_computed_in_the_program():
    kept = sweep(
        line, LINE, {"lr": LRS}, KEYS, **SHORT, keep=lambda state: state.params["kernel"].sum()
    )
    assert kept.kept[0].shape == (7, 3)
    assert abs(kept.member(1, 0) - 3) < 0.2


def test_a_hyperparameter_may_be_an_array_for_each_setting(whole):
    def scheduled(hyper):
        return line({"lr": 0.0})._replace(schedule=lambda step: hyper["lrs"][step])

    lrs = np.repeat(LRS[:2, None], 12, axis=1)
    other = sweep(scheduled, LINE, {"lrs": lrs}, KEYS, **(SHORT | {"steps": 11}))
    assert other.history.eval_steps[1, 2].tolist() == [3, 6, 9, 11]
    # The constant is now a number read from an array: the same numbers, compiled another way.
    np.testing.assert_allclose(
        other.history.train["loss"], whole.history.train["loss"][:2, :, :11], rtol=1e-5, atol=1e-7
    )


ON_TWO_DEVICES = """
import jax, numpy as np
from tests import test_sweep as t
assert len(jax.devices()) == 2
by_setting = t.sweep(t.line, t.LINE, {"lr": t.LRS}, t.KEYS, **t.SHORT)
by_key = t.sweep(t.line, t.LINE, {"lr": t.LRS[:1]}, t.KEYS, **t.SHORT)
np.savez(path, *jax.tree.leaves((by_setting.history, by_setting.kept, by_key.history, by_key.kept)))
"""


@pytest.mark.slow
def test_two_devices_share_the_members_and_give_the_same(whole, tmp_path):
    path = tmp_path / "two.npz"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-c", f"path = {str(path)!r}\n{ON_TWO_DEVICES}"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[1],
        check=True,
    )
    one = jax.tree.map(lambda a: a[:1], (whole.history, whole.kept))
    expected = jax.tree.leaves((whole.history, whole.kept, *one))
    with np.load(path) as found:
        for i, array in enumerate(expected):
            # Each device has fewer members side by side, whose sums may round another way.
            np.testing.assert_allclose(found[f"arr_{i}"], array, rtol=1e-5, atol=1e-7)


@given(
    n_keys=st.integers(1, 20),
    n_settings=st.integers(1, 50),
    most=st.integers(1, 40),
    n_devices=st.integers(1, 8),
)
def test_a_layout_keeps_to_the_memory_and_fills_its_chunks(n_keys, n_settings, most, n_devices):
    layout = choose_layout(n_keys, n_settings, most, jax.devices() * n_devices)
    assert 1 <= layout.members_per_device <= most
    shared = layout.keys if layout.by_key else layout.settings
    assert shared % len(layout.devices) == 0
    assert len(layout.devices) == min(n_devices, max(n_keys, n_settings))
    for n, size in ((n_keys, layout.keys), (n_settings, layout.settings)):
        chunks = -(-n // size)
        # Less than one member too many for each chunk and device.
        assert chunks * size - n < chunks * len(layout.devices)


def test_the_layout_of_few_settings_shares_the_keys():
    layout = choose_layout(8, 2, 100, jax.devices() * 4)
    assert layout.by_key and (layout.keys, layout.settings) == (8, 2)


def test_a_grid_holds_every_combination_once():
    made = search.grid(a=[1, 2], b=[0.5, 0.25, 0.125], c=7)
    rows = list(zip(*(np.asarray(made[name]).tolist() for name in "abc"), strict=True))
    assert rows == [(a, b, 7) for a in (1, 2) for b in (0.5, 0.25, 0.125)]


def test_random_draws_have_their_distribution_and_streams_of_their_own():
    key, n = jax.random.key(0), 4000
    draws = {"lr": search.log_uniform(1e-4, 1e-1), "rate": search.uniform(0.2, 0.6)}
    made = search.random(key, n, **draws, b1=0.9)
    alone = search.random(key, n, rate=draws["rate"])
    np.testing.assert_array_equal(made["rate"], alone["rate"])
    assert (made["b1"] == np.float32(0.9)).all()
    shares = (np.log10(made["lr"]) + 4) / 3, (made["rate"] - 0.2) / 0.4
    for share in map(np.asarray, shares):
        assert -1e-6 <= share.min() and share.max() <= 1 + 1e-6
        # Kolmogorov's distance stays below 1.95 / sqrt(n) in 999 of 1,000 samples.
        distance = np.abs(np.sort(share) - np.arange(n) / n).max()
        assert distance < 1.95 / np.sqrt(n)
    correlation = np.corrcoef(*shares)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(n)


def test_the_ends_of_rungs_are_evaluations():
    assert rung_ends(halving(eta=3, rungs=3), steps=100, eval_every=10) == [20, 40, 100]
    assert rung_ends(halving(eta=2, rungs=2), steps=22, eval_every=5) == [15, 22]
    with pytest.raises(ValueError, match="expected rungs that end apart"):
        rung_ends(halving(eta=4, rungs=3), steps=100, eval_every=50)


def test_survivors_are_those_of_the_best_score_and_nan_is_the_worst():
    valid = [{"loss": 0.0, "accuracy": a} for a in (0.5, float("nan"), 0.9, 0.7)]
    by_accuracy = halving(eta=2, rungs=2, score=lambda valid: -valid["accuracy"])
    assert survivors(by_accuracy, valid, 4, 0).tolist() == [2, 3]


def test_curves_are_means_with_bands_of_the_settings_from_best_to_worst(whole):
    axes = report.sweep.draw_curves(whole, most=3).axes[0]
    final = whole.history.valid["loss"]
    order = np.argsort(final[..., -1].mean(axis=1))
    lines = axes.get_lines()
    for drawn, setting in zip(lines, [order[0], order[2], order[5]], strict=True):
        np.testing.assert_allclose(drawn.get_ydata(), final[setting].mean(axis=0), rtol=1e-6)
    assert len(axes.collections) == 3
    with pytest.raises(ValueError, match="draw_curves: expected one of"):
        report.sweep.draw_curves(whole, metric="accuracy")


def test_the_map_has_a_color_for_each_pair_and_a_frame_around_the_best():
    rows = [
        {"lr": lr, "decay": decay, "b1": b1, "loss mean": lr * decay + b1 if decay else np.nan}
        for b1 in (0.0, 1.0)
        for lr in (0.3, 0.1)
        for decay in (0.0, 1.0, 2.0)
    ]
    drawn = report.sweep.draw_map(SweepTable(rows), x="lr", y="decay", value="loss mean")
    axes = drawn.axes[0]
    cells = np.ma.filled(axes.images[0].get_array(), np.nan)
    expected = [[np.nan, np.nan], [0.6, 0.8], [0.7, 1.1]]  # rising lr to the right
    np.testing.assert_allclose(cells, expected, rtol=1e-12)
    (frame,) = axes.patches
    assert frame.get_xy() == (-0.5, 0.5) and "best 0.6 at lr 0.1, decay 1" in axes.get_title("left")
    assert axes.get_lines()[0].get_xydata().tolist() == [[0, 0], [1, 0]]  # the crosses
    drawn.draw_without_rendering()


BAD = {
    "typed keys of shape": ({}, {"keys": jax.random.key(0)}),
    r"got uint32\[3,2\]": ({}, {"keys": np.zeros((3, 2), np.uint32)}),
    "one axis of settings": ({}, {"hypers": {"lr": 0.1}}),
    "the lengths": ({}, {"hypers": {"lr": LRS, "b1": LRS[:2]}}),
    "expected steps to be": ({"steps": 0}, {}),
    r"recipe: expected hyper\['lr'\]": ({}, {"hypers": {"lrs": LRS}}),
    "batch_size: expected at most the 12 examples": ({"batch_size": 13}, {}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_before_any_training(message):
    options, arguments = BAD[message]
    given = {"hypers": {"lr": LRS}, "keys": KEYS} | arguments
    with pytest.raises(ValueError, match=message):
        unchecked(sweep)(line, LINE, given["hypers"], given["keys"], **(SHORT | options))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: search.grid(lr=[]), "search.grid: lr: expected"),
        (lambda: search.grid(lr=[[1.0]]), "search.grid: lr: expected"),
        (lambda: search.random(jax.random.key(0), 0), "search.random: expected n"),
        (lambda: search.log_uniform(0.0, 1.0), "search.log_uniform: expected 0 < low < high"),
        (lambda: search.uniform(1.0, 1.0), "search.uniform: expected low < high"),
        (lambda: search.listed([]), "search.listed: expected settings"),
        (lambda: search.listed([{"a": 1}, {"b": 1}]), "search.listed: expected all settings like"),
        (lambda: search.cross({"a": LRS}, {"a": LRS}), "search.cross: expected different names"),
        (lambda: search.shapes(lambda width: line, width=[]), "search.shapes: width: expected"),
        (lambda: halving(eta=1), "halving: expected eta and rungs"),
    ],
)
def test_a_space_that_is_none_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def made_up(losses, reached=None, died=None, **metrics):
    """A result with these final losses (settings, keys), as if trained for `reached` steps."""
    losses = np.asarray(losses, np.float32)
    reached = np.full(losses.shape, 10) if reached is None else np.asarray(reached)
    died = np.zeros(losses.shape, bool) if died is None else np.asarray(died)
    steps = np.broadcast_to([5, 10], (*losses.shape, 2))
    values = {"loss": losses, **{name: np.asarray(v, np.float32) for name, v in metrics.items()}}
    return SweepResult(
        settings={"lr": [0.1 * i for i in range(len(losses))]},
        history=History(
            train={"loss": np.zeros((*losses.shape, 10))},
            eval_steps=steps,
            valid={name: np.stack([v, v], axis=-1) for name, v in values.items()},
        ),
        made=reached - died,
        reached=reached,
        kept=[np.arange(losses.size).reshape(losses.shape)],
        interrupted=bool((reached == 0).any()),
    )


NAN = np.nan


@pytest.mark.parametrize(
    ("found", "index", "value"),
    [
        (made_up([[3, 3], [1, 2], [2, 2]]), 1, 1.5),  # the mean, not the lowest of all
        (made_up([[2, 2], [1, 3], [2, 2]]), 0, 2.0),  # the first of equal ones
        (made_up([[2, 2], [NAN, 0]]), 0, 2.0),  # one that is NaN comes after whole settings
        (made_up([[NAN, 2], [NAN, 1], [NAN, NAN]]), 1, 1.0),  # unless there is none
        (made_up([[2, 2], [0, 0]], died=[[0, 0], [0, 1]]), 0, 2.0),
        (made_up([[2, 2], [0, np.inf]]), 0, 2.0),
        (made_up([[2, 2], [0, 0]], reached=[[10, 10], [5, 5]]), 0, 2.0),  # dropped by halving
        (made_up([[2, 2], [0, NAN]], reached=[[10, 10], [10, 0]]), 0, 2.0),  # interrupted
        (made_up([[-1.0], [-3.0], [0.0]]), 1, -3.0),
    ],
)
def test_the_best_setting_is_that_of_the_best_mean(found, index, value):
    best = found.best()
    assert (best.index, best.value) == (index, value)
    assert best.setting == {"lr": found.settings["lr"][index]}
    assert f"setting {index} (lr=" in repr(found)


def test_the_best_by_a_metric_has_to_say_which_way():
    found = made_up([[1], [2], [3]], accuracy=[[0.5], [0.9], [0.9]])
    best = found.best("accuracy", highest=True)
    assert (best.index, best.value) == (1, pytest.approx(0.9))
    assert found.best("accuracy", highest=False).index == 0
    assert found.best("loss", highest=True).index == 2
    with pytest.raises(ValueError, match="best: expected highest=True or highest=False"):
        found.best("accuracy")
    with pytest.raises(ValueError, match="best: expected one of .'accuracy', 'loss'., got 'acc'"):
        found.best("acc")
    with pytest.raises(ValueError, match="best: expected a member with a finite 'loss', got none"):
        made_up([[NAN, np.inf]]).best()
    assert "no member has a finite loss" in repr(made_up([[NAN]]))


def test_the_index_of_a_row_finds_its_member_after_sorting_too(whole):
    table = whole.table().sorted("loss mean")
    first = table.head(1).rows[0]
    best = whole.best()
    assert table.columns[0] == "setting" and first["setting"] == best.index
    assert first["loss mean"] == pytest.approx(best.value, rel=1e-12)
    assert first["lr"] == best.setting["lr"] == pytest.approx(float(LRS[best.index]))
    finals = whole.history.valid["loss"][best.index, :, -1]
    assert best.value == pytest.approx(np.asarray(finals, np.float64).mean(), rel=1e-12)
    assert whole.member(best.index, 1).step == SHORT["steps"]


def test_hyperparameters_named_as_columns_are_refused():
    named = lambda hyper: line({"lr": hyper["setting"]})  # noqa: E731
    with pytest.raises(ValueError, match="with other names than .'setting'., which are columns"):
        sweep(named, LINE, {"setting": LRS}, KEYS, **SHORT)
