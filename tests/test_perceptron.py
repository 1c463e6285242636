"""The perceptron: its rule, what it can learn, and what it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, optim, schedules
from fnn.recipe import Recipe
from fnn.train import make_init, make_step

GATES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)


def recipe(hyper):
    return Recipe(
        models.perceptron.perceptron(),
        losses.perceptron,
        optim.sgd(),
        schedules.constant(hyper["lr"]),
    )


def trained(x, yes, epochs):
    """Parameters and mistakes of the last epoch, one example a step, beside a twin by hand."""
    state = jax.jit(make_init(recipe))(jax.random.key(0), {"lr": 1.0}, jnp.asarray(x[:1]))
    step, twin, mistakes, corrections = STEP, np.zeros(x.shape[1] + 1), 0, 0
    for _ in range(epochs):
        mistakes = 0
        for one, answer in zip(x, yes, strict=True):
            batch = jnp.asarray(one[None]), jnp.asarray([answer])
            state, _ = step(state, batch, jax.random.key(1), {"lr": 1.0})
            long = np.append(one, 1.0)
            sign = 1 if answer else -1
            if sign * (twin @ long) <= 0:  # Rosenblatt's rule
                twin = twin + sign * long
                mistakes += 1
                corrections += 1
        ours = np.append(state.params["kernel"][:, 0], state.params["bias"])
        np.testing.assert_array_equal(ours, twin.astype(np.float32))
        if not mistakes:
            break
    return state.params, mistakes, corrections


STEP = jax.jit(make_step(recipe), donate_argnums=0)  # one compilation for all


@pytest.mark.parametrize("name", ["and", "or", "nand", "left"])
def test_gates_that_a_line_separates_are_learned_by_the_rule_of_1958(name):
    a, b = GATES.T.astype(bool)
    yes = {"and": a & b, "or": a | b, "nand": ~(a & b), "left": a}[name]
    params, mistakes, _ = trained(GATES, yes, epochs=20)
    assert mistakes == 0
    scores, _ = models.perceptron.perceptron().apply(params, (), jnp.asarray(GATES))
    np.testing.assert_array_equal(models.perceptron.fires(scores), yes)


def test_xor_is_never_learned():
    yes = GATES.sum(axis=1) == 1
    params, mistakes, _ = trained(GATES, yes, epochs=20)
    assert mistakes > 0
    scores, _ = models.perceptron.perceptron().apply(params, (), jnp.asarray(GATES))
    assert (np.asarray(models.perceptron.fires(scores)) != yes).any()


def test_corrections_stay_below_novikoffs_bound():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2)).astype(np.float32)
    direction = np.array([0.6, 0.8, 0.0], np.float32)
    x = x[np.abs(x @ direction[:2]) > 0.2]  # a margin
    long = np.c_[x, np.ones(len(x))]
    _, mistakes, corrections = trained(x, long @ direction > 0, epochs=30)
    bound = (np.linalg.norm(long, axis=1).max() / np.abs(long @ direction).min()) ** 2
    assert mistakes == 0 and 0 < corrections <= bound


def test_several_units_answer_several_questions():
    model = models.perceptron.perceptron(3)
    params, _ = model.init(jax.random.key(0), jnp.asarray(GATES))
    assert model.apply(params, (), jnp.asarray(GATES))[0].shape == (4, 3)
