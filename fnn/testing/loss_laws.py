"""Laws of losses: `loss(outputs, targets) -> values per example`, a `Weighted`, or their mean."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.dtypes import cast_floats, is_float
from fnn.testing import tolerance
from fnn.testing._compare import entries, expect_all, expect_same, rows
from fnn.testing._given import dtypes_beyond_float32, given
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import is_pure, jit_equals_eager
from fnn.types import Weighted

Loss = Callable[..., Any]

EXTREME = 1e4  # larger than logits in training, with squares that are finite in float32
CONFIDENT = 30.0  # a logit this far above the others leaves them a probability of 1e-13
DESCENT_STEPS = 400


def check_loss(loss: Loss, predictions: Any, targets: Any, **options: Any) -> None:
    """Runs all laws of a loss; the arguments are those of `loss_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.losses import mean_squared_error
    >>> check_loss(mean_squared_error, jnp.arange(3.0), jnp.array([1.0, 3.0, 0.0]), best='targets')
    """
    check("check_loss", loss_laws(loss, predictions, targets, **options))


def loss_laws(
    loss: Loss,
    predictions: Any,
    targets: Any,
    *,
    rowwise: bool = True,
    at_least_zero: bool = True,
    smooth: bool = True,
    best: Any = None,
    where: bool | str = "auto",
    weights: bool | str = "auto",
    likelihood: bool | str = "auto",
    symmetries: Sequence[str] = (),
    bounds: tuple[float, float] | None = None,
    like: Loss | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a loss.

    Args:
      predictions, targets: a small batch of at least 3, with random values, or strategies.
      rowwise: whether the loss of an example depends on that example alone.
      at_least_zero: whether the loss is non-negative.
      smooth: whether it has no jump, and no kink at the predictions.
      best: predictions of the least loss: "targets", "labels" (the logits of integer targets), an
        array, or a function of the targets.
      where: whether `loss(predictions, targets, where=mask)` counts only what the mask keeps;
        "auto": if it has an argument of this name and of the shape of the losses.
      weights: whether `loss(predictions, targets, weights=w)` weights the examples; "auto": if it
        has such an argument.
      likelihood: whether exp(-loss) is the probability of the class, so that its sum over classes
        is 1; "auto": for labels whose logits may be shifted.
      symmetries: "shift" (a constant added to all logits), "classes" (permuted in logits and
        targets), "scale" (predictions times a positive number) change nothing.
      bounds: the least and the largest target; the loss is finite there, with finite gradients.
      like: a reference.
      dtypes: also computed in these, near the results in float32.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: float32 values, one per example.

    Raises: ValueError for arguments that are not what they should be.

    >>> from fnn.losses import mean_squared_error
    >>> loss_laws(mean_squared_error, jnp.ones(3), jnp.zeros(3))[:2]
    [is_pure, jit_equals_eager]
    """
    name = "check_loss"
    if not callable(loss):
        raise ValueError(f"{name}: expected a function of outputs and targets, got {loss!r}")
    predictions, targets = jax.tree.map(
        jnp.asarray, (given(name, predictions), given(name, targets))
    )
    size = tree.length(predictions)
    if size < 3:
        raise ValueError(f"{name}: expected a batch of at least 3, got {size}; add examples")
    for symmetry in symmetries:
        if symmetry not in ("shift", "classes", "scale"):
            raise ValueError(
                f"{name}: expected symmetries among shift, classes and scale, got {symmetry!r}"
            )
    pair = (predictions, targets)
    where = _takes_a_mask(loss, *pair) if where == "auto" else where
    weights = _takes(loss, "weights") if weights == "auto" else weights
    if likelihood == "auto":
        likelihood = isinstance(best, str) and best == "labels" and "shift" in symmetries
    laws = Battery(name, skip)
    laws.add(is_pure, lambda p, t: _values(loss(p, t)), *pair)
    laws.add(jit_equals_eager, loss, *pair)
    laws.add(loss_is_finite, loss, *pair)
    laws.add(predictions_have_gradients, loss, *pair)
    laws.add(wrong_answers_have_gradients, loss, *pair, best)
    laws.add(targets_matter, loss, *pair)
    laws.add(correct_answers_cost_less, loss, *pair)
    laws.add(loss_agrees_with_float64, loss, *pair)
    if rowwise:
        laws.add(loss_is_rowwise, loss, *pair)
    if at_least_zero:
        laws.add(loss_is_at_least_zero, loss, *pair)
    if smooth:
        laws.add(loss_gradients_are_right, loss, *pair)
        laws.add(is_continuous, loss, *pair)
    if policy == "fnn":
        laws.add(loss_has_a_value_per_example, loss, *pair)
    if best is not None:
        laws.add(costs_least_at, loss, *pair, best)
        laws.add(descent_finds, loss, *pair, best)
        if at_least_zero and isinstance(best, str):
            laws.add(the_best_costs_nothing, loss, *pair, best)
    if likelihood:
        laws.add(probabilities_add_up_to_one, loss, *pair)
    if where:
        laws.add(masked_examples_do_not_count, loss, *pair)
        laws.add(mean_is_of_what_is_kept, loss, *pair)
        laws.add(nothing_kept_costs_nothing, loss, *pair)
    if weights:
        laws.add(is_linear_in_its_weights, loss, *pair)
    for symmetry in symmetries:
        laws.add(has_the_symmetry, loss, *pair, symmetry)
    if bounds is not None:
        laws.add(is_finite_at_the_bounds, loss, *pair, bounds)
    for dtype in dtypes_beyond_float32(name, dtypes):
        laws.add(loss_agrees_with_float32, loss, *pair, dtype)
    if like is not None:
        laws.add(costs_as_the_reference, loss, *pair, like)
        if where:
            laws.add(masks_as_the_reference, loss, *pair, like)
    return laws.done()


def loss_has_a_value_per_example(loss: Loss, predictions: Any, targets: Any) -> None:
    """The first axis of the loss is the batch axis, and its dtype is float32.

    >>> from fnn.losses import mean_squared_error
    >>> loss_has_a_value_per_example(mean_squared_error, jnp.ones(3), jnp.zeros(3))
    """
    batch = tree.length(predictions)
    for dtype in (jnp.float32, jnp.bfloat16):
        found = jax.eval_shape(loss, *cast_floats((predictions, targets), dtype))
        values = found.values if isinstance(found, Weighted) else found
        if values.shape[:1] != (batch,) or values.dtype != jnp.float32:
            raise LawError(
                f"loss_has_a_value_per_example: {batch} predictions in {jnp.dtype(dtype).name} "
                f"give {values.dtype}{list(values.shape)}, and must give float32[{batch}, ...]; "
                "leave the mean to the caller, and sum in float32"
            )


def loss_is_at_least_zero(loss: Loss, predictions: Any, targets: Any) -> None:
    """The loss is non-negative for predictions of any size.

    >>> loss_is_at_least_zero(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    for size in (0.0, 1.0, -1.0, 30.0):
        expect_all(
            "loss_is_at_least_zero",
            _products(loss(_times(predictions, size), targets)),
            lambda values: values >= 0,
            rule="must be at least 0",
            hint="check the sign; a difference of nearly equal values may round below zero",
        )


def loss_is_finite(loss: Loss, predictions: Any, targets: Any) -> None:
    """Values and gradients are no NaN for predictions times +-1e4 and 0, and finite for 0 and 50.

    >>> loss_is_finite(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """

    def total(predictions: Any) -> Any:
        values = _products(loss(predictions, targets))
        return values.sum(), values

    value_and_slope = jax.jit(jax.grad(total, has_aux=True))
    for size in (0.0, 50.0, EXTREME, -EXTREME):
        expect_all(
            f"loss_is_finite for predictions times {size:g}, in gradient and value",
            value_and_slope(_times(predictions, size)),
            np.isfinite,
            rule="must be finite",
            hint="work from logits, with logsumexp, softplus or log_softmax",
        )


def loss_is_rowwise(loss: Loss, predictions: Any, targets: Any) -> None:
    """The loss of an example depends on that example alone.

    A loss that is a mean of the batch is that of its examples taken one at a time.

    >>> loss_is_rowwise(lambda y, t: jnp.square(y - t), jnp.arange(3.0), jnp.zeros(3))
    """

    def value(predictions: Any, targets: Any) -> Any:
        return loss(*jax.tree.map(jnp.asarray, (predictions, targets)))

    batch = tree.length(predictions)
    whole, pair = value(predictions, targets), (predictions, targets)
    hint = "look for broadcasting of (n, 1) against (n,), or a reduction over the batch"
    allowed = tolerance.of(value, predictions, targets)
    if all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(whole)):
        if isinstance(whole, Weighted):
            return
        alone = [value(*rows(pair, slice(i, i + 1))) for i in range(batch)]
        _expect_mean(whole, alone, allowed, hint)
        return
    for i in range(batch):
        copies = np.full(batch, i)
        expect_same(
            "loss_is_rowwise",
            rows(whole, copies),
            value(*rows(pair, copies)),
            names=("among other examples", f"among copies of example {i}"),
            allowed=allowed,
            hint=hint,
        )


def _expect_mean(whole: Any, alone: list[Any], allowed: Any, hint: str) -> None:
    mean = np.mean([entries(value) for value in alone], axis=0)
    limit = 10 * float(jax.tree.leaves(allowed)[0]) + 1e-6
    if not abs(float(whole) - float(mean)) <= limit:
        total = float(mean) * len(alone)
        raise LawError(
            f"loss_is_rowwise: the loss of the batch is {float(whole):.6g}, and the mean of the "
            f"losses of its examples {float(mean):.6g} (their sum {total:.6g}); {hint}",
            expected=float(mean),
            got=float(whole),
        )


def loss_gradients_are_right(loss: Loss, predictions: Any, targets: Any) -> None:
    """The gradient by the predictions agrees with central differences, in float64.

    >>> loss_gradients_are_right(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    gradients_match_finite_differences(
        lambda p: _products(loss(p, cast_floats(targets, _dtype(p)))), predictions
    )


def _takes(loss: Loss, name: str) -> bool:
    """Whether a loss has an argument of this name."""
    try:
        return name in inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return False


def _takes_a_mask(loss: Loss, predictions: Any, targets: Any) -> bool:
    """Whether `where` has the shape of the losses, and is not a mask of the classes."""
    if not _takes(loss, "where"):
        return False
    shape = jax.eval_shape(loss, predictions, targets)
    leaves = [leaf.shape for leaf in jax.tree.leaves(shape)]
    mask = jnp.ones(leaves[0] or jax.tree.leaves(targets)[0].shape, bool)
    try:
        jax.eval_shape(partial(loss, where=mask), predictions, targets)
    except (TypeError, ValueError):
        return False
    return True


def predictions_have_gradients(loss: Loss, predictions: Any, targets: Any) -> None:
    """The gradient by every prediction is not zero, at one of several sizes.

    A label may choose among the predictions of its example: one of them suffices then.

    >>> predictions_have_gradients(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    slope = _slope(loss)
    found = [slope(_times(predictions, size), targets) for size in (1.0, 0.3, -1.0, 4.0, -4.0)]
    if not np.any(_weights_of(loss(predictions, targets))):
        return
    for (keys, leaf), *slopes in zip(
        jax.tree.leaves_with_path(predictions), *map(jax.tree.leaves, found), strict=True
    ):
        some = np.any([entries(s) != 0 for s in slopes], axis=0)
        path = tree.path_of(keys)
        if not some.any():
            raise LawError(
                f"predictions_have_gradients: the gradient by prediction '{path}' is zero; look "
                "for argmax, rounding or stop_gradient"
            )
        if not _has_shape(targets, leaf) or some.all():
            continue
        rows_ = some.reshape(len(some), -1)
        partly = rows_.any(axis=1) & ~rows_.all(axis=1)
        if partly.any():
            i = int(partly.argmax())
            raise LawError(
                f"predictions_have_gradients: {int((~rows_[i]).sum())} predictions of example {i} "
                "never have a gradient, and others do; does each count, also where its target is 0?"
            )


def _has_shape(targets: Any, leaf: Any) -> bool:
    """Whether the targets are one array of floats, one for each prediction."""
    leaves = jax.tree.leaves(targets)
    return len(leaves) == 1 and is_float(leaves[0]) and leaves[0].shape == leaf.shape


def correct_answers_cost_less(loss: Loss, predictions: Any, targets: Any) -> None:
    """Confident correct answers cost less than confident wrong ones.

    For labels, the logit of the class is the largest or that of another class; for floats of the
    shape of the predictions, these are the targets (or logits of their sign) or far from them.

    >>> correct_answers_cost_less(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    leaves, answers = jax.tree.leaves(predictions), jax.tree.leaves(targets)
    if len(leaves) != 1 or len(answers) != 1:
        return
    p, t = leaves[0], answers[0]
    if jnp.issubdtype(t.dtype, jnp.integer) and t.ndim == p.ndim - 1 and p.shape[:-1] == t.shape:
        classes = p.shape[-1]
        if int(t.min()) < 0 or int(t.max()) >= classes or classes < 2:
            return
        right, wrong = (
            8 * jax.nn.one_hot((t + k) % classes, classes, dtype=p.dtype) for k in (0, 1)
        )
        pairs = [(right, wrong)]
    elif is_float(t) and t.shape == p.shape:
        size = p.dtype.type(8)
        signs = size * (t.astype(p.dtype) - jnp.mean(t).astype(p.dtype))
        pairs = [(t.astype(p.dtype), t.astype(p.dtype) + size), (signs, -signs)]
    else:
        return
    if not any(_total(loss, a, targets) < _total(loss, b, targets) for a, b in pairs):
        raise LawError(
            "correct_answers_cost_less: confident correct predictions cost as much as wrong ones; "
            "check the sign, and which prediction belongs to which target"
        )


def the_best_costs_nothing(loss: Loss, predictions: Any, targets: Any, best: Any) -> None:
    """The loss at the best predictions is 0, and positive elsewhere.

    >>> the_best_costs_nothing(
    ...     lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3), 'targets')
    """
    law, start = "the_best_costs_nothing", _best(best, predictions, targets)
    least = _total(loss, start, targets)
    if not abs(least) <= 1e-4:
        raise LawError(
            f"{law}: the best predictions cost {least:.4g}, and must cost 0; look for an eps, a "
            "clip, or a second softmax; a loss whose least value is another has no best= by name",
            expected=0.0,
            got=least,
        )
    if best != "targets":
        return

    def pulled(p: Any) -> Any:
        # Up at one index and down at the next: nothing that only sees a mean would notice.
        signs = np.where(np.arange(p.size) % 2, 1.0, -1.0).reshape(p.shape)
        return p + jnp.asarray(signs, p.dtype)

    if not _total(loss, jax.tree.map(pulled, start), targets) > least + 1e-6:
        raise LawError(
            f"{law}: predictions that are 1 above and below the targets in turn cost nothing; take "
            "the mean of the errors' costs, and not the cost of their mean"
        )


def probabilities_add_up_to_one(loss: Loss, predictions: Any, targets: Any) -> None:
    """The sum of exp(-loss) over all classes as labels is 1 for each example.

    >>> from fnn.losses import cross_entropy
    >>> probabilities_add_up_to_one(cross_entropy, jnp.eye(3), jnp.array([0, 1, 1]))
    """
    p, t = jax.tree.leaves(predictions)[0], jax.tree.leaves(targets)[0]
    total: Any = 0.0
    for label in range(p.shape[-1]):
        # Each example alone, since the loss may be a mean of the batch.
        costs = [
            entries(_mean(loss(p[i : i + 1], jnp.full_like(t[i : i + 1], label))))
            for i in range(len(p))
        ]
        total = total + np.exp(-np.array(costs))
    worst = int(np.abs(total - 1).argmax())
    if p.ndim == 2 and not abs(total[worst] - 1) <= 1e-3:
        raise LawError(
            f"probabilities_add_up_to_one: exp(-loss) adds up to {total[worst]:.4g} over the "
            f"{p.shape[-1]} classes of example {worst}; check the normalization, and what the loss "
            "is divided by; a loss that is no likelihood has likelihood=False",
            expected=1.0,
            got=total[worst],
        )


def wrong_answers_have_gradients(loss: Loss, predictions: Any, targets: Any, best: Any) -> None:
    """Very wrong predictions (times 30, far from the best) still have a gradient.

    For a loss whose best predictions are declared. A loss that is bounded, or that saturates, has
    none there.

    >>> wrong_answers_have_gradients(
    ...     lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3), 'targets')
    """
    if best is None or not is_float(jax.tree.leaves(predictions)[0]):
        return
    slope = _slope(loss)
    wrong = jax.tree.map(lambda b, p: -b - p, _best(best, predictions, targets), predictions)
    found = slope(wrong, targets)
    if not any(np.any(np.abs(entries(leaf)) > 1e-7) for leaf in jax.tree.leaves(found)):
        raise LawError(
            "wrong_answers_have_gradients: the gradient at the opposite of the best predictions is "
            "zero; look for a clip of probabilities, and work from logits"
        )


def targets_matter(loss: Loss, predictions: Any, targets: Any) -> None:
    """Other targets give another loss.

    >>> targets_matter(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.arange(3.0))
    """
    base = _products(loss(predictions, targets))
    for shift in (1, 2):
        other = jax.tree.map(lambda leaf, s=shift: jnp.roll(leaf, s, axis=0), targets)
        if not np.array_equal(entries(base), entries(_products(loss(predictions, other)))):
            return
    leaves = jax.tree.leaves(targets)
    if all(np.array_equal(leaf, np.roll(leaf, 1, axis=0)) for leaf in leaves) or not leaves:
        return
    raise LawError("targets_matter: the loss is the same for other targets; use them")


def loss_agrees_with_float64(loss: Loss, predictions: Any, targets: Any) -> None:
    """The float32 values are those in float64, as closely as the conditioning allows.

    Also for predictions times 10 and near the targets, where differences cancel.

    >>> loss_agrees_with_float64(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    for size in (1.0, 10.0):
        scaled = _times(predictions, size)
        narrow = _products(loss(scaled, targets))
        allowed = tolerance.of(lambda *pair: _products(loss(*pair)), scaled, targets)
        with jax.enable_x64(True):
            try:
                wide = _products(loss(*cast_floats((scaled, targets), jnp.float64)))
            except (TypeError, ValueError):
                return
            wide = np.asarray(wide).astype(np.asarray(narrow).dtype)
        expect_same(
            f"loss_agrees_with_float64 for predictions times {size:g}",
            wide,
            narrow,
            names=("in float64", "in float32"),
            allowed=allowed,
            hint="look for exp, log and division that lose digits: logsumexp, log1p, softplus",
        )


def loss_agrees_with_float32(loss: Loss, predictions: Any, targets: Any, dtype: Any) -> None:
    """Values for predictions in another dtype are near those in float32.

    >>> square = lambda y, t: jnp.square(y - t)
    >>> loss_agrees_with_float32(square, jnp.ones(3), jnp.zeros(3), 'float16')
    """
    pair = cast_floats((predictions, targets), dtype)
    narrow = cast_floats(_products(loss(*pair)), jnp.float32)
    moved = [
        cast_floats(_products(loss(*tolerance.perturbed(pair, seed))), jnp.float32)
        for seed in range(3)
    ]
    unit = float(jnp.finfo(dtype).eps) / float(jnp.finfo(jnp.float32).eps)
    wide = _products(loss(*cast_floats(pair, jnp.float32)))
    expect_same(
        f"loss_agrees_with_float32 in {jnp.dtype(dtype).name}",
        wide,
        narrow,
        names=("in float32", f"in {jnp.dtype(dtype).name}"),
        allowed=tolerance.between(wide, moved, factor=tolerance.FACTOR * max(unit, 1.0)),
        hint="cast the predictions to float32 first",
    )


def is_continuous(loss: Loss, predictions: Any, targets: Any) -> None:
    """Along a straight line through the predictions the loss has no jump.

    The interval of the largest change is cut in 64, twice: a jump stays, a slope does not.

    >>> is_continuous(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3))
    """
    generator = np.random.default_rng(77)
    with jax.enable_x64(True):
        try:
            start, others = cast_floats((predictions, targets), jnp.float64)
            way = jax.tree.map(lambda p: 3 * jnp.asarray(generator.normal(size=p.shape)), start)

            def at(r: Any) -> Any:
                moved = jax.tree.map(lambda p, d: p + r * d, start, way)
                return _products(loss(moved, others)).sum()

            value = jax.jit(jax.vmap(at))
            sizes = np.linspace(-1, 1, 257)
            found = np.asarray(value(jnp.asarray(sizes)))
        except (TypeError, ValueError):
            return
        if found.dtype != np.float64 or not np.isfinite(found).all():
            return
        width = sizes[1] - sizes[0]
        change = np.abs(np.diff(found))
        i = int(change.argmax())
        low, high = sizes[i], sizes[i + 1]
        first = change[i]
        for _ in range(2):
            inner = np.linspace(low, high, 65)
            steps = np.abs(np.diff(np.asarray(value(jnp.asarray(inner)))))
            j = int(steps.argmax())
            low, high = inner[j], inner[j + 1]
            last = steps[j]
        if last > 0.5 * first and last > 1e-6 * (1 + np.abs(found).max()):
            raise LawError(
                f"is_continuous: on a line through the predictions the loss jumps by {last:.3g} "
                f"within {width / 64**2:.1g} of it; let the pieces meet"
            )


def costs_least_at(loss: Loss, predictions: Any, targets: Any, best: Any) -> None:
    """The declared predictions cost less than any near or far from them.

    >>> costs_least_at(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3), 'targets')
    """
    start = _best(best, predictions, targets)
    least = _total(loss, start, targets)
    generator = np.random.default_rng(0)
    for size in (0.03, 0.3, 1.0, 3.0):
        for _ in range(4):
            draws = jax.tree.map(
                lambda p, size=size: jnp.asarray(size * generator.normal(size=p.shape), p.dtype),
                start,
            )
            other = _total(loss, tree.add(start, draws), targets)
            if not other >= least - 1e-5 * (1 + abs(least)):
                raise LawError(
                    f"costs_least_at: the loss is {least:.6g} at the best predictions, and "
                    f"{other:.6g} at others, {size:g} away; check signs, and what is subtracted",
                    expected=least,
                    got=other,
                )
    slope = _slope_of_mean(loss)(start, targets)
    size = max(
        (float(np.abs(entries(g)).max(initial=0)) for g in jax.tree.leaves(slope)), default=0
    )
    for step in (1e-2, 0.1, 1.0) if size > 0 else ():
        moved = jax.tree.map(lambda p, g, s=step: p - g * p.dtype.type(s / size), start, slope)
        other = _total(loss, moved, targets)
        if not other >= least - 1e-5 * (1 + abs(least)):
            raise LawError(
                f"costs_least_at: against the gradient at the best predictions the loss falls from "
                f"{least:.6g} to {other:.6g}; the least loss is elsewhere",
                expected=least,
                got=other,
            )
    given = _total(loss, predictions, targets)
    if not given >= least - 1e-5 * (1 + abs(least)):
        raise LawError(
            f"costs_least_at: the loss is {least:.6g} at the best predictions, and {given:.6g} at "
            "the given ones; check signs, and what is subtracted"
        )


def descent_finds(loss: Loss, predictions: Any, targets: Any, best: Any) -> None:
    """Gradient descent from the given predictions comes most of the way to the least loss.

    >>> descent_finds(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3), 'targets')
    """
    least = _total(loss, _best(best, predictions, targets), targets)
    slope = jax.grad(lambda p: _mean(loss(p, targets)))

    def step(carry: Any, lr: Any) -> tuple[Any, Any]:
        p, v = carry
        g = slope(p)
        # Adam-like: one rate suits gradients of every size.
        v = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * jnp.square(g), v, g)
        new = jax.tree.map(lambda p, g, v: p - lr * g / (jnp.sqrt(v) + 1e-12), p, g, v)
        return (new, v), None

    zeros = jax.tree.map(lambda p: jnp.full_like(p, 1e-12), predictions)
    rates = jnp.asarray(np.geomspace(0.3, 1e-3, DESCENT_STEPS), jnp.float32)
    (last, _), _ = jax.jit(lambda: jax.lax.scan(step, (predictions, zeros), rates))()
    found, first = _total(loss, last, targets), _total(loss, predictions, targets)
    if not found <= least + 0.2 * abs(first - least) + 1e-3:
        raise LawError(
            f"descent_finds: gradient descent took the loss from {first:.6g} to {found:.6g}, and "
            f"{least:.6g} can be had; look for a part without gradient, or one of the wrong sign",
            expected=least,
            got=found,
        )


def masked_examples_do_not_count(loss: Loss, predictions: Any, targets: Any) -> None:
    """Masked predictions change neither the loss nor the gradient, NaN included.

    >>> from fnn.losses import mean_squared_error
    >>> masked_examples_do_not_count(mean_squared_error, jnp.ones((3, 2)), jnp.zeros((3, 2)))
    """
    law = "masked_examples_do_not_count"
    mask = _mask(loss, predictions, targets)
    slope = jax.grad(lambda p, t: _mean(loss(p, t, where=mask)))

    def garbage(value: float) -> Any:
        def leaf(p: Any) -> Any:
            at = mask.reshape(mask.shape + (1,) * (p.ndim - mask.ndim))
            return jnp.where(at, p, jnp.asarray(value, p.dtype))

        return jax.tree.map(leaf, predictions)

    base = _mean(loss(predictions, targets, where=mask)), slope(predictions, targets)
    for value in (7.0, np.nan):
        other = garbage(value)
        found = _mean(loss(other, targets, where=mask)), slope(other, targets)
        expect_same(
            f"{law}, with {value} there",
            base,
            found,
            names=("before", "after"),
            rtol=1e-6,
            hint="replace what is masked before the formula, by jnp.where, and not after it",
        )


def mean_is_of_what_is_kept(loss: Loss, predictions: Any, targets: Any) -> None:
    """The mean loss under `where` is that of the kept examples alone.

    >>> from fnn.losses import mean_squared_error
    >>> mean_is_of_what_is_kept(mean_squared_error, jnp.ones((3, 2)), jnp.zeros((3, 2)))
    """
    mask = _mask(loss, predictions, targets)
    batch = tree.length(predictions)
    kept = np.ones(batch, bool)
    kept[0] = False
    shape = (batch,) + (1,) * (mask.ndim - 1)
    rows_mask = jnp.broadcast_to(kept.reshape(shape), mask.shape)
    found = _mean(loss(predictions, targets, where=rows_mask))
    alone = jax.tree.map(jnp.asarray, rows((predictions, targets), kept))
    wanted = _mean(loss(*alone))
    if not abs(float(found) - float(wanted)) <= 1e-5 * (1e-3 + abs(float(wanted))):
        raise LawError(
            f"mean_is_of_what_is_kept: the mean of {kept.sum()} kept of {batch} examples is "
            f"{float(found):.6g}, and that of them alone {float(wanted):.6g}; divide by the number "
            "of what is kept",
            expected=float(wanted),
            got=float(found),
        )


def nothing_kept_costs_nothing(loss: Loss, predictions: Any, targets: Any) -> None:
    """With an empty mask the loss and its gradient are 0 and no NaN.

    >>> from fnn.losses import mean_squared_error
    >>> nothing_kept_costs_nothing(mean_squared_error, jnp.ones((3, 2)), jnp.zeros((3, 2)))
    """
    none = jnp.zeros_like(_mask(loss, predictions, targets))
    slope = jax.grad(lambda p: _mean(loss(p, targets, where=none)))
    expect_all(
        "nothing_kept_costs_nothing",
        (_mean(loss(predictions, targets, where=none)), slope(predictions)),
        lambda values: values == 0,
        rule="must be 0",
        hint="divide by at least 1",
    )


def is_linear_in_its_weights(loss: Loss, predictions: Any, targets: Any) -> None:
    """An example of weight 2 counts as two, and one of weight 0 not at all.

    >>> weighted = lambda y, t, weights: Weighted(jnp.square(y - t), weights)
    >>> is_linear_in_its_weights(weighted, jnp.arange(3.0), jnp.zeros(3))
    """
    batch = tree.length(predictions)
    weights = jnp.asarray(np.r_[2.0, 0.0, np.ones(batch - 2)], jnp.float32)
    index = np.r_[0, 0, 2:batch]
    found = _mean(loss(predictions, targets, weights=weights))
    copies = jax.tree.map(jnp.asarray, rows((predictions, targets), index))
    wanted = _mean(loss(*copies, weights=jnp.ones(batch)))
    if not abs(float(found) - float(wanted)) <= 1e-5 * (1e-3 + abs(float(wanted))):
        raise LawError(
            f"is_linear_in_its_weights: the mean with weights 2, 0, 1, ... is {float(found):.6g}, "
            f"and with a copy of the first example in place of the second {float(wanted):.6g}; "
            "divide by the sum of the weights",
            expected=float(wanted),
            got=float(found),
        )


def has_the_symmetry(loss: Loss, predictions: Any, targets: Any, symmetry: str) -> None:
    """A shift of all logits, a permutation of the classes, or a positive factor changes nothing.

    >>> from fnn.losses import cross_entropy
    >>> has_the_symmetry(cross_entropy, jnp.eye(3), jnp.array([0, 1, 1]), 'shift')
    """
    changed = {
        "shift": lambda p: p + jnp.asarray(1.5, p.dtype),
        "scale": lambda p: p * jnp.asarray(2.5, p.dtype),
        "classes": lambda p: jnp.roll(p, 1, axis=-1),
    }
    moved = jax.tree.map(changed[symmetry], predictions)
    classes = jax.tree.leaves(predictions)[0].shape[-1]

    def relabeled(t: Any) -> Any:
        if is_float(t):
            return jnp.roll(t, 1, axis=-1)
        return jnp.where((t >= 0) & (t < classes), (t + 1) % classes, t)

    others = jax.tree.map(relabeled, targets) if symmetry == "classes" else targets
    expect_same(
        f"has_the_symmetry {symmetry}",
        _products(loss(predictions, targets)),
        _products(loss(moved, others)),
        names=("before", "after"),
        allowed=tolerance.of(lambda p, t: _products(loss(p, t)), moved, others),
        hint="look for a class that is dropped, a missing normalization, or a fixed scale",
    )


def is_finite_at_the_bounds(
    loss: Loss, predictions: Any, targets: Any, bounds: tuple[float, float]
) -> None:
    """Loss and gradient are finite for targets at either bound.

    >>> is_finite_at_the_bounds(lambda y, t: jnp.square(y - t), jnp.ones(3), jnp.zeros(3), (0, 1))
    """
    slope = _slope(loss)
    for bound in bounds:
        at = jax.tree.map(lambda t, b=bound: jnp.full_like(t, b), targets)
        mixed = jax.tree.map(lambda t, b=bound: t.at[0].set(jnp.asarray(b, t.dtype)), targets)
        for given_ in (at, mixed):
            expect_all(
                f"is_finite_at_the_bounds, for targets of {bound:g}",
                (_products(loss(predictions, given_)), slope(predictions, given_)),
                np.isfinite,
                rule="must be finite",
                hint="mind 0 log 0: use jax.scipy.special.xlogy, or jnp.where before the logarithm",
            )


def costs_as_the_reference(loss: Loss, predictions: Any, targets: Any, like: Loss) -> None:
    """Means and gradients are those of the reference, at the predictions and at others.

    >>> square = lambda y, t: jnp.square(y - t)
    >>> costs_as_the_reference(square, jnp.arange(3.0), jnp.ones(3), lambda y, t: square(t, y))
    """
    law = "costs_as_the_reference"
    for size in (1.0, -2.0, 0.1, 20.0):
        for shift in (0, 1):
            moved = jax.tree.map(
                lambda p, s=shift: jnp.roll(p, s, axis=0), _times(predictions, size)
            )
            _expect_alike(f"{law} for predictions times {size:g}", loss, like, moved, targets)


def masks_as_the_reference(loss: Loss, predictions: Any, targets: Any, like: Loss) -> None:
    """Under masks means and gradients are those of the reference.

    >>> from fnn.losses import mean_squared_error as mse
    >>> masks_as_the_reference(mse, jnp.ones((3, 2)), jnp.zeros((3, 2)), mse)
    """
    mask = _mask(loss, predictions, targets)
    for what, kept in {
        "some": mask,
        "all": jnp.ones_like(mask),
        "none": jnp.zeros_like(mask),
    }.items():
        _expect_alike(
            f"masks_as_the_reference, with {what} kept",
            partial(loss, where=kept),
            partial(like, where=kept),
            predictions,
            targets,
        )


def _expect_alike(law: str, loss: Loss, like: Loss, predictions: Any, targets: Any) -> None:
    def both(loss: Loss) -> Any:
        found = loss(predictions, targets)
        values = _values(found)
        return _mean(found), _slope_of_mean(loss)(predictions, targets), values

    expected, got = both(like), both(loss)
    for i, what in enumerate(("mean", "gradient", "values")):
        if what == "values" and np.shape(expected[2]) != np.shape(got[2]):
            continue
        expect_same(
            f"{law}, in the {what}",
            jax.tree.map(lambda leaf: entries(leaf), expected[i]),
            jax.tree.map(lambda leaf: entries(leaf), got[i]),
            names=("the reference", "the loss"),
            rtol=1e-4,
            hint="compare the formula with its source",
        )


def _mask(loss: Loss, predictions: Any, targets: Any) -> Any:
    """A mask of the shape of the losses per example that keeps about two thirds of them."""
    found = jax.eval_shape(loss, predictions, targets)
    shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
    whole = jax.tree.leaves(targets)[0].shape
    for shape in dict.fromkeys([shapes[0] or whole, whole, (shapes[0] or whole)[:1]]):
        mask = jnp.asarray(np.arange(int(np.prod(shape))).reshape(shape) % 3 != 1)
        try:
            jax.eval_shape(partial(loss, where=mask), predictions, targets)
        except (TypeError, ValueError):
            continue
        return mask
    raise LawError(
        "the loss takes no `where` of the shape of its values, of its targets or of the batch"
    )


def _slope(loss: Loss) -> Callable[[Any, Any], Any]:
    return jax.jit(jax.grad(lambda p, t: _products(loss(p, t)).sum()))


def _slope_of_mean(loss: Loss) -> Callable[[Any, Any], Any]:
    return jax.jit(jax.grad(lambda p, t: _mean(loss(p, t))))


def _best(best: Any, predictions: Any, targets: Any) -> Any:
    """The predictions of the least loss."""
    if isinstance(best, str) and best == "targets":
        return jax.tree.map(lambda p, t: t.astype(p.dtype).reshape(p.shape), predictions, targets)
    if isinstance(best, str) and best == "labels":

        def logits(p: Any, t: Any) -> Any:
            if is_float(t) or t.ndim == p.ndim:
                return jnp.asarray(2 * CONFIDENT, p.dtype) * (t.astype(p.dtype) - p.dtype.type(0.5))
            return jnp.asarray(CONFIDENT, p.dtype) * jax.nn.one_hot(t, p.shape[-1], dtype=p.dtype)

        return jax.tree.map(logits, predictions, targets)
    if isinstance(best, str):
        raise ValueError(
            f"check_loss: expected best to be 'targets', 'labels', an array or a function of the "
            f"targets, got {best!r}"
        )
    found = best(targets) if callable(best) else best
    return jax.tree.map(lambda p, b: jnp.asarray(b, p.dtype), predictions, found)


def _total(loss: Loss, predictions: Any, targets: Any) -> float:
    return float(_mean(loss(predictions, targets)))


def _mean(losses: Any) -> Any:
    """The mean that training minimizes: weighted, if there are weights."""
    if isinstance(losses, Weighted):
        return _products(losses).sum() / jnp.maximum(losses.weights.sum(), 1e-12)
    return jnp.mean(_values(losses))


def _values(losses: Any) -> Any:
    return losses.values if isinstance(losses, Weighted) else losses


def _weights_of(losses: Any) -> Any:
    return losses.weights if isinstance(losses, Weighted) else np.ones(())


def _products(losses: Any) -> Any:
    """The losses times their weights."""
    if not isinstance(losses, Weighted):
        return losses
    return jnp.where(losses.weights == 0, 0, losses.values) * losses.weights


def _times(predictions: Any, size: float) -> Any:
    return jax.tree.map(lambda p: jnp.asarray(p) * jnp.asarray(size, p.dtype), predictions)


def _dtype(predictions: Any) -> Any:
    return jax.tree.leaves(predictions)[0].dtype
