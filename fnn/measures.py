"""Measures: pure functions from the values of a training step to what it records.

A measure maps a `StepView` to named scalars or small vectors; values that no measure reads are not
computed. A recipe lists them: `Recipe(..., measures=(norms, every(10, grad_norms_by_layer)))`.
Metrics of the outputs, such as accuracy, go into `Recipe.train_metrics`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from fnn import dtypes, tree
from fnn._arguments import check_exports
from fnn.autodiff import safe_sqrt
from fnn.types import Measure, Params, StatefulMeasure, StepView

Named = dict[str, Any]  # name -> JAX array, or NumPy array on the host
Recorded = dict[int, Named]  # n -> the values that are measured every n steps


def norms(view: StepView) -> Named:
    """Global L2 norms: 'grad_norm' (before clipping), 'update_norm', 'param_norm' (after the step).

    The default of `Recipe.measures`. Norms above 1e19 are infinite and norms below 1e-19 are 0,
    because their squares are in float32. Leaves that the optimizer does not train have gradient 0.

    >>> of = lambda *w: {'w': jnp.array(w)}
    >>> view = StepView(*[None] * 6, grads=of(3.0, 4.0), updates=of(0.0, 0.0), params=of(1.0, 1.0),
    ...                 model_state=())
    >>> {name: round(float(value), 3) for name, value in norms(view).items()}
    {'grad_norm': 5.0, 'update_norm': 0.0, 'param_norm': 1.414}
    """
    squares = tree.squared_norms(view.grads, view.updates, view.params)
    grad_norm, update_norm, param_norm = safe_sqrt(squares)
    return {"grad_norm": grad_norm, "update_norm": update_norm, "param_norm": param_norm}


def grad_norms_by_layer(view: StepView) -> Named:
    """'grad_norms_by_layer': the L2 norm of each layer's gradient, (layers,).

    A layer is the leaves with the same parent path, in the order of `layer_names(params)`.

    >>> grads = {'a': {'kernel': jnp.array([3.0]), 'bias': jnp.array([4.0])}, 'b': [jnp.ones(1)]}
    >>> view = StepView(*[None] * 6, grads=grads, updates=None, params=None, model_state=())
    >>> grad_norms_by_layer(view)['grad_norms_by_layer'].tolist()
    [5.0, 1.0]
    """
    return {"grad_norms_by_layer": _norms_by_layer(view.grads)}


def update_ratios_by_layer(view: StepView) -> Named:
    """'update_ratios_by_layer': norm of each layer's update over that of its parameters, (layers,).

    In the order of `layer_names(params)`; about 1e-3 in healthy training; 0 for parameters of 0.

    >>> of = lambda x: {'a': {'bias': jnp.array([x])}}
    >>> view = StepView(*[None] * 6, grads=None, updates=of(0.5), params=of(2.0), model_state=())
    >>> update_ratios_by_layer(view)['update_ratios_by_layer'].tolist()
    [0.25]
    """
    updates, params = _norms_by_layer(view.updates), _norms_by_layer(view.params)
    return {"update_ratios_by_layer": updates / jnp.where(params > 0, params, jnp.inf)}


def layer_names(params: Params) -> list[str]:
    """Paths of a model's layers, the parents of its leaves, in the order of the leaves.

    >>> layer_names({'head': {'bias': 0.0, 'kernel': 1.0}, 'hidden': [{'kernel': 2.0}]})
    ['head', 'hidden/0']
    """
    return list(_by_layer(params))


def _by_layer(values: PyTree) -> dict[str, list[Any]]:
    layers: dict[str, list[Any]] = {}
    for path, leaf in zip(tree.paths(values), jax.tree.leaves(values), strict=True):
        layers.setdefault(path.rpartition("/")[0], []).append(leaf)
    return layers


def _norms_by_layer(values: PyTree) -> Array:
    return jnp.stack([tree.global_norm(leaves) for leaves in _by_layer(values).values()])


class Every(NamedTuple):
    """A measure of every n-th step; made by `every`."""

    steps: int
    measure: Measure | StatefulMeasure


def every(steps: int, measure: Measure | StatefulMeasure) -> Every:
    """`measure` at steps 0, n, 2n, ... only; it is not computed at other steps.

    A `History` has an entry per measured step, see `history.steps(name)`. The metrics of an
    unmeasured step hold NaN (0 under `jax_debug_nans`).

    Args:
      steps: n, at least 1; static.

    >>> every(10, norms).steps
    10
    """
    return Every(steps, measure)


def init_states(measures: Sequence[Measure | StatefulMeasure | Every], params: Params) -> PyTree:
    """The initial `TrainState.measure_state`: one state per measure, or () if none has memory.

    >>> init_states((norms,), {'w': jnp.ones(2)})
    ()
    """
    states = tuple(_stateful(measure)[1].init(params) for measure in measures)
    return states if jax.tree.leaves(states) else ()


def record(
    measures: Sequence[Measure | StatefulMeasure | Every],
    states: PyTree,
    view: StepView,
    always: Mapping[str, Array],
) -> tuple[Recorded, PyTree]:
    """Evaluates all measures at a step.

    Returns: the entries of `always` and of the measures, and the new states of the measures.
    Raises: ValueError for two entries of the same name.

    >>> of = lambda *w: {'w': jnp.array(w)}
    >>> view = StepView(*[None] * 6, grads=of(3.0, 4.0), updates=of(0.0, 0.0), params=of(1.0, 1.0),
    ...                 model_state=())
    >>> recorded, states = record((norms,), (), view, {'loss': jnp.float32(0.5)})
    >>> sorted(recorded[1]), states
    (['grad_norm', 'loss', 'param_norm', 'update_norm'], ())
    """
    recorded: Recorded = {1: dict(always)}
    after = []
    for i, (steps, measure) in enumerate(map(_stateful, measures)):
        named, state = _measure(steps, measure, states[i] if states else (), view)
        taken = {*flat(recorded), "penalty", "step", "valid"}  # the last two in metrics.jsonl
        if twice := sorted(taken & named.keys()):
            raise ValueError(
                f"Recipe.measures: expected names of their own, got {twice} twice; rename them"
            )
        recorded.setdefault(steps, {}).update(named)
        after.append(state)
    return recorded, tuple(after) if jax.tree.leaves(after) else ()


def flat(recorded: Recorded) -> Named:
    """All recorded values by name.

    >>> flat({1: {'loss': 0.5}, 10: {'norms': 2.0}})
    {'loss': 0.5, 'norms': 2.0}
    """
    return {name: value for named in recorded.values() for name, value in named.items()}


def measured(recorded: Recorded, first: int, length: int) -> tuple[Named, Named]:
    """Selects the measured steps from the stacked records of steps first, ..., first + length - 1.

    Returns: values by name; and the steps of those that are not measured at every step.

    >>> recorded = {1: {'loss': np.arange(5.0)}, 2: {'norm': np.arange(5.0)}}
    >>> train, steps = measured(recorded, 3, 5)   # the steps 3, 4, ..., 7
    >>> train['norm'].tolist(), steps['norm'].tolist()
    ([1.0, 3.0], [4, 6])
    """
    train: Named = {}
    steps: Named = {}
    for n, named in recorded.items():
        own = slice(-first % n, length, n)
        train |= {name: values[own] for name, values in named.items()}
        if n > 1:
            steps |= dict.fromkeys(named, np.arange(first, first + length, dtype=np.int32)[own])
    return train, steps


def _stateful(measure: Measure | StatefulMeasure | Every) -> tuple[int, StatefulMeasure]:
    steps, measure = measure if isinstance(measure, Every) else (1, measure)
    if isinstance(measure, StatefulMeasure):
        return steps, measure
    return steps, StatefulMeasure(lambda params: (), lambda state, view: (measure(view), state))


def _measure(
    steps: int, measure: StatefulMeasure, state: PyTree, view: StepView
) -> tuple[Named, PyTree]:
    def run() -> tuple[Named, PyTree]:
        named, new = measure.update(state, view)
        return dtypes.wide(dict(named)), new

    def skip() -> tuple[Named, PyTree]:
        shapes, _ = jax.eval_shape(run)
        return jax.tree.map(lambda a: jnp.full(a.shape, dtypes.missing(), a.dtype), shapes), state

    return run() if steps == 1 else lax.cond(view.step % steps == 0, run, skip)


check_exports(__name__)
