"""Each law and twin finds the bug that it is there for: what is planted here must be refused."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import (
    activations,
    initializers,
    layers,
    losses,
    metrics,
    nn,
    optim,
    schedules,
    tree,
)
from fnn.autodiff import linear_call
from fnn.nn import lift, sequential
from fnn.recipe import Recipe, whole_batch
from fnn.testing import (
    gradients,
    initializer_laws,
    laws,
    loss_laws,
    metric_laws,
    model_laws,
    optimizer_laws,
    recipe_laws,
    schedule_laws,
    transform_laws,
)
from fnn.types import Metric, Model, Optimizer
from tests.optim_runs import adam_twin, expect_updates
from tests.registry.rows import integers, normal
from tests.test_dropout import expect_independent_masks, expect_share_and_mean
from tests.test_norm import expect_layer_norm
from tests.test_optim import expect_exact_correction

X, KEY = jnp.asarray(normal(4, 3)), jax.random.key(0)


def is_traced(x):
    return isinstance(x, jax.core.Tracer)


def refused(match):
    return pytest.raises(AssertionError, match=match)


@pytest.mark.parametrize("law", ["jit", "pure", "grad"])
def test_the_laws_hold_for_a_function_without_a_bug(law):
    {
        "jit": partial(laws.jit_equals_eager, jnp.sin),
        "pure": partial(laws.is_pure, jnp.sin),
        "grad": partial(gradients.gradients_match_finite_differences, jnp.sin),
    }[law](X)


# General laws.


def test_a_dtype_that_drifts():
    with refused("leaf 'n': before is int32.*, after is float32"):
        laws.keeps_structure_and_dtype(lambda s: {"n": s["n"] / 2}, {"n": jnp.int32(1)})


def test_a_structure_that_changes():
    with refused("the structures differ"):
        laws.keeps_structure_and_dtype(lambda s: (*s, s), (jnp.int32(1),))


def test_a_choice_by_whether_an_argument_is_traced():
    with refused(r"jit_equals_eager: leaf '' at \(0,\): eager is 1.0, jit is 2.0"):
        laws.jit_equals_eager(lambda x: x if is_traced(x) else x - 1, jnp.full(1, 2.0))


def wrong_under_vmap(function):
    """`function`, but for a sum over all examples under vmap."""
    broken = jax.custom_batching.custom_vmap(function)
    broken.def_vmap(lambda size, batched, x: (function(x) + x.sum(), True))
    return broken


def test_examples_that_mix_under_vmap():
    with refused("vmap_equals_loop"):
        laws.vmap_equals_loop(wrong_under_vmap(jnp.sin), X)


def test_a_counter_outside_of_a_scan():
    count = iter(range(100))
    with refused("scan_equals_unrolled"):
        laws.scan_equals_unrolled(lambda c, x: (c + x + next(count), None), 0.0 * X[0, 0], X[0])


def test_a_state_whose_leaves_share_a_buffer():
    def make():
        zeros = jnp.zeros(3)
        return {"m": zeros, "v": zeros}

    with refused("leaves 'm' and 'v' share one buffer"):
        laws.donation_is_safe(lambda s: jax.tree.map(jnp.cos, s), make)


def test_a_state_that_shrinks_and_so_cannot_be_reused():
    with refused("the state cannot be donated"):
        laws.donation_is_safe(lambda s: 2 * s[1:], lambda: jnp.zeros(3))


def test_a_function_that_is_traced_for_every_value():
    calls = [(X, jnp.arange(3)), (X, jnp.arange(4)), (X, jnp.arange(5))]
    with refused(r"traced 3 times.*argument '1' was int32\[3\], then int32\[4\]"):
        laws.traces_once(lambda x, n: x * n.size, *calls)


def test_a_weak_type_that_comes_and_goes():
    with refused(r"argument '0' was ~float32\[\], then float32\[\]"):
        laws.traces_once(jnp.sin, (1.0,), (jnp.float32(1.0),), (2.0,))


def test_a_function_with_a_memory():
    seen = []

    def remembering(x):
        seen.append(x)
        return x + len(seen)

    with refused("is_pure.*look for a global"):
        laws.is_pure(remembering, X)


def test_a_function_that_changes_its_argument():
    def greedy(x):
        x["y"] += 1
        return x["y"] * 0

    with refused("arguments_are_kept: leaf '0/y'.*return new values"):
        laws.is_pure(greedy, {"y": np.zeros(2)})


def test_an_activation_that_sees_its_neighbors():
    with refused("is_elementwise"):
        laws.is_elementwise(activations.softmax, X)


def test_a_wrong_custom_derivative():
    square = jax.custom_jvp(jnp.square)
    square.defjvp(lambda x, dx: (jnp.square(*x), 2.001 * x[0] * dx[0]))
    with refused("argument '0': the derivative along a random direction"):
        gradients.gradients_match_finite_differences(square, X)


def test_a_gradient_that_is_not_a_number():
    with refused("is nan"):
        gradients.gradients_match_finite_differences(jnp.sqrt, jnp.zeros(2))


def test_a_function_that_is_fixed_at_float32():
    with refused("is float32 for float64 arguments"):
        gradients.gradients_match_finite_differences(lambda x: x.astype(jnp.float32), X)


# Models.


def broken(apply, init=lambda key, x: ({}, ())):
    return Model(init, lambda params, state, x, *, key=None, train=False: apply(x, key, train))


def test_dropout_that_forgets_to_scale():
    def unscaled(key, x, rate):
        return jnp.where(jax.random.uniform(key, x.shape) < 1 - rate, x, 0)

    with refused("mean"):
        expect_share_and_mean(unscaled, 0.5)


def test_dropout_that_keeps_what_it_should_drop():
    with pytest.raises(AssertionError):
        expect_share_and_mean(lambda key, x, rate: layers.dropout(key, x, 1 - rate), 0.1)


def test_dropout_layers_that_share_a_key():
    def both(x, key, train):
        return layers.dropout(jax.random.clone(key), layers.dropout(key, x, 0.5), 0.5), ()

    with pytest.raises(AssertionError):
        expect_independent_masks(broken(both))


def test_noise_in_evaluation():
    model = broken(lambda x, key, train: (x if key is None else layers.dropout(key, x, 0.5), ()))
    with refused("draw noise with train=True only"):
        model_laws.evaluation_ignores_the_key(model, X)


def test_noise_that_is_always_the_same():
    def fixed(x, key, train):
        return (layers.dropout(jax.random.key(0), x, 0.5) if train else x), ()

    with refused("two keys give the same output"):
        model_laws.noise_follows_the_key(broken(fixed), X)


def test_noise_that_is_silently_left_out_without_a_key():
    def lenient(x, key, train):
        return (layers.dropout(key, x, 0.5) if train and key is not None else x), ()

    with refused("train=True without a key was accepted"):
        model_laws.noise_needs_a_key(broken(lenient), X)


def test_a_batch_norm_that_uses_the_batch_in_evaluation():
    params, state = layers.batch_norm_init(3)
    model = broken(lambda x, key, train: layers.batch_norm(params, state, x, train=True))
    with refused("examples_are_independent with the examples replaced by copies of example 0"):
        model_laws.examples_are_independent(model, X)


def test_a_softmax_over_the_batch():
    with refused("examples_are_independent with the examples replaced by copies of example 0"):
        model_laws.examples_are_independent(lift(partial(activations.softmax, axis=0)), X)


def test_an_example_that_knows_its_place():
    with refused("examples_are_independent with the examples permuted"):
        place = lift(lambda x: x + jnp.arange(4.0)[:, None])
        model_laws.examples_are_independent(place, X)


def test_two_examples_are_too_few_to_tell_a_mix_from_a_swap():
    with pytest.raises(ValueError, match="expected a batch of at least 3, got 2; add examples"):
        model_laws.check_model(lift(jnp.sin), X[:2])


def test_statistics_that_move_in_evaluation():
    norm = nn.batch_norm()
    moving = Model(
        norm.init, lambda p, s, x, *, key=None, train=False: norm.apply(p, s, x, train=True)
    )
    with refused("evaluation_keeps_the_state: leaf 'mean'"):
        model_laws.evaluation_keeps_the_state(moving, X)


def test_two_layers_that_start_from_one_key():
    def init(key, x):
        return {name: layers.linear_init(key, 3, 3) for name in ("a", "b")}, ()

    with refused("leaves 'a/kernel' and 'b/kernel' are equal"):
        model_laws.init_follows_the_key(broken(lambda x, key, train: (x, ()), init), X)


def test_parameters_that_do_not_depend_on_the_key():
    def init(key, x):
        return layers.linear_init(jax.random.key(0), 3, 3), ()

    with refused("leaf 'kernel' is the same for two keys"):
        model_laws.init_follows_the_key(broken(lambda x, key, train: (x, ()), init), X)


def test_a_model_that_looks_at_its_type_of_input():
    model = lift(lambda x: x if is_traced(x) else x + 1)
    with refused("model_jit_equals_eager"):
        model_laws.model_jit_equals_eager(model, X)


def test_a_model_that_answers_bfloat16_in_float32():
    with refused("in bfloat16: output '' is float32"):
        model_laws.model_keeps_bfloat16(lift(lambda x: x.astype(jnp.float32)), X)


def test_a_model_that_puts_the_batch_last():
    with refused("the batch axis comes first"):
        model_laws.model_keeps_structures_and_dtypes(lift(jnp.transpose), X)


def test_a_state_that_takes_the_dtype_of_the_input():
    norm = nn.batch_norm()

    def apply(params, state, x, *, key=None, train=False):
        y, state = norm.apply(params, state, x, train=train)
        return y, jax.tree.map(lambda leaf: leaf.astype(x.dtype), state)

    with refused("keep the dtypes of the state, float32 or wider"):
        model_laws.model_keeps_bfloat16(Model(norm.init, apply), X)


def test_a_model_whose_init_depends_on_what_kind_of_input_it_gets():
    def init(key, x):
        size = 3 if isinstance(x, jax.ShapeDtypeStruct) else 2
        return {"w": jnp.zeros(size)}, ()

    with refused("init_accepts_shapes: leaf '0/w'"):
        model_laws.init_accepts_shapes(broken(lambda x, key, train: (x, ()), init), X)


def test_a_model_that_mixes_parameters_under_vmap():
    scale = wrong_under_vmap(jnp.sin)
    model = Model(
        lambda key, x: ({"w": jnp.ones(3)}, ()),
        lambda params, state, x, *, key=None, train=False: (x * scale(params["w"])[None], state),
    )
    with refused("model_vmap_equals_loop"):
        model_laws.model_vmap_equals_loop(model, X)


def test_a_model_with_a_wrong_derivative():
    model = sequential(nn.linear(2), lambda x: x + 0.1 * jax.lax.stop_gradient(x))
    with refused("gradients_match_finite_differences: argument '0/0/"):
        model_laws.model_gradients_are_right(model, X)


def test_a_variance_that_cancels():
    def fast(params, x):
        mean = x.mean(axis=-1, keepdims=True)
        var = jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean)
        scale, bias = params["scale"][None], params["bias"][None]
        return (x - mean) * jax.lax.rsqrt(var + 1e-6) * scale + bias

    expect_layer_norm(fast, 0.0)
    with pytest.raises(AssertionError):
        expect_layer_norm(fast, 1e4)


# Optimizers.


def adam_like(direction):
    """Adam in the paper's letters, with `direction(m, v, t)` to get wrong."""

    def init(params):
        return jnp.int32(0), tree.zeros_like(params), tree.zeros_like(params)

    def make(b1=0.9, b2=0.999):
        def update(grads, state, params, lr, objective=None):
            t = state[0] + 1
            m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state[1], grads)
            v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state[2], grads)
            step = jax.tree.map(lambda m, v: -lr * direction(m, v, t.astype(m.dtype)), m, v)
            return step, (t, m, v)

        return Optimizer(init, update)

    return make


def right(m, v, t, b1=0.9, b2=0.999):
    return (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + 0.1)


def test_adam_with_swapped_betas_and_its_eps_or_its_step_in_the_wrong_place():
    twin = partial(adam_twin, eps=0.1)
    wrong = {
        "swapped betas": adam_like(right)(b1=0.999, b2=0.9),
        "eps inside the root": adam_like(
            lambda m, v, t: m / (1 - 0.9**t) / jnp.sqrt(v / (1 - 0.999**t) + 0.1)
        )(),
        "a step that counts from 2": adam_like(lambda m, v, t: right(m, v, t + 1))(),
        "no correction": adam_like(lambda m, v, t: m / (jnp.sqrt(v) + 0.1))(),
    }
    for optimizer in wrong.values():
        with refused("Not equal to tolerance"):
            expect_updates(optimizer, twin)


def test_decay_that_is_coupled_to_the_gradient():
    coupled = optim.adam()

    def update(grads, state, params, lr, objective=None):
        grads = jax.tree.map(lambda g, p: g + 0.1 * p, grads, params)
        return coupled.update(grads, state, params, lr, objective)

    with refused("Not equal to tolerance"):
        expect_updates(Optimizer(coupled.init, update), partial(adam_twin, decay=0.1))


def test_a_correction_that_cancels():
    with refused("Not equal to tolerance"):
        expect_exact_correction(lambda b, t: 1 - jnp.asarray(b, t.dtype) ** t, 0.99999, 1)


def stepping(direction, init=lambda params: ()):
    """An optimizer from `direction(grads, state, params) -> direction, state`."""

    def update(grads, state, params, lr, objective=None):
        step, state = direction(grads, state, params)
        return jax.tree.map(lambda d: -jnp.asarray(lr, d.dtype) * d, step), state

    return lambda: Optimizer(init, update)


def test_an_optimizer_that_climbs():
    climb = stepping(lambda g, s, p: (jax.tree.map(jnp.negative, g), s))
    with refused("check the sign and size of the update"):
        optimizer_laws.training_is_a_scan(climb, {})


def test_an_optimizer_that_counts_outside_of_its_state():
    count = iter(range(1000))
    counting = stepping(lambda g, s, p: (jax.tree.map(lambda g: g + next(count), g), s))
    with refused("look for state outside the function"):
        optimizer_laws.traced_equals_plain(counting, {})


def test_an_optimizer_whose_state_changes_its_type():
    weak = stepping(lambda g, s, p: (g, s + 1.0), lambda params: jnp.int32(0))
    with jax.numpy_dtype_promotion("standard"), refused("state_is_stable.*leaf ''"):
        optimizer_laws.state_is_stable(weak, {})


def test_an_optimizer_whose_state_is_as_narrow_as_the_parameters():
    def narrow(params):
        return jax.tree.map(jnp.zeros_like, params)

    with refused("small updates vanish in 8 bits"):
        optimizer_laws.state_is_stable(stepping(lambda g, s, p: (g, s), narrow), {})


def test_an_optimizer_that_normalizes_over_all_leaves():
    def normalized(g, s, p):
        norm = tree.global_norm(g)
        return jax.tree.map(lambda g: g / norm, g), s

    with refused("look for a sum over leaves"):
        optimizer_laws.leaves_are_independent(stepping(normalized), {})
    with refused("zero_gradient_changes_nothing: .* is nan"):
        optimizer_laws.zero_gradient_changes_nothing(stepping(normalized), {})


def test_an_optimizer_that_counts_the_leaves():
    def ranked(g, s, p):
        leaves, structure = jax.tree.flatten(g)
        return jax.tree.unflatten(structure, [(1 + i) * leaf for i, leaf in enumerate(leaves)]), s

    with refused("leaves_may_be_permuted"):
        optimizer_laws.leaves_may_be_permuted(stepping(ranked), {})


def test_an_optimizer_for_dicts_only():
    def dicts(g, s, p):
        return (g if isinstance(g, dict) else jax.tree.map(jnp.zeros_like, g)), s

    with refused("containers_do_not_matter"):
        optimizer_laws.containers_do_not_matter(stepping(dicts), {})


def test_an_optimizer_whose_moments_share_a_buffer():
    def init(params):
        return params  # the moment starts as the parameters, in the same buffers

    shared = stepping(lambda g, s, p: (g, s), init)()
    with refused("leaves '0/w' and '1/w' share one buffer"):
        laws.donation_is_safe(
            lambda carry: carry, lambda: (p := {"w": jnp.ones(3)}, shared.init(p))
        )


def test_a_hyperparameter_that_is_not_used():
    with refused("a tenth less of 'b3' changes nothing"):
        optimizer_laws.scalars_may_be_swept(lambda b3: optim.sgd(), {"b3": 0.5})


def test_a_hyperparameter_that_is_another_when_traced():
    def make(momentum):
        return optim.sgd(momentum=momentum if isinstance(momentum, float) else 0.9 * momentum)

    with refused("use jnp where a value may be traced"):
        optimizer_laws.traced_equals_plain(make, {"momentum": 0.9})


def test_a_hyperparameter_that_has_no_gradient():
    def make(momentum):
        return optim.sgd(momentum=jax.lax.stop_gradient(momentum))

    with refused("argument '0/momentum'"):
        optimizer_laws.scalars_have_gradients(make, {"momentum": 0.9})


# Losses, schedules, metrics, initializers.

LABELS = jnp.asarray(integers(4, below=3))


def test_a_loss_that_is_already_a_mean():
    with refused("leave the mean to the caller"):
        loss_laws.loss_has_a_value_per_example(
            lambda y, t: losses.cross_entropy(y, t).mean(), X, LABELS
        )


def test_a_loss_of_probabilities_instead_of_logits():
    def naive(y, t):
        return -jnp.log(jnp.take_along_axis(activations.softmax(y), t[:, None], axis=1))[:, 0]

    with refused("loss_is_finite.*work from logits"):
        loss_laws.loss_is_finite(naive, X, LABELS)


def test_a_loss_that_broadcasts_over_the_batch():
    def broadcast(y, t):
        return jnp.square(y[:, 0][:, None] - t[None, :]).mean(axis=1)

    with refused("loss_is_rowwise"):
        loss_laws.loss_is_rowwise(broadcast, X, X[:, 1])


def test_a_loss_below_zero():
    with refused("loss_is_at_least_zero.*must be at least 0"):
        loss_laws.loss_is_at_least_zero(lambda y, t: y[:, 0] - t, X, X[:, 1])


def test_a_warm_up_that_is_off_by_one():
    def late(peak, warmup_steps):
        right = schedules.warmup_cosine(peak, warmup_steps=warmup_steps, total_steps=100)
        return lambda step: right(step + 1)

    with refused("schedule_has_values at step 0: expected 0.0, got 0.1"):
        schedule_laws.schedule_has_values(late(1.0, 10), {0: 0.0, 10: 1.0})


def test_a_schedule_that_gives_integers():
    with refused("must give a float32 scalar"):
        schedule_laws.schedule_takes_any_step(lambda step: jnp.asarray(step) // 2)


def test_a_schedule_that_ends_in_nothing():
    with refused("must be finite"):
        schedule_laws.schedule_takes_any_step(
            lambda step: jnp.exp(jnp.asarray(step).astype(jnp.float32))
        )


def test_a_schedule_that_rounds_a_traced_length():
    def make(length):
        length = length if isinstance(length, float) else jnp.round(length)
        return lambda step: jnp.float32(1) / (1 + jnp.asarray(step).astype(jnp.float32) / length)

    with refused("schedule_may_be_traced"):
        schedule_laws.schedule_may_be_traced(make, {"length": 7.3})


@pytest.mark.slow
def test_a_mean_of_means():
    def measure(y, t):
        return {"mean": losses.cross_entropy(y, t).mean(), "batches": jnp.float32(1)}

    naive = Metric(measure, lambda sums: sums["mean"] / jnp.maximum(sums["batches"], 1))
    with refused("no mean of means"):
        metric_laws.parts_equal_the_whole(naive, X, LABELS)


def test_a_metric_of_nothing_that_is_not_a_number():
    right = metrics.accuracy()
    naive = Metric(right.measure, lambda sums: sums["total"] / sums["weight"])
    with refused("mind a count of zero"):
        metric_laws.value_is_a_scalar(naive, X, LABELS)


def test_a_variance_divided_by_the_wrong_fan():
    with refused("the variance of 4000 draws"):
        initializer_laws.initializer_has_moments(
            initializers.he_normal(initializers.Fan.OUT), (50, 40), std=math.sqrt(2 / 50)
        )


def test_a_cut_normal_that_is_not_scaled_back():
    def cut(key, shape, dtype=jnp.float32):
        return jax.random.truncated_normal(key, -2, 2, shape, dtype)

    with refused("the variance of 4000 draws"):
        initializer_laws.initializer_has_moments(cut, (50, 40), std=1.0)


def test_draws_that_are_not_centered():
    with refused("the mean of 4000 draws"):
        initializer_laws.initializer_has_moments(jax.random.uniform, (50, 40), std=0.29)


def test_an_initializer_that_ignores_its_dtype_or_its_key():
    with refused("pass shape and dtype on"):
        initializer_laws.initializer_gives_the_shape(
            lambda key, shape, dtype=None: jax.random.normal(key, shape), [(2, 3)], [jnp.bfloat16]
        )
    with refused("two keys give the same values"):
        initializer_laws.initializer_follows_the_key(
            lambda key, shape, dtype: jax.random.normal(jax.random.key(0), shape), (2, 3)
        )


# Recipes.


def masked_recipe(loss):
    return lambda hyper: Recipe(nn.linear(2), loss, optim.sgd(), schedules.constant(0.1))


UNEQUAL = jnp.asarray(normal(4, 3)), jnp.array([0, 1, 1, -1])


def zero_where_ignored(logits, labels):
    """The mean then divides by what is masked as well."""
    found = losses.cross_entropy(logits, labels, ignore_index=-1)
    return found.values * found.weights


def mean_of_means(parts):
    """Each part divides by its own weight, and all parts count alike."""

    def gradient(loss, params, model_state, batch, key):
        halves = [jax.tree.map(lambda a, i=i: a[2 * i : 2 * i + 2], batch) for i in range(2)]
        found = [whole_batch(loss, params, model_state, half, key) for half in halves]
        means = [jax.tree.map(lambda a, s=s: a / s.weight, (s, g)) for s, g in found]
        return jax.tree.map(lambda a, b: (a + b) / 2, *means)

    return gradient


def test_a_mask_that_dilutes_the_mean():
    longer = jnp.pad(UNEQUAL[0], ((0, 4), (0, 0))), jnp.pad(UNEQUAL[1], (0, 4), constant_values=-1)
    with refused("padding_changes_nothing: leaf '0/(loss|grad_norm)'"):
        recipe_laws.padding_changes_nothing(
            masked_recipe(zero_where_ignored), UNEQUAL, longer, key=KEY, hyper={}
        )


def test_parts_that_count_alike_whatever_they_hold():
    ignoring = masked_recipe(partial(losses.cross_entropy, ignore_index=-1))
    with refused("accumulation_equals_whole_batch: leaf"):
        recipe_laws.accumulation_equals_whole_batch(
            ignoring, UNEQUAL, key=KEY, hyper={}, gradient=mean_of_means
        )


def test_an_evaluation_by_means_of_batches():
    def mean_of_batch(logits, labels):
        values = losses.cross_entropy(logits, labels, ignore_index=-1).mean()
        return jnp.full(labels.shape, values)

    with refused("evaluation_does_not_depend_on_the_batch_size: leaf 'loss'"):
        recipe_laws.evaluation_does_not_depend_on_the_batch_size(
            masked_recipe(mean_of_batch), UNEQUAL, key=KEY, hyper={}
        )


# Transforms.


def test_a_derivative_with_a_wrong_sign():
    sine = jax.custom_jvp(jnp.sin)
    sine.defjvp(lambda x, dx: (jnp.sin(*x), -jnp.cos(*x) * dx[0]))
    with refused("the first derivative .* in forward mode and .* by central differences"):
        transform_laws.supports_all_transforms(sine, X)


def test_a_function_without_forward_mode():
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))
    with pytest.raises(TypeError, match="forward-mode"):
        transform_laws.supports_all_transforms(sine, X)


def _times(factor, x):
    return factor * x


def test_a_transpose_by_hand_with_a_wrong_factor():
    def twice(factor, x):
        return 2 * factor * x

    with refused("the first derivative .* in reverse mode and .* in forward mode"):
        transform_laws.supports_all_transforms(
            lambda x: linear_call(_times, twice, jnp.ones((), x.dtype), x), X
        )


def test_a_second_derivative_that_is_not_symmetric():
    """Of a derivative that is right at every point and holds a part of itself fixed."""
    product = jax.custom_jvp(lambda x: (x[:, 0] * x[:, 1] ** 2).sum())
    held = jax.lax.stop_gradient
    product.defjvp(
        lambda x, dx: (
            product(*x),
            (dx[0][:, 0] * held(x[0][:, 1] ** 2) + 2 * x[0][:, 0] * x[0][:, 1] * dx[0][:, 1]).sum(),
        )
    )
    with refused("the second derivative by '0'"):
        transform_laws.supports_all_transforms(product, X)


def test_a_gradient_that_mixes_examples_under_vmap():
    same = wrong_under_vmap(lambda factor: factor)

    def mixed(factor, g):
        return same(jax.lax.stop_gradient(factor)) * g

    sine = jax.custom_jvp(jnp.sin)
    sine.defjvp(lambda x, dx: (sine(*x), linear_call(_times, mixed, jnp.cos(*x), *dx)))
    with refused("the gradient by '0' .* in a scan and .* under vmap"):
        transform_laws.supports_all_transforms(sine, X)
