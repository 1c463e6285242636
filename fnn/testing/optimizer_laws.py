"""Laws of optimizers and of gradient transforms. `check_optimizer` runs all of them.

A law takes the constructor and its scalar hyperparameters, because they may be traced, by the vmap
of a sweep or the gradient of a hyperparameter. For an existing optimizer pass `lambda: optimizer`
and the scalars `{}`.
"""

import fnmatch
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import dtypes, tree
from fnn.dtypes import cast_floats
from fnn.testing._compare import entries, expect_all, expect_same, expect_same_specs, rows
from fnn.testing._given import dtypes_beyond_float32, expect_optimizer
from fnn.testing._quadratic import example_params, gradient, loss, noise, objective
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.gradients import gradients_match_finite_differences
from fnn.testing.laws import RTOL, arguments_are_kept, donation_is_safe, is_traced_alike
from fnn.types import Objective, Optimizer, Params, Transform

Make = Callable[..., Optimizer]
Scalars = Mapping[str, float]

LR = 0.05
NOISY_STEPS = 8  # enough for moments to build up
GRADIENT_STEPS = 20
STEPS = 200


def check_optimizer(make: Make | Optimizer, scalars: Scalars | None = None, **options: Any) -> None:
    """Runs all laws of an optimizer; the arguments are those of `optimizer_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.optim import sgd
    >>> check_optimizer(sgd)
    """
    check("check_optimizer", optimizer_laws(make, scalars, **options))


def optimizer_laws(
    make: Make | Optimizer,
    scalars: Scalars | None = None,
    *,
    lr: float = LR,
    leafwise: bool = True,
    decays: bool = False,
    draws: bool = False,
    linear_in_lr: bool = True,
    decay: str | None = None,
    undecayed: str | None = None,
    scale_invariant: bool = False,
    bias_corrected: bool = False,
    eps: str | None = None,
    accumulates: int | None = None,
    like: Make | Optimizer | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of an optimizer.

    Args:
      make: called as `make(**scalars)`, also with tracers for the values; or an optimizer. Those of
        optax become one by `fnn.interop.from_optax`.
      scalars: hyperparameters that may be traced, at values where training works.
      lr: a suitable learning rate.
      leafwise: whether the update of a leaf is independent of the other leaves.
      decays: whether it updates parameters with a gradient of zero.
      draws: whether it adds noise to each leaf, with a key folded from the path of the leaf.
      linear_in_lr: whether updates are proportional to the learning rate, with the same state.
      decay: the scalar that is decoupled weight decay: lr * decay * parameter is subtracted.
      undecayed: pattern of the paths of leaves that do not decay.
      scale_invariant: whether gradients times a constant give the same updates.
      bias_corrected: whether a constant gradient gives constant updates from the first step on.
      eps: the scalar that is added to the size of a gradient, and has its units.
      accumulates: this many steps are one update, of their mean gradient.
      like: a reference, with the same scalars.
      dtypes: those of parameters that are tried beside float32.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: a float32 state for bfloat16 parameters, and a
        loss that is halved in 200 steps.

    >>> from fnn.optim import sgd
    >>> optimizer_laws(sgd)[0]
    state_is_stable
    """
    where = "check_optimizer"
    make = _made_by(where, make, scalars)
    scalars = dict(scalars or {})
    house = policy == "fnn"
    laws = Battery(where, skip)
    extra = tuple(dtypes_beyond_float32(where, dtypes))
    laws.add(state_is_stable, make, scalars, bfloat16=house, dtypes=extra)
    laws.add(update_is_pure, make, scalars, lr=lr)
    laws.add(traced_equals_plain, make, scalars, lr=lr)
    laws.add(training_is_a_scan, make, scalars, lr=lr, factor=0.5 if house else 0.9999)
    laws.add(scalars_may_be_swept, make, scalars, lr=lr)
    laws.add(scalars_have_gradients, make, scalars, lr=lr)
    if not draws:
        laws.add(leaves_may_be_permuted, make, scalars, lr=lr)
    laws.add(containers_do_not_matter, make, scalars, lr=lr)
    laws.add(update_may_be_donated, make, scalars, lr=lr)
    laws.add(every_leaf_of_the_state_moves, make, scalars, lr=lr)
    if leafwise:
        laws.add(leaves_are_independent, make, scalars, lr=lr)
    if not (decays or draws or decay):
        laws.add(zero_gradient_changes_nothing, make, scalars, lr=lr)
        laws.add(updates_do_not_grow_without_gradient, make, scalars, lr=lr)
        laws.add(averages_of_constant_params_are_constant, make, scalars, lr=lr)
    if linear_in_lr and not draws:
        laws.add(update_is_linear_in_lr, make, scalars, lr=lr)
    if decay is not None:
        laws.add(decay_is_decoupled, make, scalars, decay, undecayed, lr=lr)
    if scale_invariant:
        laws.add(gradient_scale_does_not_matter, make, scalars, lr=lr)
    if bias_corrected:
        laws.add(constant_gradient_gives_constant_updates, make, scalars, decay, lr=lr)
    if eps is not None:
        laws.add(eps_has_the_units_of_a_gradient, make, scalars, eps, decay, lr=lr)
        if bias_corrected and scale_invariant:
            laws.add(eps_is_added_to_the_root, make, scalars, eps, decay, lr=lr)
    if accumulates is not None:
        laws.add(small_batches_equal_the_whole, make, scalars, accumulates, lr=lr)
    if like is not None:
        laws.add(updates_as_the_reference, make, scalars, _made_by(where, like, scalars), lr=lr)
    return laws.done()


def _made_by(where: str, make: Any, scalars: Scalars | None) -> Any:
    """The constructor: an optimizer itself stands for one without scalars."""
    if hasattr(make, "update") or not callable(make):
        expect_optimizer(where, make)
        if scalars:
            raise ValueError(
                f"{where}: expected a function that makes the optimizer from {', '.join(scalars)}, "
                "got an optimizer; pass the function, or no scalars"
            )
        return _constant(make)
    made = make(**(scalars or {}))
    expect_optimizer(where, made)
    return make


@functools.lru_cache(maxsize=32)
def _constant(optimizer: Optimizer) -> Make:
    return lambda: optimizer


def check_transform(
    make: Callable[..., Transform], scalars: Scalars | None = None, **options: Any
) -> None:
    """Runs all laws of a gradient transform; the arguments are those of `transform_laws`.

    >>> from fnn.optim import clip_by_value
    >>> check_transform(clip_by_value, {'max_value': 0.3})
    """
    check("check_transform", transform_laws(make, scalars, **options))


def transform_laws(
    make: Callable[..., Transform] | Transform,
    scalars: Scalars | None = None,
    *,
    leafwise: bool = False,
    max_norm: str | None = None,
    keeps_direction: bool = False,
    like: Any = None,
    skip: Skip = {},  # noqa: B006
    **options: Any,
) -> list[Law]:
    """The laws of a gradient transform: those of gradient descent by it, and its own.

    Args:
      make: called as `make(**scalars)`, or a transform.
      max_norm: the scalar that bounds the global norm of the gradients.
      keeps_direction: whether all gradients are multiplied by one positive number.
      like: a reference, with the same scalars.
      leafwise, skip, options: see `optimizer_laws`.

    >>> from fnn.optim import clip_by_global_norm
    >>> transform_laws(clip_by_global_norm, {'max_norm': 0.3}, max_norm='max_norm')[-1]
    keeps_the_norm_below
    """
    where = "check_transform"
    make = _made_by(where, make, scalars)
    given = dict(scalars or {})
    own = Battery(where, {n: r for n, r in skip.items() if n in TRANSFORM_LAWS})
    if keeps_direction:
        own.add(keeps_the_direction, make, given)
    if max_norm is not None:
        own.add(keeps_the_norm_below, make, given, max_norm)
    if like is not None:
        options["like"] = _descent(_made_by(where, like, scalars))
    return [
        *optimizer_laws(
            _descent(make),
            scalars,
            leafwise=leafwise,
            skip={n: r for n, r in skip.items() if n not in TRANSFORM_LAWS},
            **options,
        ),
        *own.done(),
    ]


TRANSFORM_LAWS = ("keeps_the_direction", "keeps_the_norm_below")


@functools.lru_cache(maxsize=8)
def _descent(make: Callable[..., Transform]) -> Make:
    return lambda **given: descend_by(make(**given))


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


def state_is_stable(
    make: Make, scalars: Scalars, *, bfloat16: bool = True, dtypes: Sequence[Any] = ()
) -> None:
    """An update keeps structure, shapes and dtypes of the state; updates match the parameters.

    A compiled loop is then traced once, and a scan accepts the state. Nothing is computed.

    Args:
      bfloat16: also for parameters in bfloat16, whose state is in float32.
      dtypes: others of the parameters.

    >>> from fnn.optim import sgd
    >>> state_is_stable(sgd, {})
    """
    optimizer = make(**scalars)
    for dtype in dict.fromkeys([jnp.float32, *dtypes, *[jnp.bfloat16] * bfloat16]):
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
            if bfloat16 and leaf.dtype == jnp.bfloat16:
                raise LawError(
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


def training_is_a_scan(
    make: Make, scalars: Scalars, *, lr: float = LR, factor: float = 0.5
) -> None:
    """A scan over updates agrees with a loop, and descends a quadratic.

    Args:
      factor: the loss after 200 updates is below this fraction of the first.

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
    if not last < factor * first:
        rule = "halve it" if factor == 0.5 else "lower it"
        raise LawError(
            f"{law}: {STEPS} updates took the loss of a convex quadratic from {first:.4g} to "
            f"{last:.4g}, and must {rule}; check the sign and size of the update"
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
            raise LawError(f"{law}: a tenth less of '{name}' changes nothing; use it")
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
    hyper, init = _traceable({"lr": lr, **scalars}), make(**scalars).init

    def start() -> Any:
        params = jax.tree.map(jnp.copy, example_params())
        return params, init(params)

    donation_is_safe(_update(make), start, hyper, gradient(example_params()))


def update_is_pure(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """An update changes no argument, and is the same program when it is traced again.

    >>> from fnn.optim import sgd
    >>> update_is_pure(sgd, {})
    """
    optimizer = make(**scalars)
    params = example_params()
    state = optimizer.init(params)
    grads = gradient(params)
    arguments_are_kept(optimizer.init, params)

    def update(grads: Params, state: Any, params: Params) -> Any:
        return _step(optimizer, grads, state, params, jnp.float32(lr))

    arguments_are_kept(update, grads, state, params)
    is_traced_alike(update, grads, state, params)


def every_leaf_of_the_state_moves(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Every array in the state changes within 25 updates, and so does one of its counters.

    Copies of the first parameters and other numbers may stay.

    >>> from fnn.optim import adam
    >>> every_leaf_of_the_state_moves(adam, {})
    """
    params, state = _start(make, scalars)
    hyper, first = _traceable({"lr": lr, **scalars}), state
    origins = [entries(p) for p in jax.tree.leaves(params)]
    moved = [False] * len(jax.tree.leaves(state))
    for i in range(25):
        grads = jax.tree.map(lambda g, i=i: g * jnp.float32(1 + i % 3), gradient(params))
        updates, state = _compiled(make)((params, state), hyper, grads)
        params = tree.add(params, updates)
        pairs = zip(moved, *map(jax.tree.leaves, (first, state)), strict=True)
        moved = [done or not np.array_equal(entries(a), entries(b)) for done, a, b in pairs]
        if all(moved):
            return
    counters: list[tuple[str, bool]] = []
    for (keys, leaf), done in zip(jax.tree.leaves_with_path(first), moved, strict=True):
        path, values = tree.path_of(keys), entries(leaf)
        if values.size == 1 and not np.issubdtype(values.dtype, np.floating):
            counters.append((path, done))
        if done or values.size < 2 or any(np.array_equal(values, p) for p in origins):
            continue
        raise LawError(
            f"every_leaf_of_the_state_moves: state '{path}' is the same after 25 updates; return "
            "the new state, or drop the leaf",
            leaf=path,
        )
    if counters and not any(done for _, done in counters):
        raise LawError(
            f"every_leaf_of_the_state_moves: counter '{counters[0][0]}' is the same after 25 "
            "updates; return the new one",
            leaf=counters[0][0],
        )


def update_is_linear_in_lr(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """With the same state and gradients, half the learning rate gives half the update.

    >>> from fnn.optim import sgd
    >>> update_is_linear_in_lr(sgd, {})
    """
    params, state = _trained(make, scalars, lr)
    grads = gradient(params)
    whole, half = (
        _compiled(make)((params, state), _traceable({"lr": rate, **scalars}), grads)[0]
        for rate in (lr, lr / 2)
    )
    expect_same(
        "update_is_linear_in_lr",
        jax.tree.map(lambda u: u / 2, whole),
        half,
        names=("half the update", "the update of half the learning rate"),
        rtol=1e-4,
        hint="multiply once by lr, decay included; or declare linear_in_lr=False",
    )


def _trained(make: Make, scalars: Scalars, lr: float, steps: int = 3) -> tuple[Params, Any]:
    """Parameters and state after some updates."""
    params, state = _start(make, scalars)
    for i in range(steps):
        grads = tree.add(gradient(params), rows(noise(params, NOISY_STEPS, STEPS), i))
        hyper = _traceable({"lr": lr, **scalars})
        updates, state = _compiled(make)((params, state), hyper, grads)
        params = tree.add(params, updates)
    return params, state


def updates_do_not_grow_without_gradient(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Once the gradients are zero, updates do not become larger than the last.

    >>> from fnn.optim import adam
    >>> updates_do_not_grow_without_gradient(adam, {})
    """
    params, state = _start(make, scalars)
    hyper, sizes = _traceable({"lr": lr, **scalars}), []
    grads = gradient(params)
    none = jax.tree.map(jnp.zeros_like, params)
    for i in range(30):
        updates, state = _compiled(make)((params, state), hyper, grads if i < 10 else none)
        params = tree.add(params, updates)
        sizes.append(max(float(np.abs(entries(u)).max()) for u in jax.tree.leaves(updates)))
    if not max(sizes[11:]) <= 1.05 * max(sizes[:11]) + 1e-12:
        raise LawError(
            f"updates_do_not_grow_without_gradient: the updates are up to {max(sizes[:11]):.4g} "
            f"with gradients, and up to {max(sizes[11:]):.4g} without; are decay rates swapped?"
        )


def averages_of_constant_params_are_constant(
    make: Make, scalars: Scalars, *, lr: float = LR
) -> None:
    """While parameters do not move, the weights for evaluation are the parameters.

    >>> from fnn.optim import sgd
    >>> averages_of_constant_params_are_constant(sgd, {})
    """
    params, state = _start(make, scalars)
    optimizer = make(**scalars)
    if not hasattr(optimizer, "weights"):
        return
    none = jax.tree.map(jnp.zeros_like, params)
    hyper = _traceable({"lr": lr, **scalars})
    for step in range(4):
        expect_same(
            f"averages_of_constant_params_are_constant, after {step} updates",
            params,
            optimizer.weights(state, params),
            names=("the parameters", "the weights for evaluation"),
            rtol=RTOL,
            hint="start the average at the parameters, or correct its bias",
        )
        _, state = _compiled(make)((params, state), hyper, none)


def decay_is_decoupled(
    make: Make, scalars: Scalars, decay: str, undecayed: str | None = None, *, lr: float = LR
) -> None:
    """The decay subtracts lr * decay * parameter, apart from the gradient, for three updates.

    Args:
      undecayed: pattern of the paths of leaves from which nothing is subtracted.

    >>> from fnn.optim import adamw
    >>> decay_is_decoupled(adamw, {'weight_decay': 0.1}, 'weight_decay')
    """
    if decay not in scalars:
        raise ValueError(f"check_optimizer: expected {decay!r} among the scalars, got {scalars}")
    with_decay = {**scalars, decay: scalars[decay] or 0.1}
    plain = {**scalars, decay: 0.0}
    for step in range(3):
        params, state = _trained(make, plain, lr, step)
        grads = gradient(params)
        one, none = (
            _compiled(make)((params, state), _traceable({"lr": lr, **given}), grads)[0]
            for given in (with_decay, plain)
        )

        def pulled(keys: Any, p: Any, update: Any) -> Any:
            if undecayed and fnmatch.fnmatchcase(tree.path_of(keys), undecayed):
                return update
            return update - jnp.float32(lr * with_decay[decay]) * p

        expect_same(
            f"decay_is_decoupled, at update {step}",
            jax.tree.map_with_path(pulled, params, none),
            one,
            names=("the update without decay minus lr * decay * parameter", "the update"),
            rtol=1e-4,
            hint="add the decay to the update and not to the gradient, once, times lr",
        )


def gradient_scale_does_not_matter(make: Make, scalars: Scalars, *, lr: float = LR) -> None:
    """Gradients times 1000 give the same parameters, for five updates.

    >>> from fnn.optim import lion
    >>> gradient_scale_does_not_matter(lion, {})
    """
    one, other = (_fed(make, scalars, lr, _gradients(5), factor)[0] for factor in (1.0, 1000.0))
    expect_same(
        "gradient_scale_does_not_matter",
        one,
        other,
        names=("the parameters", "those of gradients times 1000"),
        rtol=1e-3,
        hint="divide by the root of the second moment, and keep eps small",
    )


def _gradients(steps: int, seed: int = 2) -> list[Params]:
    """Random gradients of ordinary size for the example parameters."""
    generator = np.random.default_rng(seed)

    def leaf(p: Any) -> Any:
        draws = generator.normal(size=p.shape)
        return jnp.asarray(draws + 0.3 * np.sign(draws), p.dtype)

    return [jax.tree.map(leaf, example_params()) for _ in range(steps)]


def _fed(
    make: Make, scalars: Scalars, lr: float, gradients: list[Params], factor: float = 1.0
) -> tuple[Params, list[Params], Any]:
    """Parameters after updates with given gradients, all updates, and the state."""
    params, state = _start(make, scalars)
    hyper, updates = _traceable({"lr": lr, **scalars}), []
    for grads in gradients:
        scaled = jax.tree.map(lambda g: g * jnp.float32(factor), grads)
        update, state = _compiled(make)((params, state), hyper, scaled)
        params = tree.add(params, update)
        updates.append(update)
    return params, updates, state


def constant_gradient_gives_constant_updates(
    make: Make, scalars: Scalars, decay: str | None = None, *, lr: float = LR
) -> None:
    """With one gradient at each step, the first update is that of later steps.

    >>> from fnn.optim import adam
    >>> constant_gradient_gives_constant_updates(adam, {})
    """
    if decay is not None:
        scalars = {**scalars, decay: 0.0}
    _, updates, _ = _fed(make, scalars, lr, _gradients(1) * 12)
    for step in (1, 2, 11):
        expect_same(
            f"constant_gradient_gives_constant_updates, at update {step}",
            updates[0],
            updates[step],
            names=("the first update", "a later one"),
            rtol=2e-3,
            hint="divide each moment by 1 - decay^t, with t = 1 at the first update",
        )


def eps_has_the_units_of_a_gradient(
    make: Make, scalars: Scalars, eps: str, decay: str | None = None, *, lr: float = LR
) -> None:
    """Gradients and eps, both times a hundred, give the same updates.

    >>> from fnn.optim import adam
    >>> eps_has_the_units_of_a_gradient(adam, {'eps': 1e-8}, 'eps')
    """
    if decay is not None:
        scalars = {**scalars, decay: 0.0}
    one = _fed(make, {**scalars, eps: 0.1}, lr, _gradients(3))[1]
    other = _fed(make, {**scalars, eps: 10.0}, lr, _gradients(3), 100.0)[1]
    expect_same(
        "eps_has_the_units_of_a_gradient",
        one,
        other,
        names=("the updates", "those of gradients and eps times 100"),
        rtol=1e-4,
        hint="add eps after the square root",
    )


def eps_is_added_to_the_root(
    make: Make, scalars: Scalars, eps: str, decay: str | None = None, *, lr: float = LR
) -> None:
    """The first update is lr * g / (|g| + eps).

    >>> from fnn.optim import adam
    >>> eps_is_added_to_the_root(adam, {'eps': 1e-8}, 'eps')
    """
    given = {**scalars, eps: 0.5} | ({decay: 0.0} if decay else {})
    grads = _gradients(1)
    wanted = jax.tree.map(lambda g: -lr * g / (jnp.abs(g) + 0.5), grads[0])
    expect_same(
        "eps_is_added_to_the_root",
        wanted,
        _fed(make, given, lr, grads)[1][0],
        names=("lr g / (|g| + eps)", "the first update"),
        rtol=1e-4,
        hint="correct both moments before eps is added to the root",
    )


def small_batches_equal_the_whole(
    make: Make, scalars: Scalars, accumulates: int, *, lr: float = LR
) -> None:
    """Every k steps there is one update, that of the mean gradient; before, there is none.

    >>> from fnn.optim import accumulate, sgd
    >>> small_batches_equal_the_whole(lambda: accumulate(sgd(), steps=2), {}, 2)
    """
    law = "small_batches_equal_the_whole"
    gradients = _gradients(3 * accumulates)
    parts = _fed(make, scalars, lr, gradients)
    means: list[Params] = []
    for i in range(0, len(gradients), accumulates):
        group = gradients[i : i + accumulates]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *group)
        means += [mean] * accumulates
    whole = _fed(make, scalars, lr, means)
    expect_same(
        law,
        whole[0],
        parts[0],
        names=("of the mean gradient", "of its parts"),
        rtol=1e-4,
        hint="divide the sum by the number of parts, and reset it after each update",
    )
    for step, update in enumerate(parts[1]):
        still = all(not np.any(entries(u)) for u in jax.tree.leaves(update))
        if still != ((step + 1) % accumulates != 0):
            raise LawError(
                f"{law}: step {step} has {'no ' * still}update; update after each {accumulates}"
            )


def updates_as_the_reference(make: Make, scalars: Scalars, like: Make, *, lr: float = LR) -> None:
    """Parameters and weights are those of the reference, for gradients of several kinds.

    >>> from fnn.optim import sgd
    >>> updates_as_the_reference(sgd, {}, sgd)
    """
    law = "updates_as_the_reference"
    some = _gradients(12)
    none = [jax.tree.map(jnp.zeros_like, g) for g in some[:3]]
    kinds = {"gradients": (some, 1.0), "small gradients": (some, 1e-4), "large ones": (some, 30.0)}
    kinds["gradients that become zero"] = (some[:3] + none, 1.0)
    for rate in (lr, 0.3 * lr):
        for what, (gradients, factor) in kinds.items():
            ours, theirs = (_fed(f, scalars, rate, gradients, factor) for f in (make, like))
            first = example_params()
            moved = [jax.tree.map(jnp.subtract, f[0], first) for f in (theirs, ours)]
            expect_same(
                f"{law} for {what}",
                *moved,
                names=("the reference", "the optimizer"),
                rtol=2e-3,
                hint="compare the formula with the paper: moments, corrections, eps, decay",
            )
    weights = [
        jax.tree.map(
            jnp.subtract, getattr(f(**scalars), "weights", _own)(fed[2], fed[0]), example_params()
        )
        for f, fed in ((like, _fed(like, scalars, lr, some)), (make, _fed(make, scalars, lr, some)))
    ]
    expect_same(
        f"{law} in the weights for evaluation",
        *weights,
        names=("the reference", "the optimizer"),
        rtol=2e-3,
        hint="compare the average: its start, factor and correction",
    )


def _own(state: Any, params: Params) -> Params:
    return params


def keeps_the_direction(make: Callable[..., Transform], scalars: Scalars) -> None:
    """All gradients are multiplied by one positive number.

    >>> from fnn.optim import clip_by_global_norm
    >>> keeps_the_direction(clip_by_global_norm, {'max_norm': 0.1})
    """
    transform, params = make(**scalars), example_params()
    for factor in (0.01, 1.0, 100.0):
        grads = jax.tree.map(lambda g, f=factor: g * jnp.float32(f), _gradients(1)[0])
        found, _ = transform.update(grads, transform.init(params), params)
        norms = [
            np.sqrt(sum(np.sum(entries(g) ** 2) for g in jax.tree.leaves(t)))
            for t in (grads, found)
        ]
        wanted = jax.tree.map(lambda g, r=norms[1] / norms[0]: g * jnp.float32(r), grads)
        expect_same(
            "keeps_the_direction",
            wanted,
            found,
            names=("the gradients times one number", "the result"),
            rtol=1e-4,
            hint="use one norm of all leaves together, and multiply each by the same factor",
        )


def keeps_the_norm_below(make: Callable[..., Transform], scalars: Scalars, max_norm: str) -> None:
    """The norm of all gradients is at most the bound; below it nothing changes; zero stays zero.

    >>> from fnn.optim import clip_by_global_norm
    >>> keeps_the_norm_below(clip_by_global_norm, {'max_norm': 0.1}, 'max_norm')
    """
    law, bound = "keeps_the_norm_below", scalars[max_norm]
    transform, params = make(**scalars), example_params()
    base = _gradients(1)[0]
    size = np.sqrt(sum(np.sum(entries(g) ** 2) for g in jax.tree.leaves(base)))
    for ratio in (0.0, 0.5, 0.99, 1.01, 2.0, 1000.0):
        grads = jax.tree.map(lambda g, r=ratio: g * jnp.float32(r * bound / size), base)
        found, _ = transform.update(grads, transform.init(params), params)
        norm = np.sqrt(sum(np.sum(entries(g) ** 2) for g in jax.tree.leaves(found)))
        if not norm <= bound * (1 + 1e-4):
            raise LawError(
                f"{law}: gradients of norm {ratio * bound:.4g} become {norm:.4g}, and must be at "
                f"most {bound:.4g}; take the norm over all leaves",
                expected=bound,
                got=norm,
            )
        if not abs(norm - min(ratio, 1) * bound) <= 1e-3 * bound:
            raise LawError(
                f"{law}: gradients of norm {ratio * bound:.4g} become {norm:.4g}, and must be "
                f"{min(ratio, 1) * bound:.4g}",
                expected=min(ratio, 1) * bound,
                got=norm,
            )


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
