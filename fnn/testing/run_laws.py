"""Laws of evaluations and of whole runs."""

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.dtypes import is_float
from fnn.testing._compare import entries, expect_all, expect_same, fresh, rows
from fnn.testing._given import dtypes_beyond_float32
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import arguments_are_kept
from fnn.tree import path_of

RTOL = 1e-5


def check_evaluate(evaluate: Callable[..., Any], state: Any, examples: Any, **options: Any) -> None:
    """Runs all laws of an evaluation; the arguments are those of `evaluate_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> check_evaluate(
    ...     lambda w, x: {'loss': jnp.mean((w - x) ** 2)}, jnp.float32(0.5), jnp.arange(4.0))
    """
    check("check_evaluate", evaluate_laws(evaluate, state, examples, **options))


def evaluate_laws(
    evaluate: Callable[..., Any],
    state: Any,
    examples: Any,
    *,
    batch_sizes: Sequence[int] = (),
    mask: Callable[[Any], Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    weights: str | None = None,
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of an evaluation.

    Args:
      evaluate: `evaluate(state, examples)` gives a mapping of scalars, or one.
      state: whatever it evaluates.
      examples: at least 4; pytree, first axis the examples.
      batch_sizes: to be tried, as `evaluate(state, examples, batch_size=n)`; by default 1, 3 and
        all, if it has such an argument.
      mask: from the examples to what counts in them, a boolean array.
      loss: (state, examples) -> the value of 'loss'.
      weights: pattern of the paths of the leaves of the state that are evaluated: no other matters.
      like: a reference with the same arguments.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> evaluate_laws(lambda w, x: {'loss': jnp.mean(x)}, jnp.float32(1), jnp.arange(4.0))[0]
    evaluation_is_pure
    """
    where = "check_evaluate"
    if not callable(evaluate):
        raise ValueError(f"{where}: expected a function of state and examples, got {evaluate!r}")
    dtypes_beyond_float32(where, dtypes)
    examples = jax.tree.map(jnp.asarray, examples)
    sizes = list(batch_sizes)
    if not sizes and _takes(evaluate, "batch_size"):
        sizes = [1, 3, tree.length(examples)]
    args = (evaluate, state, examples)
    laws = Battery(where, skip)
    laws.add(evaluation_is_pure, *args)
    laws.add(evaluation_is_finite, *args)
    laws.add(evaluation_may_be_permuted, *args)
    laws.add(evaluation_reads_every_example, *args)
    laws.add(evaluation_follows_the_state, *args)
    laws.add(copies_change_nothing, *args)
    if sizes:
        laws.add(batch_size_does_not_matter, *args, sizes)
    if mask is not None:
        laws.add(masked_examples_do_not_matter, *args, mask)
    if loss is not None:
        laws.add(has_the_loss, *args, loss)
    if weights is not None:
        laws.add(evaluates_its_weights, *args, weights)
    if like is not None:
        laws.add(evaluates_as_the_reference, *args, like)
    return laws.done()


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _found(evaluate: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """The values, in float64."""
    result = evaluate(*args, **options)
    if not isinstance(result, Mapping):
        result = {"loss": result}
    return {name: entries(value) for name, value in result.items()}


def _expect(
    law: str, wanted: Any, found: Any, names: tuple[str, str], hint: str, rtol: float = 10 * RTOL
) -> None:
    expect_same(law, wanted, found, names=names, hint=hint, rtol=rtol)


def evaluation_is_pure(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """The same values twice, and no argument is changed: running statistics included."""
    first = arguments_are_kept(evaluate, state, examples)
    expect_same(
        "evaluation_is_pure",
        first,
        evaluate(fresh(state), examples),
        names=("the first evaluation", "the second"),
        hint="evaluate without noise, and change nothing",
    )


def evaluation_is_finite(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """All values are finite scalars."""
    found = _found(evaluate, state, examples)
    for name, value in found.items():
        if np.shape(value) != ():
            raise LawError(
                f"evaluation_is_finite: {name!r} has shape {np.shape(value)}; take a mean"
            )
    expect_all("evaluation_is_finite", found, np.isfinite, rule="must be finite", hint="mind 0 / 0")


def evaluation_may_be_permuted(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """The order of the examples has no effect."""
    order = np.random.default_rng(0).permutation(tree.length(examples))
    _expect(
        "evaluation_may_be_permuted",
        _found(evaluate, state, examples),
        _found(evaluate, state, _rows(examples, order)),
        ("in order", "permuted"),
        "weight every example alike; the last, smaller batch included",
    )


def _rows(examples: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(rows(leaf, index)), examples)


def evaluation_reads_every_example(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """Each example has an effect: another in its place gives other values."""
    base = _found(evaluate, state, examples)
    count = tree.length(examples)
    for i in range(count):
        index = np.arange(count)
        for shift in (1, 2, 3):
            index[i] = (i + shift) % count
            if not _same(base, _found(evaluate, state, _rows(examples, index))):
                break
        else:
            raise LawError(
                f"evaluation_reads_every_example: the values are the same with others in place of "
                f"example {i} of {count}; evaluate the last, smaller batch as well"
            )


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def evaluation_follows_the_state(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """Other floats in the state give other values."""
    moved = jax.tree.map(
        lambda leaf: (
            leaf * jnp.asarray(0.7, leaf.dtype) + jnp.asarray(0.1, leaf.dtype)
            if hasattr(leaf, "dtype") and is_float(leaf)
            else leaf
        ),
        state,
    )
    if _same(_found(evaluate, state, examples), _found(evaluate, moved, examples)):
        raise LawError(
            "evaluation_follows_the_state: the values are the same for other parameters; evaluate "
            "those of the argument"
        )


def copies_change_nothing(evaluate: Callable[..., Any], state: Any, examples: Any) -> None:
    """The values for two copies of all examples are those for one: they are means."""
    count = tree.length(examples)
    _expect(
        "copies_change_nothing",
        _found(evaluate, state, examples),
        _found(evaluate, state, _rows(examples, np.arange(2 * count) % count)),
        ("of the examples", "of two copies of each"),
        "divide sums by the number of examples",
    )


def batch_size_does_not_matter(
    evaluate: Callable[..., Any], state: Any, examples: Any, sizes: Sequence[int]
) -> None:
    """The values do not depend on the batch size, also with a smaller last batch."""
    whole = _found(evaluate, state, examples, batch_size=tree.length(examples))
    for size in sizes:
        _expect(
            f"batch_size_does_not_matter, for {size}",
            whole,
            _found(evaluate, state, examples, batch_size=size),
            ("one batch", f"batches of {size}"),
            "add sums and weights over the batches and divide once: no mean of means",
        )


def masked_examples_do_not_matter(
    evaluate: Callable[..., Any], state: Any, examples: Any, mask: Callable[[Any], Any]
) -> None:
    """Other values where the mask is False change nothing; nor does dropping masked examples."""
    kept = np.asarray(mask(examples)).astype(bool)

    def garbage(leaf: Any) -> Any:
        value = np.asarray(leaf)
        if value.shape[: kept.ndim] != kept.shape or not is_float(value):
            return leaf
        where = kept.reshape(kept.shape + (1,) * (value.ndim - kept.ndim))
        changed = np.where(where, value, value * 5 + 3).astype(value.dtype)
        other = jax.tree.map(lambda old: changed if old is leaf else old, examples)
        return jnp.asarray(changed) if np.array_equal(mask(other), kept) else leaf

    hint = "weight by the mask, and divide by the sum of the weights"
    base = _found(evaluate, state, examples)
    names = ("before", "with other values under the mask")
    found = _found(evaluate, state, jax.tree.map(garbage, examples))
    _expect("masked_examples_do_not_matter", base, found, names, hint)
    full = kept.reshape(len(kept), -1).any(axis=1)
    if full.any() and not full.all():
        without = _found(evaluate, state, _rows(examples, np.flatnonzero(full)))
        names = ("with the masked examples", "without them")
        _expect("masked_examples_do_not_matter", base, without, names, hint)


def has_the_loss(
    evaluate: Callable[..., Any], state: Any, examples: Any, loss: Callable[[Any, Any], Any]
) -> None:
    """'loss' is the declared one."""
    found, wanted = float(_found(evaluate, state, examples)["loss"]), float(loss(state, examples))
    if not abs(found - wanted) <= 1e-4 * (1e-3 + abs(wanted)):
        raise LawError(
            f"has_the_loss: the evaluation gives {found:.6g}, and the loss of all examples is "
            f"{wanted:.6g}; evaluate with train=False, without penalty",
            expected=wanted,
            got=found,
        )


def evaluates_its_weights(
    evaluate: Callable[..., Any], state: Any, examples: Any, weights: str
) -> None:
    """Only the leaves of the state that match `weights` matter, and each of them does."""
    base = _found(evaluate, state, examples)
    matched = False
    for keys, leaf in jax.tree.leaves_with_path(state):
        if not hasattr(leaf, "dtype") or not is_float(leaf):
            continue
        path = path_of(keys)
        shift = np.random.default_rng(0).normal(size=np.shape(leaf))
        changed = leaf + jnp.asarray(shift, leaf.dtype)
        other = jax.tree.map_with_path(
            lambda k, p, c=changed, q=path: c if path_of(k) == q else p, state
        )
        same = _same(base, _found(evaluate, other, examples))
        evaluated = fnmatch.fnmatchcase(path, weights)
        matched |= evaluated
        if evaluated == same:
            rule = "does not matter" if same else "matters"
            raise LawError(
                f"evaluates_its_weights: leaf '{path}' {rule}; evaluate {weights!r} alone",
                leaf=path,
            )
    if not matched:
        raise LawError(f"evaluates_its_weights: no leaf of the state matches {weights!r}")


def evaluates_as_the_reference(
    evaluate: Callable[..., Any], state: Any, examples: Any, like: Callable[..., Any]
) -> None:
    """The values are those of the reference, for all examples and for half of them."""
    half = _rows(examples, np.arange(tree.length(examples) // 2 + 1))
    for what, given in {"all examples": examples, "half of them": half}.items():
        wanted, found = _found(like, state, given), _found(evaluate, state, given)
        common = {name: value for name, value in wanted.items() if name in found}
        _expect(
            f"evaluates_as_the_reference for {what}",
            common,
            {name: found[name] for name in common},
            ("the reference", "the evaluation"),
            "compare what is averaged over what",
            rtol=1e-4,
        )


def check_run(run: Callable[..., Any], key: Any, hyper: Any, data: Any, **options: Any) -> None:
    """Runs all laws of a run; the arguments are those of `run_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def run(key, hyper, data):
    ...     return jax.lax.scan(lambda w, x: (w + hyper * (x - w), w),
    ...                         jax.random.normal(key), data)
    >>> check_run(run, jax.random.key(0), 0.1, jnp.arange(5.0))
    """
    check("check_run", run_laws(run, key, hyper, data, **options))


def run_laws(
    run: Callable[..., Any],
    key: Any,
    hyper: Any,
    data: Any,
    *,
    resume: Callable[..., Any] | None = None,
    resume_at: Sequence[int] = (1,),
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a run.

    Args:
      run: `run(key, hyper, data) -> state, history`, pytrees.
      resume: `resume(key, hyper, data, steps)`: the same after a stop after `steps` steps.
      resume_at: the steps at which to stop.
      like: a reference with the same arguments.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> run_laws(lambda key, hyper, data: (data, ()), jax.random.key(0), 0.1, 1.0)[0]
    run_is_pure
    """
    where = "check_run"
    if not callable(run):
        raise ValueError(f"{where}: expected a function of key, hyper and data, got {run!r}")
    dtypes_beyond_float32(where, dtypes)
    args = (run, key, hyper, data)
    laws = Battery(where, skip)
    laws.add(run_is_pure, *args)
    laws.add(run_is_finite, *args)
    laws.add(run_follows_the_key, *args)
    laws.add(run_uses_its_hyperparameters, *args)
    laws.add(run_reads_the_data, *args)
    laws.add(runs_may_be_vmapped, *args)
    laws.add(history_records_each_step, *args)
    if resume is not None:
        laws.add(resumes_exactly, *args, resume, resume_at)
    if like is not None:
        laws.add(runs_as_the_reference, *args, like)
    return laws.done()


def run_is_pure(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """Two runs are bitwise equal, and no argument is changed."""
    first = arguments_are_kept(run, key, hyper, data)
    expect_same(
        "run_is_pure",
        first,
        run(*fresh((key, hyper, data))),
        names=("the first run", "the second"),
        hint="look for a global, a counter, or a generator of NumPy",
    )


def run_is_finite(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """State and history are finite."""
    expect_all(
        "run_is_finite",
        run(*fresh((key, hyper, data))),
        np.isfinite,
        rule="must be finite",
        hint="look at the learning rate, and at entries that were never written",
    )


def run_follows_the_key(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """Another key gives another run."""
    first = run(*fresh((key, hyper, data)))
    other = run(jax.random.fold_in(key, 1), *fresh((hyper, data)))
    if _all_equal(first, other):
        raise LawError(
            "run_follows_the_key: two keys give the same run; draw parameters, order and noise "
            "from the key"
        )


def _all_equal(a: Any, b: Any) -> bool:
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return all(np.array_equal(entries(x), entries(y), equal_nan=is_float(x)) for x, y in pairs)


def run_uses_its_hyperparameters(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """Another value of each hyperparameter gives another run."""
    base = run(*fresh((key, hyper, data)))
    leaves, structure = jax.tree.flatten(hyper)
    for i, (keys, leaf) in enumerate(jax.tree.leaves_with_path(hyper)):
        if isinstance(leaf, (bool, str)) or not is_float(leaf):
            continue
        other = jax.tree.unflatten(structure, [*leaves[:i], another(leaf), *leaves[i + 1 :]])
        if _all_equal(base, run(fresh(key), other, fresh(data))):
            raise LawError(
                f"run_uses_its_hyperparameters: another '{path_of(keys)}' gives the same run",
                leaf=path_of(keys),
            )


def another(value: Any) -> Any:
    """Another value of a hyperparameter: three tenths less, or one more of an integer."""
    if not is_float(value):
        return value + 1
    return value * 0.7 if np.any(entries(value)) else value + 0.01


def run_reads_the_data(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """Other values of each leaf of the data give another run."""
    base = run(*fresh((key, hyper, data)))
    leaves, structure = jax.tree.flatten(data)
    for i, (keys, leaf) in enumerate(jax.tree.leaves_with_path(data)):
        value = np.asarray(leaf)
        moved = value * 0.5 + 0.25 if is_float(value) else np.roll(value, 1, axis=0)
        other = jnp.asarray(moved.astype(value.dtype))
        if np.array_equal(other, value):
            continue
        changed = jax.tree.unflatten(structure, [*leaves[:i], other, *leaves[i + 1 :]])
        if _all_equal(base, run(*fresh((key, hyper, changed)))):
            raise LawError(
                f"run_reads_the_data: other values of '{path_of(keys)}' give the same run",
                leaf=path_of(keys),
            )


def runs_may_be_vmapped(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """vmap over two keys agrees with two runs."""
    keys = jnp.stack([key, jax.random.fold_in(key, 1)])
    try:
        batched = jax.jit(jax.vmap(lambda key: run(key, hyper, data)))(keys)
    except jax.errors.JAXTypeError as error:
        raise LawError(
            f"runs_may_be_vmapped: the run cannot be traced ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); keep Python's control flow out of it"
        ) from error
    loop = [run(keys[i], *fresh((hyper, data))) for i in range(2)]
    expect_same(
        "runs_may_be_vmapped",
        tree.stack(loop),
        batched,
        names=("two runs", "vmap"),
        rtol=1e-3,  # of whole trainings, whose roundings grow from step to step
        hint="look for a fixed axis, or a choice by value",
    )


def history_records_each_step(run: Callable[..., Any], key: Any, hyper: Any, data: Any) -> None:
    """The losses of a history are those of one training: not all equal, if there are several."""
    _, history = run(*fresh((key, hyper, data)))
    for keys, leaf in jax.tree.leaves_with_path(history):
        values = entries(leaf)
        if "loss" in path_of(keys) and values.ndim == 1 and len(values) > 2 and np.ptp(values) == 0:
            raise LawError(
                f"history_records_each_step: '{path_of(keys)}' is {values[0]:.5g} at every step; "
                "record each step's own loss",
                leaf=path_of(keys),
            )


def resumes_exactly(
    run: Callable[..., Any],
    key: Any,
    hyper: Any,
    data: Any,
    resume: Callable[..., Any],
    resume_at: Sequence[int],
) -> None:
    """A run that stops and resumes is bitwise the run that does not."""
    whole = run(*fresh((key, hyper, data)))
    for steps in resume_at:
        expect_same(
            f"resumes_exactly after {steps} steps",
            whole,
            resume(*fresh((key, hyper, data)), steps),
            names=("without a stop", "resumed"),
            hint="keep step, key, optimizer state, statistics and order in what is saved",
        )


def runs_as_the_reference(
    run: Callable[..., Any], key: Any, hyper: Any, data: Any, like: Callable[..., Any]
) -> None:
    """State and history are those of the reference, nearly."""
    expect_same(
        "runs_as_the_reference",
        like(*fresh((key, hyper, data))),
        run(*fresh((key, hyper, data))),
        names=("the reference", "the run"),
        rtol=1e-3,
        hint="compare order, steps, and when the history is recorded",
    )
