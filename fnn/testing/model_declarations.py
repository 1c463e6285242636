"""Laws of models that follow from one declared property: causal, padded, normalized, tied, ..."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.dtypes import is_float
from fnn.testing import tolerance
from fnn.testing._compare import entries, expect_same
from fnn.testing.battery import LawError
from fnn.testing.model_subject import (
    equal,
    floats_of,
    gradient,
    is_noisy,
    key_of,
    outputs,
    start,
)
from fnn.tree import path_of
from fnn.types import Decoder, Model, Params

NOISE_DRAWS = 400
SIGMAS = 6.0  # of a mean over the draws: a false alarm once in 5e8 entries
STATISTICS_STEPS = 2000


def is_causal(model: Model, x: Any, axis: int = 1) -> None:
    """The outputs up to a time do not change with the inputs after it.

    >>> from fnn.nn import lift
    >>> is_causal(lift(lambda x: jnp.cumsum(x, axis=1)), jnp.ones((3, 4)))
    """
    evaluate, params = _evaluation(model, x)
    base, allowed = evaluate(params, x), tolerance.of(evaluate, params, x)
    time = _length(x, axis)
    for stop in range(1, time):
        later = _changed(x, axis, time, range(stop, time))
        expect_same(
            f"is_causal, with other inputs from time {stop} on",
            _upto(base, axis, time, stop),
            _upto(evaluate(params, later), axis, time, stop),
            names=("before", "after"),
            allowed=allowed,
            hint="mask the positions after each one, padding and offsets included",
        )


def reads_the_past(model: Model, x: Any, axis: int = 1) -> None:
    """The last output changes with the earlier inputs, and with the last input.

    >>> from fnn.nn import lift
    >>> reads_the_past(lift(lambda x: jnp.cumsum(x, axis=1)), jnp.ones((3, 4)))
    """
    evaluate, params = _evaluation(model, x)
    time = _length(x, axis)
    base = evaluate(params, x)
    for what, times in {
        "the earlier inputs": range(time - 1),
        "the last input": [time - 1],
    }.items():
        other = evaluate(params, _changed(x, axis, time, times))
        if equal(_last(base, axis, time), _last(other, axis, time)):
            raise LawError(
                f"reads_the_past: the last output is the same for other values of {what}; look for "
                "a mask of the wrong side, or one that is off by one"
            )


def _evaluation(model: Model, x: Any) -> tuple[Callable[[Params, Any], Any], Params]:
    """The evaluation as a function of params and x, and the parameters."""
    params, state = start(model, x)
    return lambda params, x: outputs(model, params, state, x, train=False)[0], params


def _length(x: Any, axis: int) -> int:
    lengths = [leaf.shape[axis] for leaf in jax.tree.leaves(x) if leaf.ndim > axis]
    if not lengths:
        raise ValueError(f"check_model: expected inputs with an axis {axis} of time, got none")
    return lengths[0]


def _changed(x: Any, axis: int, time: int, times: Sequence[int]) -> Any:
    """Other inputs at some times."""
    chosen = np.isin(np.arange(time), times)

    def leaf(value: Any) -> Any:
        if value.ndim <= axis or value.shape[axis] != time:
            return value
        shape = [1] * value.ndim
        shape[axis] = time
        return jnp.where(chosen.reshape(shape), _others(value), value)

    return jax.tree.map(leaf, x)


def _others(value: Any) -> Any:
    """Other values of the same kind: floats are drawn, integers exchanged, masks kept."""
    if is_float(value):
        draws = np.random.default_rng(5).normal(size=value.shape) * 3
        return jnp.asarray(draws, value.dtype)
    if jnp.issubdtype(value.dtype, jnp.integer):
        low, high = int(value.min()), int(value.max())
        return (value - low + 1) % max(high - low + 1, 1) + value.dtype.type(low)
    return value


def _upto(y: Any, axis: int, time: int, stop: int) -> Any:
    return _taken(y, axis, time, np.arange(stop))


def _last(y: Any, axis: int, time: int) -> Any:
    return _taken(y, axis, time, np.array([time - 1]))


def _taken(y: Any, axis: int, time: int, index: np.ndarray) -> Any:
    """The entries of the outputs at some times; all of an output without an axis of time."""

    def leaf(value: Any) -> Any:
        return np.take(entries(value), index, axis) if _has_time(value, axis, time) else value

    return jax.tree.map(leaf, y)


def _has_time(leaf: Any, axis: int, time: int) -> bool:
    return np.ndim(leaf) > axis and np.shape(leaf)[axis] == time


class Padding(NamedTuple):
    """Where the lengths or the mask of the sequences are in x."""

    key: Any
    is_mask: bool


def ignores_padding(model: Model, x: Any, padding: Padding) -> None:
    """Outputs of valid positions do not change with the inputs of the others; lengths matter.

    >>> from fnn.nn import lift
    >>> def mean(x):
    ...     valid = jnp.arange(4)[None] < x['lengths'][:, None]
    ...     return jnp.sum(jnp.where(valid, x['x'], 0), axis=1) / x['lengths'].astype(jnp.float32)
    >>> x = {'x': jnp.arange(12.0).reshape(3, 4), 'lengths': jnp.array([1, 4, 2])}
    >>> ignores_padding(lift(mean), x, Padding('lengths', False))
    """
    x, valid = _padded(x, padding)
    evaluate, params = _evaluation(model, x)
    base, allowed = evaluate(params, x), tolerance.of(evaluate, params, x)

    def garbage(name: Any, leaf: Any) -> Any:
        if name == padding.key or leaf.shape[:2] != valid.shape:
            return leaf
        mask = valid.reshape(valid.shape + (1,) * (leaf.ndim - 2))
        return jnp.where(mask, leaf, _others(leaf))

    expect_same(
        "ignores_padding",
        _valid(base, valid),
        _valid(evaluate(params, _mapped(garbage, x)), valid),
        names=("with the padding", "with another padding"),
        allowed=allowed,
        hint="mask it in softmax, sums, means, statistics and carries",
    )
    everything = jnp.ones_like(valid) if padding.is_mask else jnp.full_like(x[padding.key], 1)
    whole = _with(x, padding.key, everything)
    if equal(base, evaluate(params, whole)):
        raise LawError(
            f"ignores_padding: other values of x[{padding.key!r}] change no output; use them"
        )


def padding_may_be_trimmed(model: Model, x: Any, padding: Padding) -> None:
    """A sequence alone, cut at its length, has the same outputs as padded in a batch.

    Models of a fixed length, whose parameters do not fit a shorter one, are not compared.

    >>> from fnn.nn import lift
    >>> x = {'x': jnp.ones((3, 4)), 'lengths': jnp.array([1, 4, 2])}
    >>> padding_may_be_trimmed(lift(lambda x: x['x']), x, Padding('lengths', False))
    """
    x, valid = _padded(x, padding)
    evaluate, params = _evaluation(model, x)
    base, allowed = evaluate(params, x), tolerance.of(evaluate, params, x)
    batch, time = valid.shape
    row = int(np.argmin(np.where(valid.sum(1) > 1, valid.sum(1), time)))
    length = int(valid[row].sum())
    if valid[row, :length].all() and length < time:

        def cut(name: Any, leaf: Any) -> Any:
            one = leaf[row : row + 1] if leaf.shape[:1] == (batch,) else leaf
            return one[:, :length] if one.shape[1:2] == (time,) else one

        short = _mapped(cut, x)
        try:
            jax.eval_shape(evaluate, params, short)
        except (TypeError, ValueError):
            return

        def kept(leaf: Any) -> Any:
            one = leaf[row : row + 1] if np.shape(leaf)[:1] == (batch,) else leaf
            return one[:, :length] if np.shape(one)[1:2] == (time,) else one

        expect_same(
            "padding_may_be_trimmed",
            jax.tree.map(kept, base),
            evaluate(params, short),
            names=("padded", "trimmed"),
            allowed=allowed,
            hint="divide by the length and not by the padded one; start at the first valid step",
        )


def _padded(x: Any, padding: Padding) -> tuple[Any, np.ndarray]:
    """x with sequences of different lengths, and the mask of what is valid."""
    where = "check_model"
    if not isinstance(x, (Mapping, tuple, list)):
        raise ValueError(
            f"{where}: expected x to be a dict or tuple with the lengths or the mask at "
            f"{padding.key!r}, got {type(x).__name__}"
        )
    names = x if isinstance(x, Mapping) else range(len(x))
    others = [x[name] for name in names if name != padding.key and np.ndim(x[name]) > 1]
    if not others:
        raise ValueError(f"{where}: expected in x sequences of shape (batch, time, ...), got none")
    batch, time = others[0].shape[:2]
    marks = np.asarray(x[padding.key])
    lengths = marks.sum(axis=1) if padding.is_mask else marks
    if (lengths == time).all():
        lengths = np.maximum(1, time - np.arange(batch) % time)
        mark = np.arange(time) < lengths[:, None] if padding.is_mask else lengths
        x = _with(x, padding.key, jnp.asarray(mark, marks.dtype))
    elif padding.is_mask:
        return x, marks.astype(bool)
    return x, np.arange(time) < lengths[:, None]


def _mapped(function: Callable[[Any, Any], Any], x: Any) -> Any:
    """`function(name, leaf)` of each entry of a dict or tuple."""
    if isinstance(x, Mapping):
        return {name: function(name, leaf) for name, leaf in x.items()}
    entries = [function(i, leaf) for i, leaf in enumerate(x)]
    return type(x)(*entries) if hasattr(x, "_fields") else type(x)(entries)


def _with(x: Any, key: Any, value: Any) -> Any:
    return _mapped(lambda name, leaf: value if name == key else leaf, x)


def _valid(y: Any, valid: np.ndarray) -> Any:
    """The outputs with zeros at positions that are not valid."""

    def leaf(value: Any) -> Any:
        if np.shape(value)[:2] != valid.shape:
            return value
        return jnp.where(valid.reshape(valid.shape + (1,) * (value.ndim - 2)), value, 0)

    return jax.tree.map(leaf, y)


def is_equivariant(model: Model, x: Any, name: str, g: Callable, h: Callable) -> None:
    """`model(g(x)) = h(model(x))`.

    >>> from fnn.nn import lift
    >>> is_equivariant(lift(jnp.abs), jnp.ones((3, 2)), 'scale', lambda x: 2 * x, lambda y: 2 * y)
    """
    evaluate, params = _evaluation(model, x)

    def both(params: Params, x: Any) -> Any:
        return jax.tree.map(jnp.asarray, (h(evaluate(params, x)), evaluate(params, g(x))))

    expected, got = both(params, x)
    moved = [both(*tolerance.perturbed((params, x), seed)) for seed in range(3)]
    allowed = tolerance.between(expected, [m[0] for m in moved])
    also = tolerance.between(got, [m[1] for m in moved])
    expect_same(
        f"is_equivariant under {name}",
        expected,
        got,
        names=("the outputs changed", "the outputs of changed inputs"),
        allowed=jax.tree.map(np.maximum, allowed, also),
        hint="look for an axis, an offset or a position that should not matter",
    )


def is_invariant(model: Model, x: Any, name: str, g: Callable) -> None:
    """`model(g(x)) = model(x)`.

    >>> from fnn.nn import lift
    >>> is_invariant(lift(jnp.abs), jnp.ones((3, 2)), 'sign', jnp.negative)
    """
    is_equivariant(model, x, name, g, lambda y: y)


def has_unit_statistics(
    model: Model, x: Any, axes: tuple[int, ...], *, centered: bool = True
) -> None:
    """At the initial parameters, outputs with train=True have mean square 1 over the axes.

    Args:
      centered: and mean 0.

    >>> from fnn.nn import layer_norm
    >>> has_unit_statistics(layer_norm(), jnp.arange(12.0).reshape(3, 4), (-1,))
    """
    params, state = jax.jit(model.init)(key_of(), x)

    def stretched(leaf: Any) -> Any:
        if not is_float(leaf):
            return leaf
        # Apart in each feature, so that statistics over the wrong axes are far off.
        return leaf.dtype.type(5) * leaf + leaf.dtype.type(3) * jnp.cos(
            jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape)
        )

    y, _ = outputs(model, params, state, jax.tree.map(stretched, x), train=True)
    for leaf in jax.tree.leaves(y):
        values = entries(leaf)
        found = {"mean square": (values**2).mean(axis=axes), "mean": values.mean(axis=axes)}
        wanted = {"mean square": 1.0, "mean": 0.0}
        for name in found if centered else ("mean square",):
            error = np.abs(found[name] - wanted[name])
            if not error.max() <= 0.01:
                worst = float(found[name].ravel()[error.argmax()])
                raise LawError(
                    f"has_unit_statistics: the {name} over axes {axes} is {worst:.4g}, and must be "
                    f"{wanted[name]:g}; check the axes, and the divisor of the variance",
                    expected=wanted[name],
                    got=worst,
                )


def noise_keeps_the_mean(model: Model, x: Any) -> None:
    """The mean output over keys with train=True is the output with train=False.

    >>> from fnn.nn import dropout
    >>> noise_keeps_the_mean(dropout(0.5), jnp.ones((3, 8)))
    """
    params, state = start(model, x)
    means, errors = _moments(model, params, state, x)
    plain = outputs(model, params, state, x, train=False)[0]
    _expect_moments("noise_keeps_the_mean", plain, means, errors)


def _moments(model: Model, params: Params, state: Any, x: Any, power: int = 1) -> tuple[Any, Any]:
    """Mean over keys of a power of the outputs with train=True, and its standard error."""

    def draw(key: Any) -> Any:
        y, _ = model.apply(params, state, x, key=key, train=True)
        return jax.tree.map(lambda leaf: leaf**power, y)

    draws = jax.jit(jax.vmap(draw))(jax.random.split(key_of(7), NOISE_DRAWS))
    means = jax.tree.map(lambda leaf: entries(leaf).mean(axis=0), draws)
    spread = jax.tree.map(lambda leaf: entries(leaf).std(axis=0) / np.sqrt(NOISE_DRAWS), draws)
    return means, spread


def _expect_moments(law: str, expected: Any, means: Any, errors: Any) -> None:
    for (keys, a), b, error in zip(
        jax.tree.leaves_with_path(expected),
        jax.tree.leaves(means),
        jax.tree.leaves(errors),
        strict=True,
    ):
        wanted = entries(a)
        allowed = SIGMAS * error + 1e-4 * np.abs(wanted).max(initial=0.0) + 1e-6
        away = np.abs(b - wanted) / allowed
        if not away.max(initial=0.0) <= 1:
            i = np.unravel_index(away.argmax(), wanted.shape)
            raise LawError(
                f"{law}: output '{path_of(keys)}' at {tuple(map(int, i))}: the mean over "
                f"{NOISE_DRAWS} keys is {b[i]:.5g}, and must be {wanted[i]:.5g} within "
                f"{allowed[i]:.2g}; divide what is kept by the probability to keep it",
                leaf=path_of(keys),
                expected=wanted[i],
                got=b[i],
            )


def statistics_lead_to_evaluation(model: Model, x: Any) -> None:
    """After many passes over one batch, train=False gives nearly the outputs of train=True.

    >>> from fnn.nn import batch_norm
    >>> statistics_lead_to_evaluation(batch_norm(), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = start(model, x)
    large = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * 20), x)

    def one(state: Any, key: Any) -> tuple[Any, None]:
        return model.apply(params, state, large, key=key, train=True)[1], None

    keys = jax.random.split(key_of(3), STATISTICS_STEPS)
    after = jax.jit(lambda state: jax.lax.scan(one, state, keys)[0])(state)
    if is_noisy(model, x):
        return
    trained = outputs(model, params, after, large, train=True)[0]
    expect_same(
        "statistics_lead_to_evaluation",
        trained,
        outputs(model, params, after, large, train=False)[0],
        names=("with train=True", "with train=False"),
        rtol=0.03,  # the running variance of 60 rows may be the unbiased one
        hint="check which statistics evaluation reads, their axes, and the factor of the average",
    )


def decoding_equals_the_whole(model: Model, x: Any, decoder: Decoder) -> None:
    """The logits token by token, and in two blocks, are those of the whole sequence.

    >>> from fnn.nn import lift
    >>> one_hot = lambda tokens: jax.nn.one_hot(tokens, 5)
    >>> decoder = Decoder(lambda params, batch, length: (), lambda p, t, carry: (one_hot(t), carry))
    >>> decoding_equals_the_whole(lift(one_hot), jnp.zeros((3, 4), jnp.int32), decoder)
    """
    evaluate, params = _evaluation(model, x)
    decode_as_the_whole(decoder, params, x, evaluate)


def decode_as_the_whole(
    decoder: Decoder, params: Params, tokens: Any, whole: Callable[[Params, Any], Any]
) -> None:
    """Compares decoding in blocks of several sizes with the whole."""
    law = "decoding_equals_the_whole"
    batch, time = tokens.shape
    expected, allowed = whole(params, tokens), tolerance.of(whole, params, tokens)
    step = jax.jit(decoder.step)
    blocks = {"one at a time": [1] * time, "in two blocks": [time - time // 2, time // 2]}
    blocks["the prompt and one at a time"] = [2, *[1] * (time - 2)]
    for (what, sizes), room in zip(blocks.items(), (time, time, time + 3), strict=True):
        carry, at, parts = decoder.init(params, batch, room), 0, []
        for size in sizes:
            logits, carry = step(params, tokens[:, at : at + size], carry)
            parts.append(logits)
            at += size
        expect_same(
            f"{law}, {what}",
            expected,
            jnp.concatenate(parts, axis=1),
            names=("the whole", what),
            allowed=allowed,
            hint="check positions, the order of the cache, and the mask of what is not yet filled",
        )


def head_is_tied(model: Model, x: Any, path: str) -> None:
    """One leaf is the table of the embedding and of the head, and no other leaf is a head.

    >>> from fnn.nn import lift
    >>> params = {'table': jnp.eye(5)}
    >>> model = Model(lambda key, x: (params, ()), lambda params, state, x, **_: (
    ...     jnp.take(params['table'], x, axis=0) @ params['table'].T, state))
    >>> head_is_tied(model, jnp.array([[0, 1], [1, 2], [2, 1]]), 'table')
    """
    law = "head_is_tied"
    params, state = start(model, x)
    leaves = {path_of(keys): leaf for keys, leaf in jax.tree.leaves_with_path(params)}
    if path not in leaves:
        raise LawError(f"{law}: expected a leaf '{path}', got {', '.join(leaves)}", leaf=path)
    table = leaves[path]
    for other, leaf in leaves.items():
        if other != path and leaf.shape in (table.shape, table.shape[::-1]):
            raise LawError(
                f"{law}: leaf '{other}' has the shape of the table, {leaf.shape}; use the table",
                leaf=other,
            )
    slopes = gradient(model, False)(params, state, x)[0]
    floats = [p for p, leaf in leaves.items() if is_float(leaf)]
    rows = np.asarray(slopes[floats.index(path)])
    unused = np.setdiff1d(np.arange(len(table)), np.unique(entries(jax.tree.leaves(x)[0])))
    if len(unused) and not np.any(rows[unused.astype(int)] != 0):
        raise LawError(
            f"{law}: rows of '{path}' for tokens that are not in x have no gradient: the head does "
            "not read the table; multiply by its transpose",
            leaf=path,
        )
    present = int(jax.tree.leaves(x)[0].ravel()[0])
    moved = jnp.asarray(table).at[present].add(table.dtype.type(1))
    y = outputs(model, params, state, x, train=False)[0]
    other = jax.tree.map_with_path(lambda k, p: moved if path_of(k) == path else p, params)
    z = outputs(model, other, state, x, train=False)[0]
    changed = np.any(entries(jax.tree.leaves(y)[0]) != entries(jax.tree.leaves(z)[0]), axis=(0, 1))
    if changed.ndim == 1 and np.delete(changed, present).any():
        return
    raise LawError(
        f"{law}: the row of a token in '{path}' changes its own logit only: the embedding does not "
        "read the table",
        leaf=path,
    )


def agrees_with_the_reference(
    model: Model, x: Any, like: Model, params_like: Callable[[Params], Params] | None
) -> None:
    """Outputs and gradients are those of the reference, with the same parameters.

    At the given inputs, and at others: larger, negative, zero, and of other examples.

    >>> from fnn.nn import lift
    >>> agrees_with_the_reference(lift(jnp.tanh), jnp.ones((3, 1)), lift(jax.lax.tanh), None)
    """
    law = "agrees_with_the_reference"
    (params, state), theirs = start(model, x), _state_of(like, x)
    convert = params_like or (lambda params: params)
    noisy = is_noisy(model, x)
    for what, inputs in _variants(x).items():
        for train in (False,) if noisy else (False, True):

            def ours(params: Params, x: Any, train: bool = train) -> Any:
                return outputs(model, params, state, x, train=train)[0]

            expect_same(
                f"{law} for {what}, with train={train}",
                outputs(like, convert(params), theirs, inputs, train=train)[0],
                ours(params, inputs),
                names=("the reference", "the model"),
                allowed=tolerance.of(ours, params, inputs, factor=3 * tolerance.FACTOR),
                hint="compare the formula with its source",
            )
    if noisy:
        _same_noise(law, model, (params, state), like, (convert(params), theirs), x)
        return
    expect_same(
        f"{law} in the gradient by x",
        gradient(like, False)(convert(params), theirs, x)[1],
        gradient(model, False)(params, state, x)[1],
        names=("the reference", "the model"),
        rtol=1e-3,
        hint="look for stop_gradient or a custom derivative",
    )


def _state_of(model: Model, x: Any) -> Any:
    return jax.jit(model.init)(key_of(), x)[1]


def _variants(x: Any) -> dict[str, Any]:
    """The example, and others of the same shapes."""

    def floats(function: Callable[[Any], Any]) -> Any:
        return jax.tree.map(lambda leaf: function(leaf) if is_float(leaf) else leaf, x)

    found = {
        "x": x,
        "other examples": jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), x),
    }
    if floats_of(x):
        found |= {
            "x times -3": floats(lambda leaf: leaf.dtype.type(-3) * leaf),
            "x plus 2": floats(lambda leaf: leaf + leaf.dtype.type(2)),
            "zeros": floats(jnp.zeros_like),
        }
    else:
        found["other tokens"] = jax.tree.map(_others, x)
    return found


def _same_noise(
    law: str,
    model: Model,
    ours: tuple[Params, Any],
    like: Model,
    theirs: tuple[Params, Any],
    x: Any,
) -> None:
    """With train=True mean and mean square over the keys are those of the reference."""
    for power in (1, 2):
        means, errors = _moments(model, *ours, x, power)
        wanted, others = _moments(like, *theirs, x, power)
        both = jax.tree.map(np.hypot, errors, others)
        _expect_moments(f"{law} in the moments of its noise", wanted, means, both)


def trains_as_the_reference(
    model: Model, x: Any, like: Model, params_like: Callable[[Params], Params] | None
) -> None:
    """After three training passes the evaluation is that of the reference.

    Their states may have different structures: only outputs are compared.

    >>> from fnn.nn import batch_norm
    >>> x = jnp.array([[1.0], [2.0], [4.0]])
    >>> trains_as_the_reference(batch_norm(), x, batch_norm(), None)
    """
    (params, state), theirs = start(model, x), _state_of(like, x)
    if not jax.tree.leaves(state) or is_noisy(model, x):
        return
    other = (params_like or (lambda params: params))(params)
    for batch in list(_variants(x).values())[:3]:
        state = outputs(model, params, state, batch, train=True)[1]
        theirs = outputs(like, other, theirs, batch, train=True)[1]
    expect_same(
        "trains_as_the_reference",
        outputs(like, other, theirs, x, train=False)[0],
        outputs(model, params, state, x, train=False)[0],
        names=("the reference", "the model"),
        rtol=1e-4,
        hint="compare how the running statistics are updated: factor, axes, first step, variance",
    )
