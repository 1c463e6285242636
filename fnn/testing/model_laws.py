"""Laws of models. `check_model` runs all of them; `model_laws` makes the list.

They share compiled programs by compiling the same functions of the model at the same shapes: pass
one model to all of them.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.dtypes import cast_floats, is_float
from fnn.testing import draws, tolerance
from fnn.testing import model_declarations as declared
from fnn.testing._compare import entries, expect_all, expect_same, expect_same_specs, fresh, rows
from fnn.testing._given import dtypes_beyond_float32, expect_model, given
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import arguments_are_kept, expect_own_buffers, is_traced_alike
from fnn.testing.model_subject import (
    compiled,
    gradient,
    is_noisy,
    key_of,
    outputs,
    perturbed,
    shapes_of,
    start,
)
from fnn.tree import path_of
from fnn.types import Decoder, Model, ModelState, Params


def check_model(model: Model, x: Any, **options: Any) -> None:
    """Runs all laws of a model; the arguments are those of `model_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.nn import linear
    >>> check_model(linear(2), jnp.array([[1.0], [2.0], [4.0]]))
    """
    check("check_model", model_laws(model, x, **options))


def model_laws(
    model: Model,
    x: Any,
    *,
    noisy: bool | str = "auto",
    rowwise: bool = True,
    smooth: bool = True,
    causal: bool | int = False,
    lengths: Any = None,
    masked: Any = None,
    equivariant: Sequence[tuple[str, Callable, Callable]] = (),
    invariant: Sequence[tuple[str, Callable]] = (),
    normalized_axes: tuple[int, ...] | None = None,
    centered: bool = True,
    unbiased_noise: bool = False,
    statistics: bool = False,
    decoder: Decoder | None = None,
    frozen: str | None = None,
    tied: str | None = None,
    like: Model | None = None,
    params_like: Callable[[Params], Params] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a model.

    Args:
      model: built with Python numbers, not tracers. Those of other libraries become one by
        `fnn.interop.from_linen`, `from_nnx`, `from_equinox`, `from_haiku`.
      x: a small batch of at least 3; an array, a pytree or a strategy, batch axis first.
      noisy: whether it draws from its key with train=True; "auto" finds out.
      rowwise: whether examples are independent with train=False.
      smooth: whether it is differentiable, with no kink at x.
      causal: whether outputs depend on the inputs up to their time only; True, or the time axis.
      lengths: key in x of the lengths of the sequences in its other leaves, (batch, time, ...); by
        default "lengths" or "length", if x is a dict with such a key.
      masked: key in x of a mask (batch, time) of the valid positions; by default "mask" or "valid".
      equivariant: (name, g, h) with model(g(x)) = h(model(x)).
      invariant: (name, g) with model(g(x)) = model(x).
      normalized_axes: the output has mean square 1 over them, at the initial parameters.
      centered: and mean 0.
      unbiased_noise: whether the mean output with train=True is the output with train=False.
      statistics: whether running statistics converge to those of the batch.
      decoder: gives the same logits token by token.
      frozen: pattern of the paths of the parameters that have no gradient.
      tied: path of the parameter of both the embedding and the head.
      like: a reference model.
      params_like: from the parameters of the model to those of the reference.
      dtypes: also computed in these, near the results in float32.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: bfloat16 gives bfloat16, init accepts
        ShapeDtypeStructs, train=True without a key is a ValueError.

    Raises: ValueError for arguments that are not what they should be.

    >>> from fnn.nn import linear
    >>> model_laws(linear(2), jnp.ones((3, 1)))[0]
    params_do_not_depend_on_the_batch
    """
    where = "check_model"
    expect_model(where, model)
    x = jax.tree.map(jnp.asarray, given(where, x))
    if tree.length(x) < 3:
        raise ValueError(
            f"{where}: expected a batch of at least 3, got {tree.length(x)}; add examples"
        )
    axis = int(causal) if causal is not True else 1
    if lengths is None and masked is None and isinstance(x, Mapping):
        lengths = next((name for name in ("lengths", "length") if name in x), None)
        masked = next((name for name in ("mask", "valid") if name in x), None)
    laws = Battery(where, skip)
    laws.add(params_do_not_depend_on_the_batch, model, x)
    laws.add(init_follows_the_key, model, x, strict=policy == "fnn")
    laws.add(init_may_be_donated, model, x)
    laws.add(model_is_pure, model, x)
    laws.add(model_jit_equals_eager, model, x)
    laws.add(model_keeps_structures_and_dtypes, model, x)
    laws.add(evaluation_keeps_the_state, model, x)
    laws.add(evaluation_ignores_the_key, model, x)
    laws.add(training_moves_the_state, model, x)
    laws.add(model_vmap_equals_loop, model, x)
    if rowwise:
        laws.add(examples_are_independent, model, x)
    laws.add(every_parameter_is_used, model, x)
    laws.add(every_parameter_has_a_gradient, model, x, frozen=frozen)
    laws.add(every_input_is_read, model, x)
    laws.add(model_uses_no_key_twice, model, x)
    if noisy:
        laws.add(noise_follows_the_key, model, x, expected=noisy is True)
        laws.add(noise_differs_between_examples, model, x)
    laws.add(model_is_finite, model, x)
    laws.add(model_agrees_with_float64, model, x)
    if smooth:
        laws.add(model_gradients_are_right, model, x, strict=policy == "fnn")
    if policy == "fnn":
        laws.add(init_accepts_shapes, model, x)
        laws.add(model_keeps_bfloat16, model, x)
        laws.add(noise_needs_a_key, model, x)
    if causal is not False:
        laws.add(declared.is_causal, model, x, axis)
        laws.add(declared.reads_the_past, model, x, axis)
    if lengths is not None or masked is not None:
        padding = declared.Padding(lengths if masked is None else masked, masked is not None)
        laws.add(declared.ignores_padding, model, x, padding)
        laws.add(declared.padding_may_be_trimmed, model, x, padding)
    for name, g, h in equivariant:
        laws.add(declared.is_equivariant, model, x, name, g, h)
    for name, g in invariant:
        laws.add(declared.is_invariant, model, x, name, g)
    if normalized_axes is not None:
        laws.add(declared.has_unit_statistics, model, x, normalized_axes, centered=centered)
    if unbiased_noise:
        laws.add(declared.noise_keeps_the_mean, model, x)
    if statistics:
        laws.add(declared.statistics_lead_to_evaluation, model, x)
    if decoder is not None:
        laws.add(declared.decoding_equals_the_whole, model, x, decoder)
    if tied is not None:
        laws.add(declared.head_is_tied, model, x, tied)
    for dtype in dtypes_beyond_float32(where, dtypes):
        laws.add(model_agrees_with_float32, model, x, dtype)
    if like is not None:
        expect_model(f"{where}: like", like)
        laws.add(declared.agrees_with_the_reference, model, x, like, params_like)
        laws.add(declared.trains_as_the_reference, model, x, like, params_like)
    return laws.done()


def params_do_not_depend_on_the_batch(model: Model, x: Any) -> None:
    """`init` depends on shapes alone: other values and another batch size change nothing.

    >>> from fnn.nn import linear
    >>> params_do_not_depend_on_the_batch(linear(2), jnp.ones((3, 1)))
    """
    init = jax.jit(model.init)
    names = ("for the batch", "for another")
    hint = "read the shapes of x only, and not its batch axis"
    law = "params_do_not_depend_on_the_batch"
    wanted = init(key_of(), x)
    other = jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else leaf, x)
    expect_same(law, wanted, init(key_of(), other), names=names, hint=hint)
    smaller = jax.eval_shape(model.init, key_of(), _resized(x, 2))
    expect_same_specs(law, jax.eval_shape(model.init, key_of(), x), smaller, names=names, hint=hint)


def init_accepts_shapes(model: Model, x: Any) -> None:
    """`init` depends only on the shapes and dtypes of x: it accepts ShapeDtypeStructs.

    >>> from fnn.nn import linear
    >>> init_accepts_shapes(linear(2), jnp.ones((3, 1)))
    """
    expect_same_specs(
        "init_accepts_shapes",
        jax.eval_shape(model.init, key_of(), x),
        jax.eval_shape(lambda key: model.init(key, shapes_of(x)), key_of()),
        names=("for an array", "for a ShapeDtypeStruct"),
        hint="read x.shape and x.dtype only",
    )


def init_follows_the_key(model: Model, x: Any, *, strict: bool = False) -> None:
    """Parameters are a function of the key, bitwise; no two leaves or keys have the same draws.

    Leaves with at most two distinct values (zeros, ones, the bias of an LSTM) are ignored as
    constants.

    Args:
      strict: every other leaf differs for another key; otherwise one of them does.

    >>> from fnn.nn import linear
    >>> init_follows_the_key(linear(2), jnp.ones((3, 1)))
    """
    law, init = "init_follows_the_key", jax.jit(model.init)
    params, again = init(key_of(), x)[0], init(key_of(), x)[0]
    names = ("the first call", "the second")
    expect_same(law, params, again, names=names, hint="draw from the key alone")
    drawn = _drawn(params)
    other = dict(_drawn(init(key_of(1), x)[0]))
    fixed = [path for path, leaf in drawn if path in other and _same(leaf, other[path])]
    if fixed and (strict or len(fixed) == len(drawn)):
        raise LawError(
            f"{law}: leaf '{fixed[0]}' is the same for two keys; initialize it from the key",
            leaf=fixed[0],
        )
    seen: dict[tuple[Any, bytes], str] = {}
    for path, leaf in drawn:
        twin = path if path in fixed else seen.setdefault((leaf.shape, leaf.tobytes()), path)
        if twin != path:
            raise LawError(
                f"{law}: leaves '{twin}' and '{path}' are equal; give each its own key, by "
                "fold_name or split",
                leaf=path,
            )
    draws.no_key_is_used_twice(lambda key: model.init(key, x), key_of())


def _drawn(params: Params) -> list[tuple[str, np.ndarray]]:
    """The leaves that look as if they were drawn, with their paths."""
    leaves = [(path_of(keys), np.asarray(p)) for keys, p in jax.tree.leaves_with_path(params)]
    return [(path, leaf) for path, leaf in leaves if _looks_drawn(leaf)]


def _looks_drawn(entries: np.ndarray) -> bool:
    return len(np.unique(entries)) > min(2, entries.size - 1) and bool(entries.any())


def init_may_be_donated(model: Model, x: Any) -> None:
    """No two leaves of the parameters and the state share a buffer, so both may be donated.

    >>> from fnn.nn import linear
    >>> init_may_be_donated(linear(2), jnp.ones((3, 1)))
    """
    expect_own_buffers("init_may_be_donated", model.init(key_of(), x))


def model_is_pure(model: Model, x: Any) -> None:
    """`apply` is deterministic and changes no argument, with train=False and with train=True.

    >>> from fnn.nn import linear
    >>> model_is_pure(linear(2), jnp.ones((3, 1)))
    """
    params, state = start(model, x)

    def evaluate(params: Params, state: ModelState, x: Any) -> Any:
        return model.apply(params, state, x, train=False)

    def train(params: Params, state: ModelState, x: Any, key: Any) -> Any:
        return model.apply(params, state, x, key=key, train=True)

    arguments_are_kept(evaluate, params, state, x)
    arguments_are_kept(train, params, state, x, key_of(2))
    is_traced_alike(train, params, state, x, key_of(2))


def model_jit_equals_eager(model: Model, x: Any, *, train: bool = False) -> None:
    """`jit(apply)` agrees with `apply`.

    `check_model` calls it with train=False only: eager execution is the slowest of all laws.

    >>> from fnn.nn import lift
    >>> model_jit_equals_eager(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = start(model, x)
    key = {"key": key_of(2)} if train else {}

    def jitted(params: Params, x: Any) -> Any:
        return compiled(model)(params, state, x, **fresh(key), train=train)

    expect_same(
        "model_jit_equals_eager",
        model.apply(params, state, x, **fresh(key), train=train),
        jitted(params, x),
        names=("eager", "jit"),
        allowed=tolerance.of(jitted, params, x),
        hint="look for state outside the function, or a choice by the type of an argument",
    )


def model_keeps_structures_and_dtypes(model: Model, x: Any) -> None:
    """Gradients match the parameters, the new state the old, and any batch size is accepted.

    Nothing is computed: the shapes are traced.

    >>> from fnn.nn import lift
    >>> model_keeps_structures_and_dtypes(lift(jnp.sin), jnp.ones((3, 1)))
    """
    law = "model_keeps_structures_and_dtypes"
    params, state = jax.eval_shape(model.init, key_of(), x)
    _expect_structures(law, model, params, state, x)
    size = tree.length(x)
    whole = jax.eval_shape(partial(model.apply, train=False), params, state, x)[0]
    for batch in (1, 2, 7):
        y = jax.eval_shape(partial(model.apply, train=False), params, state, _resized(x, batch))[0]
        for (keys, leaf), full in zip(
            jax.tree.leaves_with_path(y), jax.tree.leaves(whole), strict=True
        ):
            if full.shape[:1] == (size,) and leaf.shape != (batch, *full.shape[1:]):
                raise LawError(
                    f"{law}: output '{path_of(keys)}' has shape {leaf.shape} for a batch of "
                    f"{batch}; the batch axis comes first",
                    leaf=path_of(keys),
                    expected=(batch, *full.shape[1:]),
                    got=leaf.shape,
                )
    if all(full.shape[:1] != (size,) for full in jax.tree.leaves(whole)):
        shapes = [full.shape for full in jax.tree.leaves(whole)]
        raise LawError(
            f"{law}: the outputs have shapes {shapes} for a batch of {size}; the batch axis comes "
            "first"
        )


def _resized(x: Any, batch: int) -> Any:
    """Shapes of the example with another batch size."""
    size = tree.length(x)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (batch, *leaf.shape[1:]) if leaf.shape[:1] == (size,) else leaf.shape, leaf.dtype
        ),
        x,
    )


def _expect_structures(
    law: str, model: Model, params: Params, state: ModelState, x: Any
) -> tuple[Any, ModelState]:
    """Checks gradients and state of a training pass; returns the shapes of the outputs."""

    def total(params: Params, state: ModelState, x: Any, key: Any) -> tuple[Any, Any]:
        y, new_state = model.apply(params, state, x, key=key, train=True)
        sums = [leaf.sum().astype(jnp.float32) for leaf in jax.tree.leaves(y) if is_float(leaf)]
        return sum(sums, start=jnp.float32(0)), (y, new_state)

    slope = jax.grad(total, has_aux=True)
    gradients, (y, new_state) = jax.eval_shape(slope, params, state, x, key_of())
    names, hint = ("the parameters", "the gradients"), "keep integers and constants out of params"
    expect_same_specs(law, params, gradients, names=names, hint=hint)
    names, hint = ("the old state", "the new"), "keep the dtypes of the state, float32 or wider"
    expect_same_specs(law, state, new_state, names=names, hint=hint)
    return y, new_state


def model_keeps_bfloat16(model: Model, x: Any) -> None:
    """Bfloat16 inputs and parameters give bfloat16 outputs, and float32 gives float32.

    >>> from fnn.nn import lift
    >>> model_keeps_bfloat16(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = jax.eval_shape(model.init, key_of(), x)
    for dtype in (jnp.float32, jnp.bfloat16):
        law = f"model_keeps_bfloat16 in {jnp.dtype(dtype).name}"
        moved, inputs = _as(params, dtype), _as(x, dtype)
        y, _ = _expect_structures(law, model, moved, state, inputs)
        if not any(is_float(leaf) for leaf in jax.tree.leaves((moved, inputs))):
            return
        for keys, leaf in jax.tree.leaves_with_path(y):
            if is_float(leaf) and leaf.dtype != dtype:
                raise LawError(
                    f"{law}: output '{path_of(keys)}' is {leaf.dtype}; compute statistics in "
                    "float32, and cast the result to the dtype of the input",
                    leaf=path_of(keys),
                    expected=dtype,
                    got=leaf.dtype,
                )


def _as(tree: PyTree, dtype: Any) -> PyTree:
    def leaf(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, dtype) if floating else x

    return jax.tree.map(leaf, tree)


def evaluation_keeps_the_state(model: Model, x: Any) -> None:
    """With train=False no key is needed, and the model state is unchanged.

    >>> from fnn.nn import batch_norm
    >>> evaluation_keeps_the_state(batch_norm(), jnp.ones((3, 1)))
    """
    params, state = start(model, x)
    expect_same(
        "evaluation_keeps_the_state",
        state,
        outputs(model, params, state, x, train=False)[1],
        names=("the old state", "the new"),
        hint="move running statistics with train=True only",
    )


def evaluation_ignores_the_key(model: Model, x: Any) -> None:
    """With train=False a key has no effect.

    >>> from fnn.nn import dropout
    >>> evaluation_ignores_the_key(dropout(0.5), jnp.ones((3, 8)))
    """
    params, state = start(model, x)
    plain = outputs(model, params, state, x, train=False)[0]
    for seed in (2, 3):
        expect_same(
            "evaluation_ignores_the_key",
            plain,
            compiled(model)(params, state, x, key=key_of(seed), train=False)[0],
            names=("evaluation without a key", "with a key"),
            hint="draw noise with train=True only",
        )


def training_moves_the_state(model: Model, x: Any) -> None:
    """With train=True each leaf of the model state changes within two different batches.

    >>> from fnn.nn import batch_norm
    >>> training_moves_the_state(batch_norm(), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = start(model, x)
    new = state
    for batch in (x, _stretched(x)):
        new = outputs(model, params, new, batch, train=True)[1]
    for (keys, old), moved in zip(
        jax.tree.leaves_with_path(state), jax.tree.leaves(new), strict=True
    ):
        if np.array_equal(entries(old), entries(moved)) and np.size(entries(old)):
            raise LawError(
                f"training_moves_the_state: state '{path_of(keys)}' is the same after two batches "
                "with train=True; return the new state",
                leaf=path_of(keys),
            )


def _stretched(x: Any) -> Any:
    """Another batch: reversed, floats twice as large, and shifted by 1."""

    def leaf(value: Any) -> Any:
        turned = value[::-1]
        return value.dtype.type(2) * turned + value.dtype.type(1) if is_float(value) else turned

    return jax.tree.map(leaf, x)


def model_vmap_equals_loop(model: Model, x: Any) -> None:
    """vmap over two sets of parameters agrees with a loop, as sweeps require.

    >>> from fnn.nn import lift
    >>> model_vmap_equals_loop(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = start(model, x)
    both = [params, perturbed(params, seed=1)]
    loop = [outputs(model, one, state, x, train=False)[0] for one in both]
    under = jax.vmap(
        lambda params, x: model.apply(params, state, x, train=False)[0],
        in_axes=(0, None),
        axis_size=2,
    )
    batched = jax.jit(under)
    stacked = tree.stack(both)
    expect_same(
        "model_vmap_equals_loop",
        tree.stack(loop),
        batched(stacked, x),
        names=("the loop", "vmap"),
        allowed=tolerance.of(batched, stacked, x),
        hint="look for a fixed axis, or a reduction over all axes",
    )


def examples_are_independent(model: Model, x: Any) -> None:
    """With train=False, the output of an example depends on that example alone.

    Permuting the batch permutes the outputs, and copies of any example have equal outputs.

    >>> from fnn.nn import lift
    >>> examples_are_independent(lift(jnp.sin), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = start(model, x)
    batch = tree.length(x)

    def evaluate(params: Params, x: Any) -> Any:
        return outputs(model, params, state, x, train=False)[0]

    y, allowed = evaluate(params, x), tolerance.of(evaluate, params, x)
    choices = {"permuted": np.roll(np.arange(batch), 1)}
    choices |= {f"replaced by copies of example {i}": np.full(batch, i) for i in range(batch)}
    for what, index in choices.items():
        expect_same(
            f"examples_are_independent with the examples {what}",
            _rows(y, index, batch),
            evaluate(params, _rows(x, index, batch)),
            names=("alone", "in that batch"),
            allowed=allowed,
            hint="look for a statistic or a softmax over the batch axis",
        )


def _rows(values: Any, index: Any, batch: int) -> Any:
    """Indexes the leaves that have a batch axis."""
    return jax.tree.map(
        lambda leaf: rows(leaf, index) if np.shape(leaf)[:1] == (batch,) else leaf, values
    )


def every_parameter_is_used(model: Model, x: Any) -> None:
    """Another value of any leaf changes the outputs, with train=True or with train=False.

    >>> from fnn.nn import linear
    >>> every_parameter_is_used(linear(2), jnp.ones((3, 1)))
    """
    params, state = start(model, x)
    for path in _without_gradient(model, params, state, x):
        if not _has_an_effect(model, params, state, x, path):
            raise LawError(
                f"every_parameter_is_used: another value of leaf '{path}' changes no output; use "
                "it in apply, or drop it from init",
                leaf=path,
            )


def every_parameter_has_a_gradient(model: Model, x: Any, *, frozen: str | None = None) -> None:
    """The gradient by every leaf that has an effect is not all zero; by frozen ones it is.

    >>> from fnn.nn import linear
    >>> every_parameter_has_a_gradient(linear(2), jnp.ones((3, 1)))
    """
    law = "every_parameter_has_a_gradient"
    params, state = start(model, x)
    still = _without_gradient(model, params, state, x)
    paths = [path_of(keys) for keys, p in jax.tree.leaves_with_path(params) if is_float(p)]
    for path in paths:
        if frozen and fnmatch.fnmatchcase(path, frozen):
            if path not in still:
                raise LawError(
                    f"{law}: leaf '{path}' has a gradient, and matches frozen={frozen!r}; stop it "
                    "by jax.lax.stop_gradient",
                    leaf=path,
                )
        elif path in still and _has_an_effect(model, params, state, x, path):
            raise LawError(
                f"{law}: leaf '{path}' changes the outputs, and its gradient is all zero; look for "
                "stop_gradient, rounding, argmax, or a custom derivative",
                leaf=path,
            )


def _without_gradient(model: Model, params: Params, state: ModelState, x: Any) -> list[str]:
    """Paths of the float leaves whose gradient is zero with train=True and with train=False."""
    both = [gradient(model, train)(params, state, x)[0] for train in (True, False)]
    leaves = [path_of(keys) for keys, p in jax.tree.leaves_with_path(params) if is_float(p)]
    return [
        path
        for path, *slopes in zip(leaves, *both, strict=True)
        if not any(np.any(np.asarray(slope) != 0) for slope in slopes)
    ]


def _has_an_effect(model: Model, params: Params, state: ModelState, x: Any, path: str) -> bool:
    def moved(keys: Any, leaf: Any) -> Any:
        return perturbed(leaf + leaf.dtype.type(0.5), 3) if path_of(keys) == path else leaf

    other = jax.tree.map_with_path(moved, params)
    for train in (False, True):

        def evaluate(params: Params, x: Any, train: bool = train) -> Any:
            return outputs(model, params, state, x, train=train)

        base, new = evaluate(params, x), evaluate(other, x)
        allowed = tolerance.of(evaluate, params, x)
        for a, b, limit in zip(*map(jax.tree.leaves, (base, new, allowed)), strict=True):
            if is_float(a) and np.abs(entries(a) - entries(b)).max(initial=0) > limit:
                return True
    return False


def every_input_is_read(model: Model, x: Any) -> None:
    """Another value of any leaf of x changes the outputs.

    >>> from fnn.nn import lift
    >>> every_input_is_read(lift(jnp.sin), jnp.arange(3.0))
    """
    params, state = start(model, x)
    leaves, structure = jax.tree.flatten(x)
    base = [outputs(model, params, state, x, train=train)[0] for train in (True, False)]
    for i, (keys, leaf) in enumerate(jax.tree.leaves_with_path(x)):
        other = jnp.roll(leaf, 1, axis=0) if leaf.ndim else leaf + leaf.dtype.type(1)
        if np.array_equal(other, leaf):
            other = leaf + leaf.dtype.type(1) if leaf.dtype != bool else ~leaf
        changed = jax.tree.unflatten(structure, [*leaves[:i], other, *leaves[i + 1 :]])
        new = [outputs(model, params, state, changed, train=train)[0] for train in (True, False)]
        if _all_equal(base, new):
            raise LawError(
                f"every_input_is_read: another value of input '{path_of(keys)}' changes no output; "
                "use it, or drop it",
                leaf=path_of(keys),
            )


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]]:
    """The leaves side by side: of floats, or of everything if there are none."""
    pairs = list(zip(*map(jax.tree.leaves, (a, b)), strict=True))
    return [pair for pair in pairs if is_float(pair[0])] or pairs


def model_uses_no_key_twice(model: Model, x: Any) -> None:
    """No two random draws of a pass with train=True have the same key.

    >>> from fnn.nn import dropout
    >>> model_uses_no_key_twice(dropout(0.5), jnp.ones((3, 8)))
    """
    params, state = start(model, x)
    draws.no_key_is_used_twice(
        lambda key: model.apply(params, state, x, key=key, train=True), key_of(2)
    )


def noise_follows_the_key(model: Model, x: Any, *, expected: bool = True) -> None:
    """With train=True the output is a function of the key, bitwise.

    Args:
      expected: whether two keys must give different outputs.

    >>> from fnn.nn import dropout
    >>> noise_follows_the_key(dropout(0.5), jnp.ones((3, 8)))
    """
    law = "noise_follows_the_key"
    params, state = start(model, x)
    first, again, other = (
        outputs(model, params, state, x, train=True, seed=seed)[0] for seed in (2, 2, 3)
    )
    names = ("the first call", "the second")
    expect_same(law, first, again, names=names, hint="draw from the key alone")
    if expected and _all_equal(first, other):
        raise LawError(
            f"{law}: two keys give the same output with train=True; draw the noise from the key"
        )


def _all_equal(a: Any, b: Any) -> bool:
    return all(_same(first, second) for first, second in _pairs(a, b))


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(entries(a), entries(b), equal_nan=is_float(a))


def noise_needs_a_key(model: Model, x: Any) -> None:
    """A model that draws raises a ValueError for train=True without a key.

    >>> from fnn.nn import dropout
    >>> noise_needs_a_key(dropout(0.5), jnp.ones((3, 8)))
    """
    if not is_noisy(model, x):
        return
    params, state = start(model, x)
    try:
        jax.eval_shape(partial(model.apply, train=True), params, state, x)
    except ValueError:
        return
    raise LawError("noise_needs_a_key: train=True without a key was accepted; raise a ValueError")


def noise_differs_between_examples(model: Model, x: Any) -> None:
    """With train=True, copies of one example get different noise.

    >>> from fnn.nn import dropout
    >>> noise_differs_between_examples(dropout(0.5), jnp.ones((3, 8)))
    """
    if not is_noisy(model, x):
        return
    params, state = start(model, x)
    batch = tree.length(x)
    copies = _rows(x, np.zeros(batch, int), batch)
    for seed in range(8):
        y = outputs(model, params, state, copies, train=True, seed=seed)[0]
        for leaf in jax.tree.leaves(y):
            values = entries(leaf)
            if values.shape[:1] == (batch,) and (values != values[:1]).any():
                return
    raise LawError(
        "noise_differs_between_examples: copies of an example have the same output for 8 keys; "
        "draw noise of the shape of the whole batch, or split the key over it"
    )


def model_is_finite(model: Model, x: Any) -> None:
    """Outputs and gradients are finite where the floats of x are all zero or all equal.

    Outputs of inputs a thousand times as large are no NaN.

    >>> from fnn.nn import layer_norm
    >>> model_is_finite(layer_norm(), jnp.ones((3, 2)))
    """
    params, state = start(model, x)

    def filled(value: float) -> Any:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, value) if is_float(leaf) else leaf, x)

    for what, inputs in {"zeros": filled(0.0), "equal inputs": filled(0.7)}.items():
        for train in (False, True):
            expect_all(
                f"model_is_finite for {what}, with train={train}",
                outputs(model, params, state, inputs, train=train),
                np.isfinite,
                rule="must be finite",
                hint="add eps under roots and in denominators",
            )
            expect_all(
                f"model_is_finite for {what}, in the gradient with train={train}",
                gradient(model, train)(params, state, inputs),
                np.isfinite,
                rule="must be finite",
                hint="mind the slope of a root or a norm at 0, and jnp.where over NaN",
            )
    large = jax.tree.map(lambda leaf: 1000 * leaf if is_float(leaf) else leaf, x)
    expect_all(
        "model_is_finite for inputs times 1000",
        outputs(model, params, state, large, train=False)[0],
        lambda values: ~np.isnan(values),
        rule="must be no NaN",
        hint="subtract the maximum before an exponential, as jax.nn.softmax does",
    )


def model_agrees_with_float64(model: Model, x: Any) -> None:
    """The float32 results are those in float64, as closely as the conditioning allows.

    Models that do not compute in float64 for float64 arguments, or that draw noise, are not
    compared.

    >>> from fnn.nn import lift
    >>> model_agrees_with_float64(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = start(model, x)

    def evaluate(params: Params, x: Any) -> Any:
        return outputs(model, params, state, x, train=False)[0]

    if draws.draws_of(lambda params: model.apply(params, state, x, train=False), params):
        return
    narrow, allowed = evaluate(params, x), tolerance.of(evaluate, params, x)
    with jax.enable_x64(True):
        try:
            wide = jax.jit(partial(model.apply, train=False))(
                *cast_floats((params, state, x), jnp.float64)
            )[0]
        except (TypeError, ValueError):
            return
        if any(is_float(leaf) and leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(wide)):
            return
        wide = jax.tree.map(lambda a, b: np.asarray(a).astype(np.asarray(b).dtype), wide, narrow)
    expect_same(
        "model_agrees_with_float64",
        wide,
        narrow,
        names=("in float64", "in float32"),
        allowed=allowed,
        hint="look for a difference of large numbers, or a sum in a narrow dtype",
    )


def model_agrees_with_float32(model: Model, x: Any, dtype: Any) -> None:
    """Results in another dtype are near those in float32, as its conditioning allows.

    >>> from fnn.nn import lift
    >>> model_agrees_with_float32(lift(jnp.sin), jnp.ones((3, 1)), jnp.bfloat16)
    """
    params, state = start(model, x)
    with jax.enable_x64(jnp.dtype(dtype).itemsize == 8):

        def evaluate(params: Params, x: Any) -> Any:
            y = outputs(model, params, state, x, train=False)[0]
            return cast_floats(y, jnp.float32)

        given = cast_floats((params, x), dtype)
        narrow = evaluate(*given)
        unit = float(jnp.finfo(dtype).eps) / float(jnp.finfo(jnp.float32).eps)
        moved = [evaluate(*tolerance.perturbed(given, seed)) for seed in range(3)]
        wide = evaluate(*cast_floats(given, jnp.float32))
        allowed = tolerance.between(wide, moved, factor=tolerance.FACTOR * max(unit, 1.0))
    expect_same(
        f"model_agrees_with_float32 in {jnp.dtype(dtype).name}",
        wide,
        narrow,
        names=("in float32", f"in {jnp.dtype(dtype).name}"),
        allowed=allowed,
        hint="compute statistics, softmax and sums in float32",
    )


def model_gradients_are_right(model: Model, x: Any, *, strict: bool = True) -> None:
    """Gradients of parameters and inputs agree with central differences, in float64.

    Args:
      strict: a model that does not compute in float64 breaks the law; otherwise it is not
        compared.

    >>> from fnn.nn import lift
    >>> model_gradients_are_right(lift(jnp.sin), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = start(model, x)
    if not any(is_float(leaf) for leaf in jax.tree.leaves((params, x))):
        return

    def trained(params: Params, x: Any, key: Any) -> Any:
        # The state is a constant here: models may stop its gradient.
        wide = cast_floats(state, tree_dtype((params, x)))
        return model.apply(params, wide, x, key=key, train=True)[0]

    if strict or _computes_in_float64(trained, params, x):
        gradients_match_finite_differences(trained, params, x, key_of(2))


def _computes_in_float64(function: Callable[..., Any], params: Params, x: Any) -> bool:
    """Whether all floats of the results, and all products on the way, are in float64."""
    with jax.enable_x64(True):
        try:
            program = jax.make_jaxpr(function)(*cast_floats((params, x), jnp.float64), key_of(2))
        except (TypeError, ValueError):
            return False
        return "f32[" not in str(program) and "bf16[" not in str(program)


def tree_dtype(values: PyTree) -> Any:
    """The widest dtype of the floats of a tree."""
    return jnp.result_type(*[leaf.dtype for leaf in jax.tree.leaves(values) if is_float(leaf)])
