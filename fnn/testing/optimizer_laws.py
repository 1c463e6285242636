"""Laws of optimizers and of gradient transforms. `check_optimizer` runs all of them.

A law takes the constructor and its scalar hyperparameters, because they may be traced, by the vmap
of a sweep or the gradient of a hyperparameter. For an existing optimizer pass `lambda: optimizer`
and the scalars `{}`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fnn import dtypes, tree
from fnn.dtypes import cast_floats
from fnn.testing._compare import expect_all, expect_same, expect_same_specs, rows
from fnn.testing._quadratic import example_params, gradient, loss, noise, objective
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import RTOL, donation_is_safe
from fnn.types import Objective, Optimizer, Params, Transform

Make = Callable[..., Optimizer]
Scalars = Mapping[str, float]

LR = 0.05
NOISY_STEPS = 8  # enough for moments to build up
GRADIENT_STEPS = 20
STEPS = 200


def check_optimizer(
    make: Make,
    scalars: Scalars | None = None,
    *,
    lr: float = LR,
    leafwise: bool = True,
    decays: bool = False,
    draws: bool = False,
) -> None:
    """All laws of an optimizer.

    Args:
      make: called as `make(**scalars)`, also with tracers for the values.
      scalars: hyperparameters that may be traced, at values where training works.
      lr: a suitable learning rate.
      leafwise: whether the update of a leaf is independent of the other leaves.
      decays: whether it updates parameters with a gradient of zero.
      draws: whether it adds noise to each leaf, with a key folded from the path of the leaf.

    >>> from fnn.optim import sgd
    >>> check_optimizer(sgd)
    """
    scalars = scalars or {}
    state_is_stable(make, scalars)
    traced_equals_plain(make, scalars, lr=lr)
    training_is_a_scan(make, scalars, lr=lr)
    scalars_may_be_swept(make, scalars, lr=lr)
    scalars_have_gradients(make, scalars, lr=lr)
    if not draws:
        leaves_may_be_permuted(make, scalars, lr=lr)
    containers_do_not_matter(make, scalars, lr=lr)
    update_may_be_donated(make, scalars, lr=lr)
    if leafwise:
        leaves_are_independent(make, scalars, lr=lr)
    if not (decays or draws):
        zero_gradient_changes_nothing(make, scalars, lr=lr)


def check_transform(
    make: Callable[..., Transform],
    scalars: Scalars | None = None,
    *,
    leafwise: bool = False,
    draws: bool = False,
) -> None:
    """All laws of a gradient transform, followed by gradient descent; see `check_optimizer`.

    >>> from fnn.optim import clip_by_value
    >>> check_transform(clip_by_value, {'max_value': 0.3})
    """
    check_optimizer(
        lambda **given: descend_by(make(**given)), scalars, leafwise=leafwise, draws=draws
    )


def descend_by(transform: Transform) -> Optimizer:
    """Gradient descent with transformed gradients.

    >>> from fnn.optim import clip_by_value
    >>> descend_by(clip_by_value(1.0)).update({'w': jnp.array([3.0])}, (), {}, 0.5)[0]['w'].tolist()
    [-0.5]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        grads, state = transform.update(grads, state, params)
        return jax.tree.map(lambda g: -jnp.asarray(lr, g.dtype) * g, grads), state

    return Optimizer(init=transform.init, update=update)


def state_is_stable(make: Make, scalars: Scalars) -> None:
    """An update keeps structure, shapes and dtypes of the state; updates match the parameters.

    A compiled loop is then traced once, and a scan accepts the state. The state of bfloat16
    parameters is in float32. Nothing is computed.

    >>> from fnn.optim import sgd
    >>> state_is_stable(sgd, {})
    """
    optimizer = make(**scalars)
    for dtype in (jnp.float32, jnp.bfloat16):
        law = f"state_is_stable for {jnp.dtype(dtype).name}"
        params = jax.tree.map(lambda p, d=dtype: p.astype(d), example_params())
        state = jax.eval_shape(optimizer.init, params)
        step = functools.partial(_step, optimizer, lr=0.1)
        updates, new = jax.eval_shape(step, params, state, params)
        hint = "use arrays with a dtype, as jnp.int32(0), and keep it"
        names = ("the old state", "the new")
        expect_same_specs(law, state, new, names=names, hint=hint, weak=True)
        names, hint = (
            ("the parameters", "with the updates added"),
            "return one update per parameter",
        )
        added = jax.eval_shape(tree.add, params, updates)
        expect_same_specs(law, params, added, names=names, hint=hint)
        for keys, leaf in jax.tree.leaves_with_path(state):
            if leaf.dtype == jnp.bfloat16:
                raise AssertionError(
                    f"{law}: state '{tree.path_of(keys)}' is bfloat16; keep it in float32, as "
                    "tree.zeros_like does: small updates vanish in 8 bits"
                )


def traced_equals_plain(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """The compiled update with traced hyperparameters agrees with the eager one, for three steps.

    >>> from fnn.optim import sgd
    >>> traced_equals_plain(sgd, {})
    """
    plain = {name: float(value) for name, value in _traceable({"lr": lr, **scalars}).items()}
    params, state = _start(make, scalars)
    for _ in range(3):
        grads = gradient(params)
        updates, new_state = _compiled(make)((params, state), _traceable(plain), grads)
        expect_same(
            "traced_equals_plain",
            _update(make)((params, state), plain, grads),
            (updates, new_state),
            names=("plain", "traced"),
            rtol=RTOL,
            hint="look for state outside the function, and use jnp where a value may be traced",
        )
        params, state = tree.add(params, updates), new_state


def training_is_a_scan(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """A scan over updates agrees with a loop, and descends a quadratic.

    >>> from fnn.optim import sgd
    >>> training_is_a_scan(sgd, {})
    """
    law, hyper = "training_is_a_scan", _traceable({"lr": lr, **scalars})
    params, state = _start(make, scalars)
    early, late = _compiled_training(make)(hyper)
    first, last = loss(params), loss(late)
    for i in range(NOISY_STEPS):
        grads = tree.add(gradient(params), rows(noise(params, NOISY_STEPS, STEPS), i))
        updates, state = _compiled(make)((params, state), hyper, grads)
        params = tree.add(params, updates)
        names, hint = ("the loop", "the scan"), "look for Python state, such as a counter"
        expect_same(f"{law} at step {i}", params, rows(early, i), names=names, rtol=RTOL, hint=hint)
    if not last < first / 2:
        raise AssertionError(
            f"{law}: {STEPS} updates took the loss of a convex quadratic from {first:.4g} to "
            f"{last:.4g}, and must halve it; check the sign and size of the update"
        )


def scalars_may_be_swept(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Each scalar has an effect, and training under vmap over them agrees with a loop.

    >>> from fnn.optim import sgd
    >>> scalars_may_be_swept(sgd, {})
    """
    law, base = "scalars_may_be_swept", {"lr": lr, **scalars}
    settings = [_traceable(base)]
    settings += [_traceable({**base, name: 0.9 * base[name]}) for name in base]
    loop = [_compiled_training(make)(hyper)[0] for hyper in settings]
    for name, result in zip(base, loop[1:], strict=True):
        if jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), loop[0], result)):
            raise AssertionError(f"{law}: a tenth less of '{name}' changes nothing; use it")
    names, hint = ("the loop", "vmap"), "look for a choice by value, or a sum over all axes"
    under = jax.jit(jax.vmap(_training(make)))(tree.stack(settings))[0]
    expect_same(law, tree.stack(loop), under, names=names, rtol=RTOL, hint=hint)


def scalars_have_gradients(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Gradients of every scalar through 20 updates agree with central differences, in float64.

    >>> from fnn.optim import sgd
    >>> scalars_have_gradients(sgd, {})
    """
    params = example_params()
    params["body"].pop()  # the gradient of a loop is the slowest law to compile

    def trained(hyper: PyTree) -> Params:
        return _train(make, hyper, params, GRADIENT_STEPS)[1]

    gradients_match_finite_differences(trained, {"lr": lr, **scalars})


def zero_gradient_changes_nothing(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """From the initial state, a gradient of zero gives an update of zero, without NaN.

    >>> from fnn.optim import sgd
    >>> zero_gradient_changes_nothing(sgd, {})
    """
    params, state = _start(make, scalars)
    none = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        hyper = _traceable({"lr": lr, **scalars})
        updates, state = _compiled(make)((params, state), hyper, none)
        expect_all(
            "zero_gradient_changes_nothing",
            updates,
            lambda update: update == 0,
            rule="must be 0",
            hint="mind 0 / 0 where eps is small, and square roots at 0",
        )


def leaves_may_be_permuted(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """The order of two leaves has no effect.

    >>> from fnn.optim import sgd
    >>> leaves_may_be_permuted(sgd, {})
    """

    def swapped(params: Params) -> Params:
        return {**params, "body": params["body"][::-1]}

    params = example_params()
    one, other = (
        _first_update(_compiled(make), make, scalars, lr, p) for p in (params, swapped(params))
    )
    names, hint = ("in order", "swapped"), "treat leaves by shape and path pattern, not by index"
    expect_same("leaves_may_be_permuted", one, swapped(other), names=names, rtol=RTOL, hint=hint)


def leaves_are_independent(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Another gradient of one leaf leaves the updates of the others bitwise unchanged.

    >>> from fnn.optim import sgd
    >>> leaves_are_independent(sgd, {})
    """
    hyper = _traceable({"lr": lr, **scalars})
    params, state = _start(make, scalars)
    grads = gradient(params)
    changed = {**grads, "bias": 3 * grads["bias"]}
    one, other = (_compiled(make)((params, state), hyper, g)[0]["body"] for g in (grads, changed))
    names, hint = ("the update", "with another gradient elsewhere"), "look for a sum over leaves"
    expect_same("leaves_are_independent", one, other, names=names, hint=hint)


class _Parts(NamedTuple):
    bias: Any
    body: Any


def containers_do_not_matter(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Named tuples and tuples have the same updates as dicts and lists.

    >>> from fnn.optim import sgd
    >>> containers_do_not_matter(sgd, {})
    """

    def contained(params: Params) -> Params:
        return _Parts(body=tuple(params["body"]), bias=params["bias"])

    params = example_params()
    one = contained(_first_update(_update(make), make, scalars, lr, params))
    other = _first_update(_update(make), make, scalars, lr, contained(params))
    names, hint = ("in dicts", "in tuples"), "use jax.tree.map, never a loop over dicts"
    expect_same("containers_do_not_matter", one, other, names=names, rtol=RTOL, hint=hint)


def update_may_be_donated(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Parameters and state may be donated: no two leaves share a buffer.

    >>> from fnn.optim import sgd
    >>> update_may_be_donated(sgd, {})
    """
    hyper, init = _traceable({"lr": lr, **scalars}), jax.jit(make(**scalars).init)

    def start() -> Any:
        params = example_params()
        return params, init(params)

    donation_is_safe(_update(make), start, hyper, gradient(example_params()))


@functools.lru_cache(maxsize=4)
def _update(make: Make) -> Callable[..., tuple[Params, Any]]:
    """The update with hyperparameters as an argument, one function object for all laws."""

    def update(carry: tuple[Params, Any], hyper: PyTree, grads: Params) -> tuple[Params, Any]:
        params, state = carry
        return _step(_built(make, hyper), grads, state, params, hyper["lr"])

    return update


def _step(optimizer: Optimizer, grads: Params, state: Any, params: Params, lr: Any) -> Any:
    """An update on the quadratic plus a linear term, whose gradient at `params` is `grads`."""
    shift = jax.tree.map(jnp.subtract, grads, gradient(params))
    return optimizer.update(grads, state, params, lr, objective(params, shift))


def _compiled(make: Make) -> Callable[..., tuple[Params, Any]]:
    return jax.jit(_update(make))  # JAX caches the compilation by the function


def _built(make: Make, hyper: PyTree) -> Optimizer:
    return make(**{name: value for name, value in hyper.items() if name != "lr"})


def _start(make: Make, scalars: Scalars) -> tuple[Params, Any]:
    params = example_params()
    return params, make(**scalars).init(params)


def _train(make: Make, hyper: PyTree, params: Params, steps: int) -> tuple[Params, Params]:
    """Parameters after each of the first, noisy updates, and after the last."""
    params = cast_floats(params, dtypes.at_least_float32(hyper["lr"]))

    def step(carry: Any, shift: Params) -> tuple[Any, Params]:
        grads = tree.add(gradient(carry[0]), shift)
        updates, state = _update(make)(carry, hyper, grads)
        params = tree.add(carry[0], updates)
        return (params, state), params

    start = params, _built(make, hyper).init(params)
    (last, _), path = jax.lax.scan(step, start, noise(params, NOISY_STEPS, steps))
    return jax.tree.map(lambda leaf: leaf[:NOISY_STEPS], path), last


@functools.lru_cache(maxsize=4)
def _training(make: Make) -> Callable[[PyTree], tuple[Params, Params]]:
    return lambda hyper: _train(make, hyper, example_params(), STEPS)


def _compiled_training(make: Make) -> Callable[[PyTree], tuple[Params, Params]]:
    return jax.jit(_training(make))


def _first_update(
    update: Callable[..., Any], make: Make, scalars: Scalars, lr: float, params: Params
) -> Params:
    state = make(**scalars).init(params)
    hyper = _traceable({"lr": lr, **scalars})
    return update((params, state), hyper, gradient(params))[0]


def _traceable(scalars: Mapping[str, float]) -> dict[str, Any]:
    return {name: jnp.float32(value) for name, value in scalars.items()}
