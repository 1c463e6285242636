"""Laws of models. `check_model` runs all of them.

They share compiled programs by compiling the same functions of the model at the same shapes: pass
one model to all of them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.dtypes import cast_floats, is_float
from fnn.testing._compare import expect_same, expect_same_specs, fresh, rows
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import RTOL
from fnn.tree import path_of
from fnn.types import Model, ModelState, Params


def check_model(
    model: Model, x: Any, *, noisy: bool = False, rowwise: bool = True, smooth: bool = True
) -> None:
    """All laws of a model.

    Args:
      model: built with Python numbers, not tracers.
      x: a small batch of at least 3; an array or a pytree, batch axis first.
      noisy: whether it draws from its key with train=True.
      rowwise: whether examples are independent with train=False.
      smooth: whether it is differentiable, with no kink at x.

    >>> from fnn.nn import linear
    >>> check_model(linear(2), jnp.array([[1.0], [2.0], [4.0]]))
    """
    x = jax.tree.map(jnp.asarray, x)
    init_accepts_shapes(model, x)
    init_follows_the_key(model, x)
    model_jit_equals_eager(model, x)
    model_keeps_structures_and_dtypes(model, x)
    evaluation_keeps_the_state(model, x)
    model_vmap_equals_loop(model, x)
    if rowwise:
        examples_are_independent(model, x)
    if noisy:
        noise_follows_the_key(model, x)
    if smooth:
        model_gradients_are_right(model, x)


def init_accepts_shapes(model: Model, x: Any) -> None:
    """`init` depends only on the shapes and dtypes of x: it accepts ShapeDtypeStructs.

    >>> from fnn.nn import linear
    >>> init_accepts_shapes(linear(2), jnp.ones((3, 1)))
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    expect_same_specs(
        "init_accepts_shapes",
        jax.eval_shape(model.init, _key(), x),
        jax.eval_shape(lambda key: model.init(key, shapes), _key()),
        names=("for an array", "for a ShapeDtypeStruct"),
        hint="read x.shape and x.dtype only",
    )


def init_follows_the_key(model: Model, x: Any) -> None:
    """Parameters are a function of the key, bitwise; no two leaves or keys have the same draws.

    Leaves with at most two distinct values (zeros, ones, the bias of an LSTM) are ignored as
    constants.

    >>> from fnn.nn import linear
    >>> init_follows_the_key(linear(2), jnp.ones((3, 1)))
    """
    law, init = "init_follows_the_key", jax.jit(model.init)
    params, again = init(_key(), x)[0], init(_key(), x)[0]
    names = ("the first call", "the second")
    expect_same(law, params, again, names=names, hint="draw from the key alone")
    other = jax.tree.leaves(init(_key(1), x)[0])
    seen: dict[tuple[Any, bytes], str] = {}
    for (keys, leaf), elsewhere in zip(jax.tree.leaves_with_path(params), other, strict=True):
        if not _looks_drawn(entries := np.asarray(leaf)):
            continue
        path = path_of(keys)
        if (entries == np.asarray(elsewhere)).all():
            raise AssertionError(
                f"{law}: leaf '{path}' is the same for two keys; initialize it from the key"
            )
        twin = seen.setdefault((entries.shape, entries.tobytes()), path)
        if twin != path:
            raise AssertionError(
                f"{law}: leaves '{twin}' and '{path}' are equal; give each its own key, by "
                "fold_name or split"
            )


def _looks_drawn(entries: np.ndarray) -> bool:
    return len(np.unique(entries)) > min(2, entries.size - 1) and bool(entries.any())


def model_jit_equals_eager(
    model: Model, x: Any, *, train: bool = False, rtol: float = RTOL
) -> None:
    """`jit(apply)` agrees with `apply`.

    `check_model` calls it with train=False only: eager execution is the slowest of all laws.

    >>> from fnn.nn import lift
    >>> model_jit_equals_eager(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = _start(model, x)
    key = {"key": _key(2)} if train else {}
    expect_same(
        "model_jit_equals_eager",
        model.apply(params, state, x, **fresh(key), train=train),
        _compiled(model)(params, state, x, **fresh(key), train=train),
        names=("eager", "jit"),
        rtol=rtol,
        hint="look for state outside the function, or a choice by the type of an argument",
    )


def model_keeps_structures_and_dtypes(model: Model, x: Any) -> None:
    """Gradients match the parameters, the new state the old, and output dtypes those of x.

    Float32 inputs and parameters give float32, bfloat16 gives bfloat16, and any batch size is
    accepted. Nothing is computed: the shapes are traced.

    >>> from fnn.nn import lift
    >>> model_keeps_structures_and_dtypes(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = jax.eval_shape(model.init, _key(), x)
    for dtype in (jnp.float32, jnp.bfloat16):
        _expect_dtype_kept(model, _as(params, dtype), state, _as(x, dtype), dtype)
    for batch in (1, 2, 7):
        resized = jax.tree.map(
            lambda leaf, batch=batch: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), x
        )
        y = jax.eval_shape(partial(model.apply, train=False), params, state, resized)[0]
        for keys, leaf in jax.tree.leaves_with_path(y):
            if leaf.shape[:1] != (batch,):
                raise AssertionError(
                    f"model_keeps_structures_and_dtypes: output '{path_of(keys)}' has shape "
                    f"{leaf.shape} for a batch of {batch}; the batch axis comes first"
                )


def _expect_dtype_kept(model: Model, params: Params, state: ModelState, x: Any, dtype: Any) -> None:
    law = f"model_keeps_structures_and_dtypes in {jnp.dtype(dtype).name}"

    def total(params: Params, state: ModelState, x: Any, key: Any) -> tuple[Any, Any]:
        y, new_state = model.apply(params, state, x, key=key, train=True)
        sums = [leaf.sum().astype(jnp.float32) for leaf in jax.tree.leaves(y) if is_float(leaf)]
        return sum(sums, start=jnp.float32(0)), (y, new_state)

    slope = jax.grad(total, has_aux=True)
    gradients, (y, new_state) = jax.eval_shape(slope, params, state, x, _key())
    names, hint = ("the parameters", "the gradients"), "keep integers and constants out of params"
    expect_same_specs(law, params, gradients, names=names, hint=hint)
    names, hint = ("the old state", "the new"), "statistics stay in at least float32"
    expect_same_specs(law, state, new_state, names=names, hint=hint)
    if not any(is_float(leaf) for leaf in jax.tree.leaves((params, x))):
        return
    for keys, leaf in jax.tree.leaves_with_path(y):
        if is_float(leaf) and leaf.dtype != dtype:
            raise AssertionError(
                f"{law}: output '{path_of(keys)}' is {leaf.dtype}; compute statistics in float32, "
                "and cast the result to the dtype of the input"
            )


def evaluation_keeps_the_state(model: Model, x: Any) -> None:
    """With train=False no key is needed, and the model state is unchanged.

    >>> from fnn.nn import batch_norm
    >>> evaluation_keeps_the_state(batch_norm(), jnp.ones((3, 1)))
    """
    params, state = _start(model, x)
    expect_same(
        "evaluation_keeps_the_state",
        state,
        _compiled(model)(params, state, x, train=False)[1],
        names=("the old state", "the new"),
        hint="move running statistics with train=True only",
    )


def model_vmap_equals_loop(model: Model, x: Any, *, rtol: float = RTOL) -> None:
    """vmap over two sets of parameters agrees with a loop, as sweeps require.

    >>> from fnn.nn import lift
    >>> model_vmap_equals_loop(lift(jnp.sin), jnp.ones((3, 1)))
    """
    params, state = _start(model, x)
    both = [params, _perturbed(params, seed=1)]
    loop = [_compiled(model)(one, state, x, train=False)[0] for one in both]
    under = jax.vmap(lambda params: model.apply(params, state, x, train=False)[0], axis_size=2)
    expect_same(
        "model_vmap_equals_loop",
        tree.stack(loop),
        jax.jit(under)(tree.stack(both)),
        names=("the loop", "vmap"),
        rtol=rtol,
        hint="look for a fixed axis, or a reduction over all axes",
    )


def examples_are_independent(model: Model, x: Any, *, rtol: float = RTOL) -> None:
    """With train=False, the output of an example depends on that example alone.

    Permuting the batch permutes the outputs, and copies of an example have equal outputs.

    >>> from fnn.nn import lift
    >>> examples_are_independent(lift(jnp.sin), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = _start(model, x)
    batch = len(jax.tree.leaves(x)[0])
    if batch < 3:
        raise ValueError(
            f"examples_are_independent: expected a batch of at least 3, got {batch}; add examples"
        )
    y = _compiled(model)(params, state, x, train=False)[0]
    choices = {"permuted": np.roll(np.arange(batch), 1), "copied": np.zeros(batch, int)}
    for what, index in choices.items():
        expect_same(
            f"examples_are_independent with the examples {what}",
            rows(y, index),
            _compiled(model)(params, state, rows(x, index), train=False)[0],
            names=(f"the outputs, {what},", f"the output of the examples, {what},"),
            rtol=rtol,
            hint="look for a statistic or a softmax over the batch axis",
        )


def noise_follows_the_key(model: Model, x: Any) -> None:
    """With train=True the output is a function of the key, bitwise, and a key is required.

    With train=False a key has no effect.

    >>> from fnn.nn import dropout
    >>> noise_follows_the_key(dropout(0.5), jnp.ones((3, 8)))
    """
    law, apply = "noise_follows_the_key", _compiled(model)
    params, state = _start(model, x)
    first, again, other = (
        apply(params, state, x, key=_key(seed), train=True)[0] for seed in (2, 2, 3)
    )
    names = ("the first call", "the second")
    expect_same(law, first, again, names=names, hint="draw from the key alone")
    if all(
        bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True)
    ):
        raise AssertionError(
            f"{law}: two keys give the same output with train=True; draw the noise from the key"
        )
    expect_same(
        law,
        apply(params, state, x, train=False)[0],
        apply(params, state, x, key=_key(2), train=False)[0],
        names=("evaluation without a key", "with a key"),
        hint="draw noise with train=True only",
    )
    try:
        jax.eval_shape(partial(model.apply, train=True), params, state, x)
    except ValueError:
        return
    raise AssertionError(f"{law}: train=True without a key was accepted; raise a ValueError")


def model_gradients_are_right(model: Model, x: Any) -> None:
    """Gradients of parameters and inputs agree with central differences, in float64.

    >>> from fnn.nn import lift
    >>> model_gradients_are_right(lift(jnp.sin), jnp.array([[1.0], [2.0], [4.0]]))
    """
    params, state = _start(model, x)

    def outputs(params: Params, x: Any, key: Any) -> Any:
        # The state is a constant here: models may stop its gradient.
        return model.apply(params, cast_floats(state, jnp.float64), x, key=key, train=True)[0]

    gradients_match_finite_differences(outputs, params, x, _key(2))


def _key(seed: int = 0) -> Any:
    return jax.random.key(seed)


def _compiled(model: Model) -> Any:
    # All laws wrap the same function, so JAX compiles it once.
    return jax.jit(model.apply, static_argnames="train")


def _start(model: Model, x: Any) -> tuple[Params, ModelState]:
    params, state = jax.jit(model.init)(_key(), x)
    return _perturbed(params, seed=0), state


def _perturbed(params: Params, seed: int) -> Params:
    # Zeros and ones would hide an unused bias or scale.
    generator = np.random.default_rng(seed)

    def leaf(p: Any) -> Any:
        noise = generator.normal(size=p.shape) * 0.1
        return jnp.asarray(np.asarray(p) + noise.astype(p.dtype)) if is_float(p) else p

    return jax.tree.map(leaf, params)


def _as(tree: PyTree, dtype: Any) -> PyTree:
    def leaf(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, dtype) if floating else x

    return jax.tree.map(leaf, tree)
