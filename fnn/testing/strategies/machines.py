"""Stateful tests: random programs of updates, saves and restores, and what must hold after each.

A factory returns a class of hypothesis. pytest collects its `TestCase`, and
`hypothesis.stateful.run_state_machine_as_test` runs it:

    TestMyOptimizer = optimizer_machine(my_optimizer).TestCase

A failure shrinks to the shortest program that has it. All programs of a class call the same
compiled functions, so that a machine compiles once however many programs it runs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import stateful as hm

from fnn import tree
from fnn._messages import is_key
from fnn.testing import tolerance
from fnn.testing._compare import expect_all, expect_same, expect_same_specs, fresh
from fnn.testing.battery import LawError
from fnn.testing.strategies.values import arrays, gradients, trees
from fnn.types import Optimizer, Params

Machine = type[hm.RuleBasedStateMachine]
Copy = Callable[[Any], Any]

PARAMS: dict[str, Any] = {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
LARGE, TINY = 1e4, 1e-8
RTOL = 1e-6  # of the largest entry: a few roundings
PROGRAMS, RULES = 20, 12  # of a run; of a program


def optimizer_machine(
    make_optimizer: Callable[[], Optimizer] | Optimizer,
    params: Params = PARAMS,
    *,
    lr: float = 0.05,
    save: Copy | None = None,
    load: Copy | None = None,
) -> Machine:
    """A machine that updates parameters with all kinds of gradients, saves and restores.

    Rules: an update with gradients that are ordinary, zero, large, tiny, or those of the update
    before; save; restore what was saved, at once or later. After every rule:

    - parameters and state are finite and keep structure, shapes and dtypes;
    - the compiled update agrees with the plain one, which changes none of its arguments;
    - at the end, the same gradients from a new state give the same parameters and state, bitwise.

    The machine has 20 programs of up to 12 rules; set `Machine.TestCase.settings` for others.

    Args:
      make_optimizer: called once without arguments; or an optimizer.
      params: the initial parameters.
      lr: learning rate of all updates.
      save, load: from `(params, state)` to what is saved and back; by default copies.

    >>> from fnn.optim import sgd
    >>> hm.run_state_machine_as_test(optimizer_machine(sgd), settings=settings(
    ...     max_examples=2, stateful_step_count=3, deadline=None))
    """
    optimizer: Any = make_optimizer if hasattr(make_optimizer, "update") else make_optimizer()
    compiled = jax.jit(lambda grads, state, params: optimizer.update(grads, state, params, lr))
    start = jax.tree.map(jnp.asarray, params)
    ordinary = trees(jax.tree.map(lambda p: arrays(np.shape(p), p.dtype), start))
    to_saved, from_saved = save or copied, load or copied

    def plain(grads: Params, params: Params, state: Any) -> tuple[Params, Any]:
        updates, state = optimizer.update(grads, state, params, lr)
        return tree.add(params, updates), state

    class OptimizerMachine(hm.RuleBasedStateMachine):
        saves: Any = hm.Bundle("saves")

        def __init__(self) -> None:
            super().__init__()
            self.params, self.state = start, optimizer.init(start)
            self.history: list[Params] = []
            self.is_broken = False

        def apply(self, grads: Params) -> None:
            self.is_broken = True  # until all laws hold
            grads = jax.tree.map(lambda g, p: jnp.asarray(g, p.dtype), grads, start)
            before = copied((grads, self.state, self.params))
            traced = compiled(*before)
            updates, state = optimizer.update(grads, self.state, self.params, lr)
            expect_same(
                "optimizer_machine",
                before,
                (grads, self.state, self.params),
                names=("an argument of update", "after it"),
                hint="return a new state, and change nothing in place",
            )
            _expect_traced_alike((updates, state), traced, compiled, before)
            for name, old, new in (
                ("params", self.params, tree.add(self.params, updates)),
                ("state", self.state, state),
            ):
                expect_same_specs(
                    f"optimizer_machine: {name}",
                    old,
                    new,
                    names=("before an update", "after it"),
                    hint="keep structure and dtypes",
                )
            self.params, self.state = tree.add(self.params, updates), state
            self.history = [*self.history, grads]
            self.is_broken = False

        @hm.rule(grads=gradients(start))
        def update(self, grads: Any) -> None:
            self.apply(grads)

        @hm.rule()
        def update_with_zeros(self) -> None:
            self.apply(jax.tree.map(jnp.zeros_like, start))

        @hm.rule(grads=ordinary)
        def update_with_large_gradients(self, grads: Any) -> None:
            self.apply(_times(grads, LARGE))

        @hm.rule(grads=ordinary)
        def update_with_tiny_gradients(self, grads: Any) -> None:
            self.apply(_times(grads, TINY))

        @hm.precondition(lambda self: self.history)
        @hm.rule()
        def update_again(self) -> None:
            self.apply(self.history[-1])

        @hm.rule(target=saves)
        def save(self) -> Any:
            return _Saved(to_saved((self.params, self.state)), self.history)

        @hm.rule(saved=saves)
        def restore(self, saved: Any) -> None:
            (self.params, self.state), self.history = from_saved(saved.value), saved.history

        @hm.rule()
        def save_and_restore(self) -> None:
            self.params, self.state = from_saved(to_saved((self.params, self.state)))

        @hm.invariant()
        def is_finite(self) -> None:
            expect_all(
                "optimizer_machine",
                {"params": self.params, "state": self.state},
                np.isfinite,
                rule="must be finite",
                hint="look for divisions by zero and squares that overflow",
            )

        def teardown(self) -> None:
            if self.is_broken:  # an error here would hide the first
                return
            params, state = start, optimizer.init(start)
            for grads in self.history:
                params, state = plain(grads, params, state)
            expect_same(
                "optimizer_machine",
                {"params": params, "state": state},
                {"params": self.params, "state": self.state},
                names=("a new run with the same gradients", "this run"),
                hint="look for state outside of update, and for what a save drops",
            )

    return _finished(OptimizerMachine)


def training_machine(
    step: Callable[..., Any],
    make_state: Callable[[], Any],
    batches: Sequence[Any],
    key: Any = None,
    hyper: Any = None,
    *,
    save: Copy | None = None,
    load: Copy | None = None,
    jit: bool = True,
) -> Machine:
    """A machine that trains, saves, resumes and repeats steps.

    Rules: a step with the next batch; the same by a second compilation; a repeat of the last step;
    save; resume from a save, at once or later. After every rule the state is bitwise that of an
    uninterrupted run of as many steps, and a step changes none of its arguments. The batches are
    taken in turn.

    The machine has 20 programs of up to 12 rules; set `Machine.TestCase.settings` for others.

    Args:
      step: `step(state, batch[, key][, hyper]) -> state, metrics`; it may donate the state.
      make_state: makes a new state, equal each time.
      key, hyper: passed to every step, where given.
      save, load: from a state to what is saved and back; by default copies.
      jit: whether to compile the step. False for Python around compiled parts.

    >>> def step(state, batch):
    ...     loss, slope = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(state['w'])
    ...     return {'w': state['w'] - 0.1 * slope}, {'loss': loss}
    >>> machine = training_machine(step, lambda: {'w': jnp.zeros(())}, [jnp.arange(3.0)])
    >>> hm.run_state_machine_as_test(machine, settings=settings(
    ...     max_examples=2, stateful_step_count=3, deadline=None))
    """
    # JAX finds what it has traced by the function: a second trace needs another one.
    first, second = (jax.jit(functools.partial(_called, step)) if jit else step for _ in range(2))
    to_saved, from_saved = save or copied, load or copied
    uninterrupted = [copied(make_state())]  # after 0, 1, ... steps

    def advance(step: Callable[..., Any], state: Any, n: int) -> Any:
        args = (
            batches[n % len(batches)],
            *[key] * (key is not None),
            *[hyper] * (hyper is not None),
        )
        before = copied((state, args))
        new, _ = step(state, *fresh(args))
        if not _is_donated(state):
            expect_same(
                "training_machine",
                before,
                (state, args),
                names=("an argument of the step", "after it"),
                hint="return a new state, and change nothing in place",
            )
        return new

    def after(n: int) -> Any:
        while len(uninterrupted) <= n:
            done = len(uninterrupted) - 1
            uninterrupted.append(copied(advance(first, copied(uninterrupted[done]), done)))
        return uninterrupted[n]

    class TrainingMachine(hm.RuleBasedStateMachine):
        saves: Any = hm.Bundle("saves")

        def __init__(self) -> None:
            super().__init__()
            self.n, self.state, self.before = 0, make_state(), None

        def advance_by(self, step: Callable[..., Any]) -> None:
            self.before = copied(self.state)
            self.state = advance(step, self.state, self.n)
            self.n += 1

        @hm.rule()
        def step(self) -> None:
            self.advance_by(first)

        @hm.rule()
        def step_compiled_anew(self) -> None:
            self.advance_by(second)

        @hm.precondition(lambda self: self.before is not None)
        @hm.rule()
        def repeat_the_step(self) -> None:
            self.state = advance(first, copied(self.before), self.n - 1)

        @hm.rule(target=saves)
        def save(self) -> Any:
            return _Saved(to_saved(self.state), self.n)

        @hm.rule(saved=saves)
        def resume(self, saved: Any) -> None:
            self.state, self.n, self.before = from_saved(saved.value), saved.history, None

        @hm.rule()
        def save_and_resume(self) -> None:
            self.state = from_saved(to_saved(self.state))

        @hm.invariant()
        def state_depends_on_the_number_of_steps_only(self) -> None:
            expect_same(
                "training_machine",
                after(self.n),
                self.state,
                names=(f"an uninterrupted run of {self.n} steps", "this run"),
                hint="look for state outside of the step, and for what a save drops",
            )

    return _finished(TrainingMachine)


def _expect_traced_alike(plain: Any, traced: Any, compiled: Callable[..., Any], args: Any) -> None:
    """Compares the results of the plain and the compiled update as closely as rounding allows."""
    compare = functools.partial(
        expect_same,
        "optimizer_machine",
        plain,
        traced,
        names=("plain", "jit"),
        hint="look for state outside of update, such as a counter",
    )
    try:
        compare(rtol=RTOL)
    except LawError:  # either a bug, or arguments at which the update is ill-conditioned
        compare(allowed=tolerance.of(compiled, *args))


class _Saved:
    """What was saved, and where in the run; hypothesis shows it by its name only."""

    def __init__(self, value: Any, history: Any):
        self.value, self.history = value, history


def _finished(machine: Machine) -> Machine:
    test: Any = machine.TestCase
    test.settings = settings(
        deadline=None,
        max_examples=PROGRAMS,
        stateful_step_count=RULES,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return machine


def copied(values: Any) -> Any:
    """A copy in memory of its own, with containers of its own; keys are cloned.

    >>> x = {'n': np.zeros(2)}
    >>> y = copied(x)
    >>> x['n'][0] = 1
    >>> y
    {'n': array([0., 0.])}
    """

    def leaf(value: Any) -> Any:
        if is_key(value):
            return jax.random.clone(value)
        return value.copy() if isinstance(value, (jax.Array, np.ndarray)) else value

    return jax.tree.map(leaf, values)


def _called(step: Callable[..., Any], *args: Any) -> Any:
    return step(*args)


def _is_donated(state: Any) -> bool:
    return any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(state))


def _times(grads: Params, factor: float) -> Params:
    return jax.tree.map(lambda g: (np.float32(g) * np.float32(factor)).astype(g.dtype), grads)
