"""Laws of metrics: monoids of sums, `measure` and `value`, or functions of outputs and targets."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.dtypes import cast_floats
from fnn.testing._compare import entries, expect_same, rows
from fnn.testing._given import dtypes_beyond_float32, given
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import is_pure, jit_equals_eager
from fnn.types import Metric

# Reordered sums of a few float32 values: a few roundings of 6e-8.
RTOL = 1e-6
COPIES = 3000  # sums of this many examples overflow 16 bits and lose digits in bfloat16

Case = tuple[Any, Any, float]  # predictions, targets, value


def check_metric(
    metric: Metric | Callable[[Any, Any], Any], predictions: Any, targets: Any, **options: Any
) -> None:
    """Runs all laws of a metric; the arguments are those of `metric_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.metrics import accuracy
    >>> check_metric(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    check("check_metric", metric_laws(metric, predictions, targets, **options))


def metric_laws(
    metric: Metric | Callable[[Any, Any], Any],
    predictions: Any,
    targets: Any,
    *,
    best: Case | None = None,
    worst: Case | None = None,
    bounds: tuple[float, float] | None = None,
    like: Any = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a metric.

    Args:
      metric: a Metric, or a function of predictions and targets that gives a number.
      predictions, targets: a batch of at least 3, or strategies.
      best, worst: (predictions, targets, value) of a perfect and of a useless model.
      bounds: the least and the largest value.
      like: a reference: a Metric or a function, also of NumPy arrays, such as scikit-learn's.
      dtypes: also computed in these.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: a float32 scalar, also for sums of 0.

    >>> from fnn.metrics import accuracy
    >>> metric_laws(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))[2]
    value_is_a_scalar
    """
    where = "check_metric"
    parts = isinstance(metric, Metric) or hasattr(metric, "measure")
    if not parts and not callable(metric):
        raise ValueError(
            f"{where}: expected a Metric or a function of predictions and targets, got {metric!r}"
        )
    predictions, targets = jax.tree.map(
        jnp.asarray, (given(where, predictions), given(where, targets))
    )
    pair = (predictions, targets)
    laws = Battery(where, skip)
    laws.add(is_pure, _measure(metric), *pair)
    if parts:
        laws.add(jit_equals_eager, _measure(metric), *pair)
    laws.add(value_is_a_scalar, metric, *pair, strict=policy == "fnn")
    laws.add(examples_may_be_permuted, metric, *pair)
    if parts:
        laws.add(parts_equal_the_whole, metric, *pair)
        laws.add(sums_are_wide, metric, *pair, bfloat16=policy == "fnn")
        laws.add(sums_have_one_shape, metric, *pair)
    laws.add(targets_matter, metric, *pair)
    if bounds is not None:
        laws.add(is_within_bounds, metric, *pair, bounds)
    for name, case in {"best": best, "worst": worst}.items():
        if case is not None:
            laws.add(has_value_for, metric, name, case)
    if best is not None and worst is not None:
        laws.add(is_between_best_and_worst, metric, *pair, best[2], worst[2])
    for dtype in dtypes_beyond_float32(where, dtypes):
        laws.add(metric_agrees_with_float32, metric, *pair, dtype)
    if like is not None:
        laws.add(measures_as_the_reference, metric, *pair, like)
    return laws.done()


def _measure(metric: Any) -> Callable[[Any, Any], Any]:
    return metric.measure if hasattr(metric, "measure") else metric


def _evaluate(metric: Any, predictions: Any, targets: Any) -> Any:
    found = _measure(metric)(predictions, targets)
    return metric.value(found) if hasattr(metric, "measure") else found


def value_is_a_scalar(
    metric: Metric, predictions: Any, targets: Any, *, strict: bool = True
) -> None:
    """The value is a finite scalar.

    Args:
      strict: of float32, also for sums of 0.

    >>> from fnn.metrics import accuracy
    >>> value_is_a_scalar(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    values = {"the batch": _evaluate(metric, predictions, targets)}
    if strict and hasattr(metric, "measure"):
        sums = metric.measure(predictions, targets)
        values["no sums"] = metric.value(jax.tree.map(jnp.zeros_like, sums))
    for what, value in values.items():
        wrong = strict and jnp.result_type(value) != jnp.float32
        if jnp.shape(value) != () or wrong or not np.isfinite(entries(value)):
            raise LawError(
                f"value_is_a_scalar: {what} gives {value}, {jnp.result_type(value)}"
                f"{list(jnp.shape(value))}, and must give a finite float32 scalar; mind a count of "
                "zero"
            )


def examples_may_be_permuted(metric: Metric, predictions: Any, targets: Any) -> None:
    """The order of the examples has no effect.

    >>> from fnn.metrics import accuracy
    >>> examples_may_be_permuted(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    batch = tree.length(predictions)
    for index in (np.arange(batch)[::-1], np.random.default_rng(0).permutation(batch)):
        other = jax.tree.map(jnp.asarray, rows((predictions, targets), index))
        expect_same(
            "examples_may_be_permuted",
            entries(_evaluate(metric, predictions, targets)),
            entries(_evaluate(metric, *other)),
            names=("in order", "permuted"),
            rtol=10 * RTOL,
            hint="look for a weight by position, or ties that are resolved by the order",
        )


def parts_equal_the_whole(metric: Metric, predictions: Any, targets: Any) -> None:
    """The value does not depend on how a batch is cut into parts, nor on the order of the sums.

    >>> from fnn.metrics import accuracy
    >>> parts_equal_the_whole(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    whole = metric.value(metric.measure(predictions, targets))
    batch = tree.length(predictions)
    for first, second in {(1, 2), (1, batch - 1), (batch // 2, batch - 1)}:
        cuts = (0, first), (first, second), (second, batch)
        a, b, c = (metric.measure(*_part((predictions, targets), *cut)) for cut in cuts)
        for grouping in (_merge(_merge(a, b), c), _merge(a, _merge(b, c))):
            expect_same(
                f"parts_equal_the_whole, cut after {first} and {second}",
                whole,
                metric.value(grouping),
                names=("the whole", "the parts"),
                rtol=10 * RTOL,
                hint="keep sums and counts apart, and divide in value: no mean of means",
            )


def sums_are_wide(metric: Metric, predictions: Any, targets: Any, *, bfloat16: bool = True) -> None:
    """Sums over thousands of examples lose nothing: the value of copies is that of the batch.

    Args:
      bfloat16: also for predictions in bfloat16, whose sums must be wider.

    >>> from fnn.metrics import accuracy
    >>> sums_are_wide(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    for dtype in (jnp.float32, *[jnp.bfloat16] * bfloat16):
        pair = cast_floats((predictions, targets), dtype)
        sums = metric.measure(*pair)
        base = entries(metric.value(sums))
        doubled, copies = sums, 1
        while copies < COPIES:
            doubled, copies = _merge(doubled, doubled), 2 * copies
        # One more of each at a time: a count in 8 bits is unchanged long before.
        for _ in range(3):
            doubled = _merge(doubled, sums)
        tiled = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * 100), pair)
        for what, found in {
            f"{copies + 3} sums": metric.value(doubled),
            "100 copies": metric.value(metric.measure(*tiled)),
        }.items():
            if not abs(float(entries(found)) - float(base)) <= 2e-3 * (1e-3 + abs(float(base))):
                raise LawError(
                    f"sums_are_wide: {what} of a batch in {jnp.dtype(dtype).name} give "
                    f"{float(entries(found)):.6g}, and the batch gives {float(base):.6g}; sum in "
                    "float32 or int32",
                    expected=float(base),
                    got=float(entries(found)),
                )


def sums_have_one_shape(metric: Metric, predictions: Any, targets: Any) -> None:
    """The sums keep shapes and dtypes when they are added, as a scan over batches requires.

    >>> from fnn.metrics import accuracy
    >>> sums_have_one_shape(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    sums = metric.measure(predictions, targets)
    part = metric.measure(*_part((predictions, targets), 0, 2))
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(s)] for s in (sums, part)]
    if shapes[0] != shapes[1]:
        raise LawError(
            f"sums_have_one_shape: the sums of {tree.length(predictions)} examples have "
            f"shapes {shapes[0]}, those of 2 {shapes[1]}; sum over the examples in measure"
        )


def targets_matter(metric: Metric, predictions: Any, targets: Any) -> None:
    """Other targets, or other predictions, give another value.

    >>> from fnn.metrics import accuracy
    >>> targets_matter(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]))
    """
    base = entries(_evaluate(metric, predictions, targets))
    for what in ("targets", "predictions"):
        for shift in (1, 2, 3):
            pair = [predictions, targets]
            i = what == "targets"
            pair[i] = jax.tree.map(lambda leaf, s=shift: jnp.roll(leaf, s, axis=0), pair[i])
            if not np.array_equal(base, entries(_evaluate(metric, *pair)), equal_nan=True):
                return
    raise LawError("targets_matter: the value is the same for other targets; use them")


def is_within_bounds(
    metric: Metric, predictions: Any, targets: Any, bounds: tuple[float, float]
) -> None:
    """The value lies between its bounds, also for predictions of other examples.

    >>> from fnn.metrics import accuracy
    >>> is_within_bounds(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]), (0.0, 1.0))
    """
    for shift in range(3):
        other = jax.tree.map(lambda leaf, s=shift: jnp.roll(leaf, s, axis=0), predictions)
        value = float(entries(_evaluate(metric, other, targets)))
        if not bounds[0] - 1e-6 <= value <= bounds[1] + 1e-6:
            raise LawError(
                f"is_within_bounds: the value is {value:.6g}, outside {bounds}; check what it is "
                "divided by",
                expected=bounds,
                got=value,
            )


def has_value_for(metric: Metric, name: str, case: Case) -> None:
    """The value for a perfect or useless model is the declared one.

    >>> from fnn.metrics import accuracy
    >>> has_value_for(accuracy(), 'best', (jnp.eye(2), jnp.array([0, 1]), 1.0))
    """
    predictions, targets, wanted = case
    found = float(entries(_evaluate(metric, *jax.tree.map(jnp.asarray, (predictions, targets)))))
    if not abs(found - wanted) <= 1e-5 * max(1.0, abs(wanted)):
        raise LawError(
            f"has_value_for: the {name} predictions give {found:.6g}, and must give {wanted:.6g}; "
            "check the direction, ties, and what it is divided by",
            expected=wanted,
            got=found,
        )


def is_between_best_and_worst(
    metric: Metric, predictions: Any, targets: Any, best: float, worst: float
) -> None:
    """The value for the given batch is neither better than the best nor worse than the worst.

    >>> from fnn.metrics import accuracy
    >>> is_between_best_and_worst(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]), 1.0, 0.0)
    """
    low, high = sorted((best, worst))
    is_within_bounds(metric, predictions, targets, (low, high))


def metric_agrees_with_float32(metric: Metric, predictions: Any, targets: Any, dtype: Any) -> None:
    """The value for predictions in another dtype is near that in float32.

    >>> from fnn.metrics import accuracy
    >>> metric_agrees_with_float32(accuracy(), jnp.eye(3), jnp.array([0, 1, 1]), 'bfloat16')
    """
    pair = cast_floats((predictions, targets), dtype)
    narrow = float(entries(_evaluate(metric, *pair)))
    wide = float(entries(_evaluate(metric, *cast_floats(pair, jnp.float32))))
    allowed = 8 * float(jnp.finfo(dtype).eps) * max(1.0, abs(wide))
    if not abs(narrow - wide) <= allowed:
        raise LawError(
            f"metric_agrees_with_float32: {narrow:.6g} in {jnp.dtype(dtype).name}, {wide:.6g} in "
            f"float32; they must be at most {allowed:.1e} apart; sum in float32",
            expected=wide,
            got=narrow,
        )


def measures_as_the_reference(metric: Metric, predictions: Any, targets: Any, like: Any) -> None:
    """The value is that of the reference, also for predictions of other examples and with ties.

    >>> from fnn.metrics import accuracy
    >>> measures_as_the_reference(
    ...     accuracy(), jnp.eye(3), jnp.array([0, 1, 1]),
    ...     lambda y, t: np.mean(np.argmax(y, axis=-1) == t))
    """

    def equal(leaf: Any) -> Any:
        return jnp.round(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    cases = {"the batch": predictions}
    for shift in (1, 2):
        cases[f"predictions of the example {shift} before"] = jax.tree.map(
            lambda leaf, s=shift: jnp.roll(leaf, s, axis=0), predictions
        )
    cases["rounded predictions"] = jax.tree.map(equal, predictions)
    cases["negative predictions"] = jax.tree.map(
        lambda leaf: -leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, predictions
    )
    for what, given_ in cases.items():
        wanted = float(entries(_evaluate(like, given_, targets)))
        found = float(entries(_evaluate(metric, given_, targets)))
        if not abs(found - wanted) <= 1e-4 * max(1.0, abs(wanted)) and np.isfinite(wanted):
            raise LawError(
                f"measures_as_the_reference for {what}: the reference is {wanted:.6g}, the metric "
                f"{found:.6g}; compare the definitions, ties and averages over classes",
                expected=wanted,
                got=found,
            )


def _part(examples: Any, start: int, stop: int) -> Any:
    return jax.tree.map(jnp.asarray, rows(examples, slice(start, stop)))


def _merge(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
