"""Laws of training steps: `step(state, batch, key, hyper) -> state, metrics`."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.dtypes import cast_floats, is_float
from fnn.testing import draws, tolerance
from fnn.testing._compare import entries, expect_all, expect_same, expect_same_specs, fresh, rows
from fnn.testing._given import dtypes_beyond_float32
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import (
    arguments_are_kept,
    donation_is_safe,
    is_traced_alike,
    jit_equals_eager,
    scan_equals_unrolled,
    traces_once,
)
from fnn.testing.run_laws import another
from fnn.tree import path_of

Step = Callable[..., Any]

# Reordered sums of dozens of float32 values, carried through a backward pass.
RTOL = 1e-4
OVERFIT_STEPS = 60


def check_step(
    step: Step,
    make_state: Callable[[], Any],
    batches: Sequence[Any],
    key: Any = None,
    hyper: Any = None,
    **options: Any,
) -> None:
    """Runs all laws of a training step; the arguments are those of `step_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def step(state, batch):
    ...     loss, slope = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(state['w'])
    ...     return {'w': state['w'] - 0.1 * slope}, {'loss': loss}
    >>> batches = [jnp.arange(3.0), jnp.arange(3.0) + 1]
    >>> check_step(step, lambda: {'w': jnp.zeros(())}, batches, params=lambda state: state)
    """
    check("check_step", step_laws(step, make_state, batches, key, hyper, **options))


def step_laws(
    step: Step,
    make_state: Callable[[], Any],
    batches: Sequence[Any],
    key: Any = None,
    hyper: Any = None,
    *,
    params: Callable[[Any], Any] | None = None,
    noisy: bool | str = "auto",
    new_noise: bool = False,
    frozen: str | None = None,
    undecayed: tuple[str, str] | None = None,
    mask: Callable[[Any], Any] | None = None,
    parts: Step | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    lr: Callable[[int, Any], Any] | None = None,
    overfits: bool = True,
    donates: bool = True,
    like: Step | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a training step.

    Args:
      step: `step(state, batch)` with the key and the hyperparameters after it, where they are
        given; returns a new state and metrics: a mapping with 'loss', or the loss.
      make_state: makes a new state at each call, from a fixed key.
      batches: two or more of one shape; pytrees, batch axis first.
      key, hyper: passed on to the step.
      params: from the state to the parameters; by default `state.params`, `state['params']` or the
        first entry of a tuple.
      noisy: whether the key matters; "auto" finds out.
      new_noise: whether the same key gives other noise at another step.
      frozen: pattern of the paths of the parameters that never change.
      undecayed: (pattern, name in hyper): the leaves that do not depend on that weight decay.
      mask: from a batch to what counts in it, a boolean array; the rest does not matter.
      parts: the same step in microbatches, which must agree with it.
      loss: (params, batch) -> the loss that a step reports: before the update.
      lr: (step number, hyper) -> metrics['lr'].
      overfits: whether the loss of a batch that is repeated falls.
      donates: whether the state may be donated.
      like: a reference with the same arguments.
      dtypes: accepted for the sake of all checks: a step chooses its own.
      skip: name of a law -> the reason why it does not apply.
      policy: accepted for the sake of all checks.

    >>> step_laws(lambda state, batch: (state, 0.0), lambda: jnp.zeros(()), [1, 2])[0]
    arguments_of_the_step_are_kept
    """
    where = "check_step"
    for name, thing in {"step": step, "make_state": make_state}.items():
        if not callable(thing):
            raise ValueError(f"{where}: expected {name} to be a function, got {thing!r}")
    if len(batches) < 2:
        raise ValueError(f"{where}: expected at least two batches, got {len(batches)}")
    dtypes_beyond_float32(where, dtypes)
    run = Subject(step, make_state, [jax.tree.map(jnp.asarray, b) for b in batches], key, hyper)
    run.params = params or params_of
    laws = Battery(where, skip)
    laws.add(arguments_of_the_step_are_kept, run)
    laws.add(step_is_traced_alike, run)
    laws.add(step_keeps_structure_and_dtype, run)
    laws.add(step_jit_equals_eager, run)
    laws.add(step_scan_equals_unrolled, run)
    if donates:
        laws.add(state_may_be_donated, run)
    laws.add(step_traces_once, run)
    laws.add(has_no_host_callbacks, run)
    laws.add(every_leaf_of_the_state_moves, run, frozen)
    laws.add(step_is_finite, run)
    laws.add(the_batch_matters, run)
    if hyper is not None:
        laws.add(hyperparameters_are_used, run)
        laws.add(hyperparameters_may_be_swept, run)
    if key is not None and noisy:
        laws.add(noise_follows_the_key, run, expected=noisy is True)
    if key is not None and new_noise:
        laws.add(noise_differs_between_steps, run)
    laws.add(examples_may_be_permuted, run, noisy)
    if overfits:
        laws.add(overfits_one_batch, run)
    if frozen is not None:
        laws.add(frozen_leaves_stay, run, frozen)
    if undecayed is not None:
        laws.add(some_leaves_do_not_decay, run, *undecayed)
    if mask is not None:
        laws.add(what_is_masked_does_not_matter, run, mask)
    if parts is not None:
        laws.add(parts_equal_the_whole_batch, run, parts)
    if loss is not None:
        laws.add(reports_the_loss_before_the_update, run, loss)
    if lr is not None:
        laws.add(reports_its_lr, run, lr)
    if like is not None:
        laws.add(steps_as_the_reference, run, like)
    return laws.done()


class Subject:
    """A step with its arguments, as functions of the state."""

    params: Callable[[Any], Any]

    def __init__(self, step: Step, make_state: Any, batches: list[Any], key: Any, hyper: Any):
        self.step, self.make_state, self.batches = step, make_state, batches
        self.key, self.hyper = key, hyper
        self.compiled = jax.jit(step)

    def args(self, batch: Any, key: Any = None, hyper: Any = None) -> tuple[Any, ...]:
        """The arguments after the state; the subject's own where none are given."""
        key = self.key if key is None else key
        hyper = self.hyper if hyper is None else hyper
        given = [batch, *[key] * (key is not None), *[hyper] * (hyper is not None)]
        return fresh(tuple(given))

    def __call__(self, state: Any, batch: Any, **given: Any) -> Any:
        """A compiled step."""
        return self.compiled(state, *self.args(batch, **given))

    def after(self, steps: int, **given: Any) -> tuple[Any, Any]:
        """State and metrics after some compiled steps over the batches in turn."""
        state, metrics = self.make_state(), None
        for i in range(steps):
            state, metrics = self(state, self.batches[i % len(self.batches)], **given)
        return state, metrics


def params_of(state: Any) -> Any:
    """The parameters in a state: an attribute, an entry, or the first of a tuple."""
    if hasattr(state, "params"):
        return state.params
    if isinstance(state, Mapping) and "params" in state:
        return state["params"]
    if isinstance(state, (tuple, list)):
        return state[0]
    return state


def loss_of(metrics: Any) -> Any:
    """The loss among the metrics, or None."""
    if isinstance(metrics, Mapping):
        return metrics.get("loss")
    found = getattr(metrics, "loss", None)
    return metrics if found is None and np.ndim(metrics) == 0 else found


def arguments_of_the_step_are_kept(run: Subject) -> None:
    """A step changes none of its arguments."""
    arguments_are_kept(run.step, run.make_state(), *run.args(run.batches[0]))


def step_is_traced_alike(run: Subject) -> None:
    """Two traces are the same program: nothing is counted or drawn outside the step."""
    is_traced_alike(run.step, run.make_state(), *run.args(run.batches[0]))


def step_keeps_structure_and_dtype(run: Subject) -> None:
    """The new state has the structure, shapes, dtypes and weak types of the old."""
    old = run.make_state()
    expect_same_specs(
        "step_keeps_structure_and_dtype",
        jax.eval_shape(lambda state: state, old),
        jax.eval_shape(lambda *args: run.step(*args)[0], old, *run.args(run.batches[0])),
        names=("the old state", "the new"),
        hint="keep the dtype of each leaf, and start counters as jnp.int32(0)",
        weak=True,
    )


def step_jit_equals_eager(run: Subject) -> None:
    """A compiled step agrees with an eager one, as closely as its conditioning allows."""
    jit_equals_eager(run.step, run.make_state(), *run.args(run.batches[0]))


def step_scan_equals_unrolled(run: Subject) -> None:
    """A scan over the batches agrees with a loop of steps."""

    def body(state: Any, batch: Any) -> Any:
        return run.step(state, *run.args(batch))

    scan_equals_unrolled(body, run.make_state(), tree.stack(run.batches))


def state_may_be_donated(run: Subject) -> None:
    """The state, as it was made, may be donated: no two leaves share a buffer."""
    donation_is_safe(run.step, run.make_state, *run.args(run.batches[0]))


def step_traces_once(run: Subject) -> None:
    """Three steps, each from the state of the one before, are traced once."""
    states = [run.make_state()]
    for batch in run.batches[:2]:
        states.append(run(states[-1], batch)[0])
    traces_once(
        run.step,
        *[(state, *run.args(run.batches[i % len(run.batches)])) for i, state in enumerate(states)],
    )


def has_no_host_callbacks(run: Subject) -> None:
    """A step calls nothing on the host: each call would wait for the device."""
    program = jax.make_jaxpr(run.step)(run.make_state(), *run.args(run.batches[0]))
    names = _primitives(program.jaxpr)
    found = sorted(name for name in names if "callback" in name or "outside_call" in name)
    if found:
        raise LawError(
            f"has_no_host_callbacks: the program has {', '.join(found)}; return what is printed or "
            "logged as a metric"
        )


def _primitives(jaxpr: Any) -> set[str]:
    names: set[str] = set()
    for eqn in jaxpr.eqns:
        names.add(eqn.primitive.name)
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                names |= _primitives(inner)
    return names


def every_leaf_of_the_state_moves(run: Subject, frozen: str | None = None) -> None:
    """Every leaf of the state changes within six steps, but for frozen parameters."""
    state = first = run.make_state()
    moved = [False] * len(jax.tree.leaves(state))
    for i in range(6):
        state, _ = run(state, run.batches[i % len(run.batches)])
        pairs = zip(moved, *map(jax.tree.leaves, (first, state)), strict=True)
        moved = [done or not np.array_equal(entries(a), entries(b)) for done, a, b in pairs]
    for (keys, leaf), done in zip(jax.tree.leaves_with_path(first), moved, strict=True):
        path = path_of(keys)
        if done or not np.size(entries(leaf)) or _is_frozen(path, frozen):
            continue
        raise LawError(
            f"every_leaf_of_the_state_moves: leaf '{path}' is the same after 6 steps; return the "
            "new one, or declare frozen=",
            leaf=path,
        )


def _is_frozen(path: str, frozen: str | None) -> bool:
    """Whether a path, or the end of one, matches the pattern."""
    if frozen is None:
        return False
    parts = path.split("/")
    return any(fnmatch.fnmatchcase("/".join(parts[i:]), frozen) for i in range(len(parts)))


def step_is_finite(run: Subject) -> None:
    """State and metrics are finite after four steps."""
    state, metrics = run.after(4)
    expect_all(
        "step_is_finite",
        (state, metrics),
        np.isfinite,
        rule="must be finite after four steps",
        hint="look at the learning rate and at divisions by counts",
    )


def the_batch_matters(run: Subject) -> None:
    """Another batch gives other parameters, and another value of each leaf of it as well."""
    base = run.params(run(run.make_state(), run.batches[0])[0])
    one, other = run.batches[:2]
    leaves, structure = jax.tree.flatten(one)
    for i, ((keys, leaf), value) in enumerate(
        zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True)
    ):
        if np.array_equal(entries(leaf), entries(value)):
            continue
        changed = jax.tree.unflatten(structure, [*leaves[:i], value, *leaves[i + 1 :]])
        found = run.params(run(run.make_state(), changed)[0])
        if _equal(base, found):
            raise LawError(
                f"the_batch_matters: another value of '{path_of(keys)}' of the batch gives the "
                "same parameters; use it",
                leaf=path_of(keys),
            )


def _equal(a: Any, b: Any) -> bool:
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return all(np.array_equal(entries(x), entries(y)) for x, y in pairs)


def _alike(a: Any, b: Any) -> bool:
    """Whether two trees have one structure."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (a, b)]
    return bool(structures[0] == structures[1])


def hyperparameters_are_used(run: Subject) -> None:
    """Another value of each hyperparameter changes the state or the metrics within three steps."""
    base = run.after(3)
    leaves, structure = jax.tree.flatten(run.hyper)
    for i, (keys, leaf) in enumerate(jax.tree.leaves_with_path(run.hyper)):
        if isinstance(leaf, bool):
            continue
        hyper = jax.tree.unflatten(structure, [*leaves[:i], another(leaf), *leaves[i + 1 :]])
        if _equal(base, run.after(3, hyper=hyper)):
            raise LawError(
                f"hyperparameters_are_used: another value of '{path_of(keys)}' changes nothing "
                "within three steps; use it",
                leaf=path_of(keys),
            )


def hyperparameters_may_be_swept(run: Subject) -> None:
    """vmap over the floats of the hyperparameters agrees with a loop."""
    leaves, structure = jax.tree.flatten(run.hyper)
    moving = [i for i, leaf in enumerate(leaves) if is_float(leaf)]
    if not moving:
        return
    factors = np.array([1.0, 0.8], np.float32)

    def at(floats: list[Any]) -> Any:
        given = list(leaves)
        for i, leaf in zip(moving, floats, strict=True):
            given[i] = leaf
        hyper = jax.tree.unflatten(structure, given)
        return run.step(run.make_state(), *run.args(run.batches[0], hyper=hyper))

    swept = [jnp.stack([jnp.float32(f) * jnp.asarray(leaves[i]) for f in factors]) for i in moving]
    batched = jax.jit(jax.vmap(at))
    one = jax.jit(at)
    expect_same(
        "hyperparameters_may_be_swept",
        tree.stack([one([leaf[k] for leaf in swept]) for k in range(2)]),
        batched(swept),
        names=("the loop", "vmap"),
        allowed=tolerance.of(batched, swept),
        hint="look for a fixed axis, or a choice by value; use jnp.where",
    )


def noise_follows_the_key(run: Subject, *, expected: bool = True) -> None:
    """A step is a function of its key, bitwise; a noisy one gives another result for another."""
    law = "noise_follows_the_key"
    keys = [run.key, run.key, jax.random.fold_in(run.key, 1)]
    first, again, other = (run(run.make_state(), run.batches[0], key=key) for key in keys)
    names = ("the first call", "the second")
    expect_same(law, first, again, names=names, hint="draw from the key alone")
    if expected and _equal(first, other):
        raise LawError(f"{law}: two keys give the same result; draw the noise from the key")


def noise_differs_between_steps(run: Subject) -> None:
    """With the same key, the draws of a step have other keys than those of the step before."""
    state = run.make_state()
    before = draws.draws_of(run.step, state, *run.args(run.batches[0]))
    state, _ = run(state, run.batches[0])
    after = draws.draws_of(run.step, state, *run.args(run.batches[0]))
    common = {draw.key for draw in before} & {draw.key for draw in after}
    if common:
        raise LawError(
            f"noise_differs_between_steps: {len(common)} of {len(before)} draws have the same key "
            "at the next step; fold the step into the key, or split it and keep the new one"
        )


def examples_may_be_permuted(run: Subject, noisy: bool | str = "auto") -> None:
    """The order of the examples in a batch has no effect, if the step draws no noise."""
    if noisy is True:
        return
    if run.key is not None and noisy:
        keys = [run.key, jax.random.fold_in(run.key, 1)]
        if not _equal(*(run(run.make_state(), run.batches[0], key=key) for key in keys)):
            return
    batch = run.batches[0]
    size = tree.length(batch)
    order = np.random.default_rng(0).permutation(size)

    def leaf(value: Any) -> Any:
        return rows(value, order) if np.shape(value)[:1] == (size,) else value

    _expect_close_steps(
        "examples_may_be_permuted",
        run,
        run(run.make_state(), batch),
        run(run.make_state(), jax.tree.map(leaf, batch)),
        names=("in order", "permuted"),
        hint="look for weights by position, inputs apart from their targets, or a slice of the "
        "batch",
    )


def _expect_close_steps(
    law: str, run: Subject, expected: Any, got: Any, *, names: tuple[str, str], hint: str
) -> None:
    """Compares the changes of the parameters, and states and metrics that have one structure."""
    start = run.params(run.make_state())

    def change(result: Any) -> Any:
        return _changes(run.params(result[0]), start)

    def at(state: Any, batch: Any) -> Any:
        return run(state, batch)

    allowed = tolerance.of(at, run.make_state(), run.batches[0])
    expect_same(
        f"{law}, in the parameters",
        change(expected),
        change(got),
        names=names,
        allowed=jax.tree.map(lambda a: 4 * a, run.params(allowed[0])),
        hint=hint,
    )
    pairs = {
        "state": (expected[0], got[0], allowed[0]),
        "metrics": (expected[1], got[1], allowed[1]),
    }
    for what, (a, b, limit) in pairs.items():
        if _alike(a, b):
            wide = jax.tree.map(lambda v: 4 * v, limit)
            expect_same(f"{law}, in the {what}", a, b, names=names, allowed=wide, hint=hint)


def _changes(params: Any, start: Any) -> Any:
    return jax.tree.map(
        lambda p, s: jnp.subtract(p, s) if is_float(p) else p,
        *map(lambda t: cast_floats(t, jnp.float32), (params, start)),
    )


def overfits_one_batch(run: Subject) -> None:
    """The loss of one batch that is repeated for 60 steps falls."""
    state, losses = run.make_state(), []
    for i in range(OVERFIT_STEPS):
        key = None if run.key is None else jax.random.fold_in(run.key, i)
        state, metrics = run(state, run.batches[0], key=key)
        loss = loss_of(metrics)
        if loss is None:
            return
        losses.append(float(loss))
    first, last = np.mean(losses[:3]), np.mean(losses[-6:])
    if not last < first - 1e-3 * abs(first) and not abs(first) < 1e-6:
        raise LawError(
            f"overfits_one_batch: the loss of one batch is {first:.5g} at first and {last:.5g} "
            f"after {OVERFIT_STEPS} steps; check the sign of the update, and that the gradient "
            "arrives",
            expected=f"below {first:.5g}",
            got=last,
        )


def frozen_leaves_stay(run: Subject, frozen: str) -> None:
    """Frozen parameters are bitwise the same after three steps, and all others move."""
    law = "frozen_leaves_stay"
    start, after = run.params(run.make_state()), run.params(run.after(3)[0])
    matched = False
    for (keys, a), b in zip(jax.tree.leaves_with_path(start), jax.tree.leaves(after), strict=True):
        path, same = path_of(keys), np.array_equal(entries(a), entries(b))
        matched |= _is_frozen(path, frozen)
        if _is_frozen(path, frozen) and not same:
            raise LawError(
                f"{law}: frozen leaf '{path}' changes within three steps; no gradient, momentum or "
                "weight decay may reach it",
                leaf=path,
            )
    if not matched:
        raise LawError(f"{law}: no leaf matches frozen={frozen!r}")


def some_leaves_do_not_decay(run: Subject, pattern: str, name: str) -> None:
    """Leaves that match do not depend on the weight decay after one step; all others do."""
    law = "some_leaves_do_not_decay"
    if not isinstance(run.hyper, Mapping) or name not in run.hyper:
        raise ValueError(f"check_step: expected {name!r} in hyper, got {run.hyper!r}")
    strong = {**run.hyper, name: run.hyper[name] * 2 + 0.1}
    weak, heavy = (
        run.params(run(run.make_state(), run.batches[0], hyper=hyper)[0])
        for hyper in (run.hyper, strong)
    )
    for (keys, a), b in zip(jax.tree.leaves_with_path(weak), jax.tree.leaves(heavy), strict=True):
        path, same = path_of(keys), np.array_equal(entries(a), entries(b))
        if _is_frozen(path, pattern) != same and np.any(entries(a)):
            rule = "must not" if _is_frozen(path, pattern) else "must"
            raise LawError(
                f"{law}: leaf '{path}' {rule} decay; check the mask of the weight decay", leaf=path
            )


def what_is_masked_does_not_matter(run: Subject, mask: Callable[[Any], Any]) -> None:
    """Other values where the mask is False give the same state and metrics."""
    batch = run.batches[0]
    kept = np.asarray(mask(batch)).astype(bool)

    def garbage(leaf: Any) -> Any:
        value = np.asarray(leaf)
        if value.shape[: kept.ndim] != kept.shape or np.array_equal(value, kept):
            return leaf
        where = kept.reshape(kept.shape + (1,) * (value.ndim - kept.ndim))
        other = np.roll(value, 1, axis=0)
        if is_float(value):
            other = other * 5 + 3
        changed = np.where(where, value, other).astype(value.dtype)
        same_mask = np.array_equal(np.asarray(mask(_replaced(batch, leaf, changed))), kept)
        return jnp.asarray(changed) if same_mask else leaf

    _expect_close_steps(
        "what_is_masked_does_not_matter",
        run,
        run(run.make_state(), batch),
        run(run.make_state(), jax.tree.map(garbage, batch)),
        names=("before", "with other values under the mask"),
        hint="weight each term by the mask, in the loss, the metrics and the statistics",
    )
    _expect_shrunk(run, batch, kept)


def _replaced(batch: Any, old: Any, new: Any) -> Any:
    return jax.tree.map(lambda leaf: new if leaf is old else leaf, batch)


def _expect_shrunk(run: Subject, batch: Any, kept: np.ndarray) -> None:
    """Examples that are masked entirely may as well not be there."""
    empty = ~kept.reshape(len(kept), -1).any(axis=1)
    if not empty.any() or empty.all():
        return
    smaller = jax.tree.map(
        lambda leaf: rows(leaf, ~empty) if np.shape(leaf)[:1] == (len(kept),) else leaf, batch
    )
    found = jax.jit(run.step)(run.make_state(), *run.args(smaller))
    _expect_close_steps(
        "what_is_masked_does_not_matter, without the examples that are masked entirely",
        run,
        run(run.make_state(), batch),
        found,
        names=("with them", "without"),
        hint="divide by the number of what counts, and not by the batch size",
    )


def parts_equal_the_whole_batch(run: Subject, parts: Step) -> None:
    """A step in microbatches agrees with the whole batch, also in a second step."""
    other = Subject(parts, run.make_state, run.batches, run.key, run.hyper)
    for steps in (1, 2):
        _expect_close_steps(
            f"parts_equal_the_whole_batch after {steps} steps",
            run,
            run.after(steps),
            other.after(steps),
            names=("the whole batch", "in parts"),
            hint="add sums and weights, and divide once; one update for all parts",
        )


def reports_the_loss_before_the_update(run: Subject, loss: Callable[[Any, Any], Any]) -> None:
    """The reported loss is that of the parameters before the update, on the batch."""
    state = run.make_state()
    for i, batch in enumerate(run.batches[:2]):
        wanted = float(loss(run.params(state), batch))
        state, metrics = run(state, batch)
        found = loss_of(metrics)
        if found is None:
            raise LawError("reports_the_loss_before_the_update: there is no 'loss' in the metrics")
        if not abs(float(found) - wanted) <= RTOL * (1e-3 + abs(wanted)):
            raise LawError(
                f"reports_the_loss_before_the_update: step {i} reports {float(found):.6g}, and the "
                f"loss of its batch before the update is {wanted:.6g}",
                expected=wanted,
                got=float(found),
            )


def reports_its_lr(run: Subject, lr: Callable[[int, Any], Any]) -> None:
    """metrics['lr'] is the learning rate of the step, counted from 0."""
    state = run.make_state()
    for i in range(4):
        state, metrics = run(state, run.batches[i % len(run.batches)])
        wanted, found = float(lr(i, run.hyper)), float(metrics["lr"])
        if not abs(found - wanted) <= 1e-5 * max(abs(wanted), 1e-12):
            raise LawError(
                f"reports_its_lr: step {i} reports {found:.6g}, and its learning rate is "
                f"{wanted:.6g}; steps count from 0",
                expected=wanted,
                got=found,
            )


def steps_as_the_reference(run: Subject, like: Step) -> None:
    """Parameters and the loss are those of the reference for four steps.

    States may have different structures: their parameters are compared.
    """
    law = "steps_as_the_reference"
    other = Subject(like, run.make_state, run.batches, run.key, run.hyper)
    other.params = run.params
    ours, theirs = run.make_state(), run.make_state()
    start = run.params(ours)
    for i in range(4):
        batch = run.batches[i % len(run.batches)]
        ours, metrics = run(ours, batch)
        theirs, wanted = other(theirs, batch)
        expect_same(
            f"{law}, in the change of the parameters at step {i}",
            _changes(run.params(theirs), start),
            _changes(run.params(ours), start),
            names=("the reference", "the step"),
            rtol=3e-3,
            hint="compare gradient, weights, update and order",
        )
        if _alike(metrics, wanted):
            expect_same(
                f"{law}, in the metrics of step {i}",
                wanted,
                metrics,
                names=("the reference", "the step"),
                rtol=1e-3,
                hint="compare what is averaged, and when",
            )
        if _alike(ours, theirs):
            expect_same(
                f"{law}, in the state after step {i}",
                theirs,
                ours,
                names=("the reference", "the step"),
                rtol=3e-3,
                hint="compare statistics, averages and counters",
            )
