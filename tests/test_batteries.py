"""Checks report all broken laws, name what is wrong in their arguments, and become pytest items."""

import inspect

import jax
import jax.numpy as jnp
import pytest

from fnn import losses, nn, optim, schedules, testing
from fnn.order import order
from fnn.recipe import Recipe
from fnn.testing import laws_of
from fnn.testing._given import expect_model
from fnn.types import Model
from tests.mutants.blocks import attention, batch_norm, padded_attention, two_dropouts
from tests.registry.rows import normal

pytest_plugins = ["pytester"]
X = jnp.asarray(normal(4, 3))
SEQUENCES = jnp.asarray(normal(3, 6, 4))


@pytest.fixture(autouse=True)
def promotion_of_users():
    """JAX's defaults: what is tested is written as users write it."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def names_of(error):
    return {e.law for e in error.value.exceptions}


def test_all_broken_laws_are_reported_with_their_leaves():
    mixing = nn.lift(lambda x: x - x.mean())
    never_read = Model(
        lambda key, x: ({"w": jax.random.normal(key, (3,)), "b": jnp.ones(3)}, ()),
        lambda params, state, x, *, key=None, train=False: (
            mixing.apply({}, (), x * params["w"])[0],
            state,
        ),
    )
    with pytest.raises(testing.BrokenLaws) as error:
        testing.check_model(never_read, X)
    assert {"examples_are_independent", "every_parameter_is_used"} <= names_of(error)
    (unused,) = [e for e in error.value.exceptions if e.law == "every_parameter_is_used"]
    assert unused.leaf == "b" and "use it in apply" in str(error.value)


@pytest.mark.parametrize(
    ("make", "bug", "x", "declared", "law"),
    [
        (attention, "no mask", SEQUENCES, {"causal": True}, "is_causal"),
        (attention, "sees itself only", SEQUENCES, {"causal": True}, "reads_the_past"),
        (padded_attention, "no mask",
         {"x": SEQUENCES, "lengths": jnp.array([6, 3, 4])}, {}, "ignores_padding"),
        (padded_attention, "sum over valid divided by all",
         {"x": SEQUENCES, "lengths": jnp.array([6, 3, 4])}, {}, "padding_may_be_trimmed"),
        (batch_norm, "never moves", X, {}, "training_moves_the_state"),
        (two_dropouts, "one key for both", jnp.asarray(normal(4, 5)), {},
         "model_uses_no_key_twice"),
    ],
)  # fmt: skip
def test_a_planted_bug_breaks_its_law_and_the_correct_model_none(make, bug, x, declared, law):
    def outcome(model):
        found = {item.name: item for item in laws_of.model.__wrapped__(model, x, **declared)}
        found[law]()

    outcome(make())
    with pytest.raises(testing.LawError) as error:
        outcome(make(bug))
    assert error.value.law == law


def test_a_step_and_a_recipe_by_hand_keep_their_laws():
    def step(state, batch):
        def loss(w):
            return jnp.mean(jnp.square(batch @ w))

        value, slope = jax.value_and_grad(loss)(state["params"])
        return {"params": state["params"] - 0.1 * slope}, {"loss": value}

    batches = [X, jnp.asarray(normal(4, 3, seed=1))]
    testing.check_step(step, lambda: {"params": jnp.ones(3)}, batches)
    with pytest.raises(testing.BrokenLaws) as error:
        testing.check_step(
            lambda state, batch: (state, step(state, batch)[1]),
            lambda: {"params": jnp.ones(3)},
            batches,
        )
    assert {"every_leaf_of_the_state_moves", "overfits_one_batch"} <= names_of(error)


@pytest.mark.slow
def test_all_laws_of_a_recipe_hold():
    def recipe(hyper):
        return Recipe(
            nn.sequential(nn.linear(4), jnp.tanh, nn.dropout(0.2), nn.linear(3)),
            losses.cross_entropy,
            optim.adamw(weight_decay=hyper["decay"]),
            schedules.constant(hyper["lr"]),
        )

    batch = (jnp.asarray(normal(6, 5)), jnp.array([0, 1, 2, 0, 1, 2]))
    testing.check_recipe(recipe, batch, hyper={"lr": 0.02, "decay": 0.1}, policy="fnn")


def test_an_order_keeps_its_laws_and_one_that_repeats_does_not():
    testing.check_order(order, 10, 4)

    def same_each_epoch(key, step, n, size):
        return jnp.take(jax.random.permutation(key, n), (step * size + jnp.arange(size)) % n)

    with pytest.raises(testing.BrokenLaws) as error:
        testing.check_order(same_each_epoch, 10, 4)
    assert names_of(error) == {"epochs_differ"}


def test_what_is_skipped_has_a_reason_and_the_name_of_a_law():
    testing.check_model(
        nn.lift(lambda x: x - x.mean()), X, skip={"examples_are_independent": "a statistic"}
    )
    with pytest.raises(ValueError, match="did you mean 'examples_are_independent'"):
        testing.check_model(nn.linear(2), X, skip={"examples_are_indep": "a statistic"})
    with pytest.raises(ValueError, match="expected a reason"):
        testing.check_model(nn.linear(2), X, skip={"model_is_pure": ""})


def test_a_wrong_kind_gets_a_sentence():
    # Called without the checks of types that this suite adds.
    with pytest.raises(ValueError, match="expected a Model, got .*lift a function of x"):
        inspect.unwrap(expect_model)("check_model", jnp.tanh)
    with pytest.raises(ValueError, match="expected an Optimizer"):
        testing.check_optimizer(lambda: 3)
    with pytest.raises(ValueError, match="batch of at least 3"):
        testing.check_loss(losses.mean_squared_error, X[:2], X[:2])
    with pytest.raises(ValueError, match="monotone to be falling or rising"):
        testing.check_schedule(schedules.constant(0.1), monotone="down")


def test_the_plugin_makes_an_item_of_each_law_and_a_table(pytester):
    pytester.makepyfile(
        """
        import jax.numpy as jnp
        from fnn import nn
        from fnn.testing import laws_of

        X = jnp.array([[1.0], [2.0], [4.0]])

        @laws_of.model(nn.lift(lambda x: x - x.mean()), X, skip={"model_is_finite": "not now"})
        def test_mixing(law):
            law()

        def test_key(key):
            assert key.shape == ()
        """
    )
    result = pytester.runpytest_subprocess(
        "-q", "-p", "no:cacheprovider", "--fnn-strict", "-k", "independent or finite or key"
    )
    result.assert_outcomes(passed=5, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*test_mixing * 1 * 1*examples_are_independent"])
