import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, nn, optim, schedules
from fnn.diagnose import fork
from fnn.nn import sequential
from fnn.recipe import Recipe
from fnn.train import make_run
from tests.tiny import BATCH, DATA, KEY, assert_same_bits

HYPER = {"lr": 0.2, "rate": 0.3, "optimizer": {"momentum": 0.5}}
EDITS = {
    "the same": {"lr": HYPER["lr"]},
    "lr halved": {"lr": 0.5 * HYPER["lr"]},
    "no dropout, more momentum": {"rate": 0.0, "optimizer/momentum": 0.9},
}
BEFORE, STEPS = 5, 7


def recipe(hyper):
    return Recipe(
        model=sequential(nn.dropout(hyper["rate"]), nn.linear(2)),
        loss=losses.cross_entropy,
        optimizer=optim.sgd(momentum=hyper["optimizer"]["momentum"]),
        schedule=schedules.constant(hyper["lr"]),
        metrics={"accuracy": metrics.accuracy()},
    )


@pytest.fixture(scope="module")
def whole():
    """A run that is evaluated where it forks, and at the end."""
    run = make_run(recipe, steps=BEFORE + STEPS, batch_size=BATCH, eval_every=BEFORE + STEPS)
    return jax.jit(run)(KEY, HYPER, DATA)


@pytest.fixture(scope="module")
def state():
    return jax.jit(make_run(recipe, steps=BEFORE, batch_size=BATCH))(KEY, HYPER, DATA)[0]


def forked(state, hyper=HYPER, edits=EDITS, **changes):
    sizes = dict(steps=STEPS, batch_size=BATCH, seeds=3) | changes
    return fork(recipe, state, DATA, key=KEY, hyper=hyper, edits=edits, **sizes)


@pytest.fixture(scope="module")
def result(state):
    return forked(state)


@pytest.mark.slow
def test_the_branch_without_an_edit_is_what_the_run_becomes(result, whole):
    state, history = whole
    got = jax.tree.map(lambda a: a[0, 0], (result.state, result.train["loss"], result.valid))
    last = {name: values[-1] for name, values in history.valid.items()}
    expected = (state, history.train["loss"][BEFORE:], last)
    assert got[0].step == state.step == BEFORE + STEPS
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        # Products of many branches at once sum in another order; another batch or another noise
        # would differ in the first digits.
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_edited_branch_is_the_run_that_goes_on_with_the_edited_hyperparameters(result, state):
    name = "no dropout, more momentum"
    edited = {"lr": HYPER["lr"], "rate": 0.0, "optimizer": {"momentum": 0.9}}
    back = {"back": {"lr": 1.0, "rate": 0.5, "optimizer/momentum": 0.1}, "one": {}, "more": {}}
    alone = forked(state, hyper=edited, edits=back)  # its branch without an edit
    place = result.names.index(name)
    for a, b in (
        (result.train["loss"], alone.train["loss"]),
        (result.valid["loss"], alone.valid["loss"]),
    ):
        np.testing.assert_allclose(a[place], b[0], rtol=1e-5)
    assert_same_bits(alone.train["loss"][0], alone.train["loss"][2])  # where an edit edits nothing


def test_all_branches_of_a_seed_see_the_same_batches_and_noise(result):
    np.testing.assert_array_equal(result.train["loss"][1], result.train["loss"][0])  # 'the same'
    # Before its first update a branch with another lr has the very loss of the others.
    np.testing.assert_array_equal(result.train["loss"][2, :, 0], result.train["loss"][0, :, 0])
    assert (result.train["loss"][2, :, 1] != result.train["loss"][0, :, 1]).all()


def test_each_seed_has_batches_and_noise_of_its_own(result):
    assert len({float(loss) for loss in result.train["loss"][0, :, 0]}) == 3


@pytest.mark.slow
def test_the_state_is_left_as_it_was(state, whole):
    before = jax.tree.map(lambda a: np.array(a, copy=True), state)
    forked(state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert_same_bits(before, state)


def test_the_differences_are_taken_seed_by_seed(result):
    measures, differences = result.measures, result.differences
    assert list(measures) == ["train loss", "valid accuracy", "valid loss"]
    np.testing.assert_allclose(
        measures["train loss"], np.asarray(result.train["loss"]).mean(axis=-1), rtol=1e-6
    )
    for name, values in measures.items():
        assert values.shape == (4, 3) and (differences[name][:2] == 0).all()
        np.testing.assert_array_equal(differences[name], values - values[0])


def test_the_table_has_a_row_for_each_branch_with_mean_std_and_their_ratio(result):
    title, head, *rows = str(result).split("\n")
    assert title.startswith("7 steps, 3 noise seeds")
    assert [cell.strip() for cell in head.split("  ") if cell] == list(result.measures)
    assert [row.split("  ")[0] for row in rows] == list(result.names)
    apart = result.differences["train loss"][2]
    mean, std = apart.mean(), apart.std(ddof=1)
    assert f"{mean:+.3g} ± {std:.2g} ({mean / std:+.1f} std)" in rows[2]
    assert "+0 ± 0" in rows[1] and "nan" not in str(result) and "inf" not in str(result)


@pytest.mark.slow
def test_with_one_seed_there_is_no_std(state):
    text = str(forked(state, seeds=1, edits={"lr halved": {"lr": 0.1}}))
    assert "1 noise seed:" in text and "nan" not in text and text.count("±") == 1


def test_bad_edits_are_refused(state):
    refused = {
        r"the edit 'a' to change some of \['lr', .*got 'rat'; did you mean 'rate'": {"rat": 0.0},
        r"the edit 'a' to keep the shape \(\) of 'lr', got \(2,\)": {"lr": jnp.ones(2)},
        "expected an edit that changes something, got none": {},
    }
    for match, edit in refused.items():
        with pytest.raises(ValueError, match=f"fork: .*{match}"):
            forked(state, edits={"a": edit})
    with pytest.raises(ValueError, match="fork: expected steps to be a positive integer"):
        forked(state, steps=0)
    wrong = jax.tree.map(lambda a: a[None], state)
    with pytest.raises(ValueError, match="fork: the recipe's state and the given one differ"):
        forked(wrong)


@pytest.mark.slow
def test_a_whole_number_may_be_edited_to_one_that_is_not(state):
    whole = HYPER | {"rate": 0}  # an int, as one writes it
    result = forked(state, hyper=whole, edits={"a": {"rate": 0.5}, "b": {}, "c": {}}, seeds=1)
    assert (np.asarray(result.train["loss"][1]) != np.asarray(result.train["loss"][0])).all()
