"""The first test of any new recipe: it must be able to learn one batch by heart."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn import tree
from fnn.diagnose._layer_rows import stacked_params
from fnn.diagnose._overfit_advice import Evidence, advise
from fnn.keys import RunKeys
from fnn.measures import norms
from fnn.recipe import Recipe, RecipeFunction, build, no_augmentation, no_penalty
from fnn.train._given import expect_known
from fnn.train._job import make_job
from fnn.train._source import first_batch, upcoming
from fnn.train._weighted import weighted_losses
from fnn.train.state import make_init
from fnn.train.step import make_step
from fnn.types import Data, Hyper, Model, Pair, PRNGKey, Scalar, TrainState, Weighted

_SCALES = (10.0, 1000.0, 0.1, 0.001)  # times the lr: what tells a wrong one from other faults


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """What `overfit_one_batch` returns; printed, it says what to look at first."""

    passed: bool  # whether the loss came near zero
    evidence: Evidence
    advice: tuple[str, ...]  # what to look at, the most likely first; () if there is nothing
    train: dict[str, Array] = field(repr=False)  # metrics of the steps with the lr as it is

    def __str__(self) -> str:
        e = self.evidence
        fell = f"loss {e.first_loss:.4g} -> {e.last_loss:.4g} in {e.steps} steps"
        verdict = "near zero" if self.passed else f"not near zero ({e.goal:.2g})"
        lines = [f"one batch of {len(e.indices)} examples: {fell}: {verdict}"]
        lines += [f"  {i}. {text}" for i, text in enumerate(self.advice, start=1)]
        return "\n".join([*lines, *(f"  {line}" for line in e.lines())])


def overfit_one_batch(
    recipe: RecipeFunction,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    steps: int = 200,
    batch_size: int = 32,
    share: float = 0.02,
) -> Overfit:
    """Train on the first batch of a run alone; a sound recipe brings its loss near zero.

    Near zero is a fraction of what a constant guess costs, the same outputs for all examples: below
    it, the model has told the examples apart, wherever its loss began.

    Augmentation and penalty are left out, and noise such as dropout is drawn once and held, so that
    the loss can reach zero. If it does not, trials at 10 and 1,000 times the lr, and at a tenth and
    a thousandth of it, tell a wrong lr from other faults.

    Args:
      recipe, data, key, hyper: as for `fit`.
      steps: updates of a trial.
      batch_size: examples of the batch.
      share: of the loss of a constant guess that counts as near zero, or of the first loss, if that
        is lower. A loss with a floor above it, as with label smoothing, does not pass.

    Returns: an `Overfit`: whether it passed, the evidence, and from it what to look at first.
    Raises: ValueError for what `check` finds.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(2), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data = Data(train=(x, jnp.concatenate([x, 2 * x], axis=1)), valid=(x, 0 * x @ x[:2].T))
    >>> result = overfit_one_batch(recipe, data, key=jax.random.key(0), hyper={'lr': 1e-4},
    ...                            batch_size=4, steps=50)
    >>> result.passed, result.advice[0][:32]
    (False, 'The lr is too low: at 1000 times')
    """
    expect_known("overfit_one_batch", key, hyper)
    job = make_job(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    keys = job.keys
    batch = first_batch(job.data.train, keys.order, batch_size)
    n = tree.length(job.data.train)
    indices = upcoming(keys.order, 0, n, batch_size, 1)[0].tolist()

    trials = {1.0: _trial(recipe, steps, 1.0, keys, hyper, batch)}
    guess = partial(_constant_guess, recipe, hyper, batch)
    goal = _goal(trials, share, None if _all_alike(batch[1]) else guess(trials))
    passed = 0 <= _ends(trials[1.0])[1] <= goal
    if not passed:
        trials |= {s: _trial(recipe, steps, s, keys, hyper, batch) for s in _SCALES}
    names = partial(by_layer, stacked=_stacked(recipe, hyper, batch, trials[1.0]))
    evidence = _evidence(trials, batch, tuple(indices), steps, goal, guess(trials), names)
    advice, train = advise(evidence, passed), trials[1.0].metrics
    return Overfit(passed=passed, evidence=evidence, advice=advice, train=train)


class _View(NamedTuple):
    """What is seen of a state on the batch."""

    gradient: Any
    example_losses: Array  # (batch,), with the noise of training
    predictions: Any  # without noise
    evaluated: Array  # the mean loss without noise
    noisy: Array  # whether another key gives other predictions


class _Trial(NamedTuple):
    """What is seen of one training on the batch."""

    metrics: dict[str, Array]  # of each step, (steps,)
    params: tuple[Any, Any]  # before and after
    climb: Array  # the first update along the gradient: above 0 it goes up
    before: _View
    after: _View


def _trial(
    recipe: RecipeFunction, steps: int, scale: float, keys: RunKeys, hyper: Hyper, batch: Pair
) -> _Trial:
    given = (recipe, jnp.float32(scale), keys, hyper, batch)
    start = _start(*given)
    once, _ = _train(*given, start, 1, steps)
    end, metrics = _train(*given, start, steps, steps)
    before, after = _look(*given, start), _look(*given, end)
    climb = _along(once.params, start.params, before.gradient)
    params = (start.params, end.params)
    return _Trial(metrics=metrics, params=params, climb=climb, before=before, after=after)


@partial(jax.jit, static_argnums=0)
def _start(recipe, scale, keys, hyper, batch) -> TrainState:
    held = partial(_plain, recipe, keys.noise, scale)
    return make_init(held)(keys.init, hyper, batch[0])


@partial(jax.jit, static_argnums=(0, 7))
def _train(recipe, scale, keys, hyper, batch, state, steps, most):
    step = make_step(partial(_plain, recipe, keys.noise, scale))

    def one(i, carry):
        state, recorded = carry
        state, metrics = step(state, batch, keys.noise, hyper)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return state, jax.tree.map(put, recorded, metrics)

    _, metrics = jax.eval_shape(step, state, batch, keys.noise, hyper)
    recorded = jax.tree.map(lambda a: jnp.zeros((most, *a.shape), a.dtype), metrics)
    return jax.lax.fori_loop(0, steps, one, (state, recorded))


@partial(jax.jit, static_argnums=0)
def _look(recipe, scale, keys, hyper, batch, state) -> _View:
    x, y = batch
    model = build(partial(_plain, recipe, keys.noise, scale), hyper).model
    built = build(recipe, hyper)

    def losses_of(params):
        predictions, _ = model.apply(params, state.model_state, x, key=keys.noise, train=True)
        losses = weighted_losses(built.loss, predictions, y)
        return losses.mean(), jax.vmap(Weighted.mean)(losses)

    gradient, example_losses = jax.grad(losses_of, has_aux=True)(state.params)
    predictions, _ = model.apply(state.params, state.model_state, x)
    return _View(
        gradient=gradient,
        example_losses=example_losses,
        predictions=predictions,
        evaluated=weighted_losses(built.loss, predictions, y).mean(),
        noisy=_noisy(built.model, state, x, keys.noise),
    )


def _plain(recipe: RecipeFunction, noise: PRNGKey, scale: Scalar, hyper: Hyper) -> Recipe:
    """The recipe without what keeps a loss from zero: its noise is the same in every step."""
    built = build(recipe, hyper)
    jax.tree.leaves(hyper)  # all count as read, also what only the penalty reads

    def apply(params, model_state, x, *, key=None, train=False):
        fixed = None if key is None else jax.random.fold_in(noise, 0)
        return built.model.apply(params, model_state, x, key=fixed, train=train)

    def schedule(step):
        lr = built.schedule(step)
        return lr * jnp.asarray(scale).astype(lr.dtype)

    return built._replace(
        model=Model(built.model.init, apply),
        schedule=schedule,
        augment=no_augmentation,
        penalty=no_penalty,
        measures=(norms,),
    )


def _along(after: Any, before: Any, direction: Any) -> Array:
    parts = jax.tree.map(
        lambda a, b, d: jnp.vdot((a - b).astype(jnp.float32), d.astype(jnp.float32)),
        after,
        before,
        direction,
    )
    return sum(jax.tree.leaves(parts), start=jnp.float32(0))


def _noisy(model: Model, state: Any, x: Any, key: PRNGKey) -> Array:
    """Whether the predictions of training depend on the key."""
    a, b = (
        model.apply(state.params, state.model_state, x, key=jax.random.fold_in(key, i), train=True)[
            0
        ]
        for i in (0, 1)
    )
    differ = jax.tree.map(lambda a, b: (a != b).any(), a, b)
    return jnp.stack([jnp.asarray(leaf) for leaf in jax.tree.leaves(differ)]).any()


def _ends(trial: _Trial) -> tuple[float, float]:
    """The first loss, and the last: the median of ten steps, since a single one may jump."""
    losses = np.asarray(trial.metrics["loss"])
    return float(losses[0]), float(np.median(losses[-10:]))


def _goal(trials: dict[float, _Trial], share: float, guess: float | None) -> float:
    """What counts as near zero; without a guess, or if that costs nothing, of the first loss."""
    first = abs(_ends(trials[1.0])[0])
    return share * (first if guess is None or guess <= 0 else min(first, guess))


def _constant_guess(
    recipe: RecipeFunction, hyper: Hyper, batch: Pair, trials: dict[float, _Trial]
) -> float | None:
    """The lowest loss found for outputs that are the same for all examples; None for one example.

    Tried are the mean of the targets, or the logarithms of the frequencies of labels, and the mean
    outputs of the model before and after each trial, which any loss has.
    """
    if tree.length(batch[0]) < 2:
        return None
    views = [view for trial in trials.values() for view in (trial.before, trial.after)]
    guesses = [*_of_targets(views[0].predictions, batch[1]), *(v.predictions for v in views)]
    loss = build(recipe, hyper).loss
    losses = [float(_loss_of_mean(loss, guess, batch[1])) for guess in guesses]
    return min((x for x in losses if np.isfinite(x)), default=None)


@partial(jax.jit, static_argnums=0)
def _loss_of_mean(loss: Any, outputs: Any, y: Any) -> Array:
    constant = jax.tree.map(lambda a: _mean_row(a, y), outputs)
    return weighted_losses(loss, constant, y).mean()


def _mean_row(outputs: Array, y: Any) -> Array:
    """The mean over examples, and over tokens where the targets are labels of them."""
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        return outputs
    axes = range(outputs.ndim - 1) if _are_labels(outputs, y) else range(min(outputs.ndim, 1))
    mean = outputs.astype(jnp.float32).mean(axis=tuple(axes), keepdims=True)
    return jnp.broadcast_to(mean, outputs.shape).astype(outputs.dtype)


def _are_labels(outputs: Any, y: Any) -> bool:
    if not (hasattr(outputs, "shape") and hasattr(y, "shape")):
        return False
    return outputs.shape[:-1] == y.shape and jnp.issubdtype(y.dtype, jnp.integer)


def _of_targets(outputs: Any, y: Any) -> list[Any]:
    """Outputs whose mean is the best constant for some loss: labels, squares, probabilities."""
    if _are_labels(outputs, y):
        labels = jax.nn.one_hot(y, outputs.shape[-1]).reshape(-1, outputs.shape[-1])
        logits = jnp.log(jnp.maximum(labels.mean(axis=0), 1e-9))
        return [jnp.broadcast_to(logits, outputs.shape)]
    if not (hasattr(outputs, "shape") and hasattr(y, "shape")) or outputs.shape != y.shape:
        return []
    y = jnp.asarray(y, jnp.float32)
    median = jnp.broadcast_to(jnp.median(y, axis=0, keepdims=True), y.shape)
    part = jnp.clip(y.mean(axis=0, keepdims=True), 1e-9, 1 - 1e-7)
    return [y, median, jnp.broadcast_to(jnp.log(part / (1 - part)), y.shape)]


def _stacked(recipe: RecipeFunction, hyper: Hyper, batch: Pair, trial: _Trial) -> dict[str, int]:
    """The parameters of stacks: see `stacked_params`."""
    model = build(recipe, hyper).model
    params, model_state = (
        trial.params[0],
        jax.eval_shape(model.init, jax.random.key(0), batch[0])[1],
    )
    return stacked_params(lambda p, s, x: model.apply(p, s, x)[0], params, model_state, batch[0])


def by_layer(values: Any, stacked: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The leaves by path; those of stacks layer by layer.

    >>> by_layer({'a': np.ones(2), 'b': np.ones((2, 3))}, {'b': 2}).keys()
    dict_keys(['a', 'b[0]', 'b[1]'])
    """
    found: dict[str, np.ndarray] = {}
    for path, leaf in zip(tree.paths(values), jax.tree.leaves(values), strict=True):
        array = np.asarray(leaf)
        if stacked.get(path) == len(array) if array.ndim else False:
            found |= {f"{path}[{i}]": part for i, part in enumerate(array)}
        else:
            found[path] = array
    return found


Names = Callable[[Any], dict[str, np.ndarray]]


def _evidence(
    trials: dict[float, _Trial],
    batch: Pair,
    indices: tuple[int, ...],
    steps: int,
    goal: float,
    guess: float | None,
    names: Names,
) -> Evidence:
    own, last_losses = trials[1.0], {scale: _ends(t)[1] for scale, t in trials.items()}
    # The structure is judged by the trial that came furthest: a wrong lr must not hide it.
    best = trials[min(trials, key=lambda s: np.nan_to_num(last_losses[s], nan=np.inf))]
    loss, lr = (np.asarray(own.metrics[name]) for name in ("loss", "lr"))
    grad_norms = [np.asarray(trial.metrics["grad_norm"]) for trial in (own, best)]
    broken = np.flatnonzero(~np.isfinite(loss))
    before, after = (names(view.gradient) for view in (best.before, best.after))
    start, end = map(names, best.params)
    still = {name for name in before if not before[name].any() and not after[name].any()}
    same = {name for name in start if np.array_equal(start[name], end[name], equal_nan=True)}
    first, last = _ends(own)
    return Evidence(
        steps=steps,
        indices=indices,
        goal=goal,
        first_loss=first,
        last_loss=last,
        last_losses=last_losses,
        broken_step=int(broken[0]) if len(broken) else None,
        lr=(float(lr.min()), float(lr.max())),
        last_lr=float(lr[-1]),
        gradient_norm=(float(grad_norms[0][0]), float(grad_norms[1][-1])),
        sensitivity=float(grad_norms[0][0]) * _norm(names(own.params[0])) / max(abs(first), 1e-30),
        leaves=len(start),
        without_gradient=tuple(sorted(still)),
        unmoved=tuple(sorted(same - still)),
        symmetric=tuple(n for n in start if _units_alike(start[n]) and _units_alike(end[n])),
        gradients=_gradients(before),
        scales=_scales(start),
        climbs=float(own.climb) > 0,
        noisy=bool(own.after.noisy),
        evaluated=float(own.after.evaluated),
        blind=_all_alike(best.before.predictions),
        one_prediction=_all_alike(best.after.predictions),
        one_input=_all_alike(batch[0]),
        one_target=_all_alike(batch[1]),
        twins=_twins(batch, indices),
        constant_loss=guess,
        example_losses=tuple(np.asarray(best.after.example_losses).tolist()),
        largest_input=_largest_input(batch[0]),
    )


def _norm(leaves: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(a.astype(np.float64)).sum() for a in leaves.values())))


def _units_alike(kernel: np.ndarray) -> bool:
    """Whether a kernel of several units has the same weights for each, but for rounding.

    Their gradients are then the same, and they can never differ.
    """
    units = kernel.reshape(-1, kernel.shape[-1]) if kernel.ndim > 1 else np.zeros((1, 1))
    apart = np.abs(units - units[:, :1]).max(initial=0)
    return units.shape[1] > 1 and bool(apart <= 1e-3 * np.abs(units).max(initial=0))


def _gradients(leaves: dict[str, np.ndarray]) -> dict[str, float]:
    """The root mean square of the gradient of each kernel, where it is not 0."""
    wide = {name: a.astype(np.float64) for name, a in leaves.items() if a.ndim > 1}
    return {name: float(np.sqrt(np.square(a).mean())) for name, a in wide.items() if a.any()}


def _scales(leaves: dict[str, np.ndarray]) -> dict[str, float]:
    """The root mean square of each kernel times the root of its inputs: about 1 keeps variances.

    Tables of embeddings have no inputs in this sense.
    """
    kernels = {n: a for n, a in leaves.items() if a.ndim > 1 and n.split("[")[0].endswith("kernel")}
    return {
        name: float(np.sqrt(np.square(a.astype(np.float64)).mean() * math.prod(a.shape[:-1])))
        for name, a in kernels.items()
    }


def _all_alike(values: Any) -> bool:
    """Whether all examples have the same values, but for what rounding can do."""
    for leaf in map(np.asarray, jax.tree.leaves(values)):
        if len(leaf) < 2:
            return False
        wide = leaf.astype(np.float64)
        apart = np.abs(wide - wide[:1]).max(initial=0)
        if not apart <= 1e-5 * np.abs(wide).max(initial=1e-30):  # NaN is not alike
            return False
    return True


def _twins(batch: Pair, indices: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of examples with the same input and another target."""
    xs, ys = ([_row(part, i) for i in range(len(indices))] for part in batch)
    seen: dict[bytes, int] = {}
    found = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        j = seen.setdefault(x, i)
        if ys[j] != y:
            found.append((indices[j], indices[i]))
    return tuple(found)


def _row(values: Any, i: int) -> bytes:
    return b"|".join(np.asarray(leaf[i]).tobytes() for leaf in jax.tree.leaves(values))


def _largest_input(x: Any) -> float:
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(x) if a.dtype.kind == "f"]
    return max((float(np.abs(leaf).max(initial=0)) for leaf in leaves), default=0.0)
