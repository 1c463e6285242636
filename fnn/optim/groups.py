"""Several optimizers for one model, each with its own leaves, chosen by path."""

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from fnn import show, tree
from fnn.expect import expect_alike
from fnn.optim._base import common_steps_per_update, expect_unscaled
from fnn.types import Objective, Optimizer, Params

Flat = dict[str, Any]  # {path: leaf}
Groups = dict[str, list[str]]  # {name of a group: paths of its leaves}


def partition(optimizers: Mapping[str, Optimizer], label: Callable[[str, Any], str]) -> Optimizer:
    """One optimizer for each group of leaves, with a function that names the group of a leaf.

    Each optimizer receives a flat dict {path: leaf} of its own leaves, so masks by path work. Its
    objective is a function of these, with all other leaves fixed.

    Args:
      optimizers: by the name of their group. A group may be empty.
      label: `(path, leaf) -> name`; may use the leaf's shape and dtype, not its values.

    State: {name: the state of its optimizer}, for the groups that have leaves.
    Raises: ValueError for an unknown name, for two leaves with one path, for an optimizer with a
      loss scale (put it around the partition), and for optimizers that accumulate over different
      numbers of steps.

    >>> from fnn.optim import sgd
    >>> opt = partition({'matrices': sgd(), 'rest': frozen()},
    ...                 lambda path, leaf: 'matrices' if leaf.ndim == 2 else 'rest')
    >>> params = {'bias': jnp.ones(1), 'kernel': jnp.ones((1, 1))}
    >>> updates, _ = opt.update(params, opt.init(params), params, 0.5)
    >>> jax.tree.map(jnp.sum, updates)['kernel'].item(), updates['bias'].item()
    (-0.5, 0.0)
    """

    def assign(flat: Flat) -> Groups:
        members: Groups = {name: [] for name in optimizers}
        for path, leaf in flat.items():
            name = label(path, leaf)
            if name not in members:
                raise ValueError(
                    f"partition: expected one of the groups {list(members)} for the leaf {path!r}, "
                    f"got {name!r}; name an optimizer for it"
                )
            members[name].append(path)
        return members

    return by_group("partition", optimizers, assign)


def groups(optimizers: Mapping[str, Optimizer]) -> Optimizer:
    """One optimizer for each path pattern; a leaf belongs to the first pattern that it matches.

    Args:
      optimizers: by pattern, as in `tree.matching`: `*` stands for any characters. Order counts.

    State: {pattern: the state of its optimizer, over a flat dict of its leaves}.
    Raises: ValueError, in init and update, for a leaf that matches no pattern, and for a pattern
      without a leaf.

    >>> from fnn.optim import adam, sgd
    >>> opt = groups({'head/*': sgd(), '*bias': frozen(), '*': adam()})
    >>> w = jnp.ones(2)
    >>> params = {'body': {'bias': w, 'kernel': w}, 'head': {'bias': w}}
    >>> state = opt.init(params)
    >>> tree.paths(state['*'])
    ['step', 'm/body/kernel', 'v/body/kernel']
    >>> opt.update(params, state, params, 0.5)[0]['head']['bias'].tolist()
    [-0.5, -0.5]
    """
    return by_group("groups", optimizers, lambda flat: _first_matches(list(optimizers), flat))


def frozen() -> Optimizer:
    """Leaves the parameters unchanged, without state; no gradient is computed for them.

    State: ().

    >>> frozen().update({'w': jnp.ones(1)}, (), {'w': jnp.ones(1)}, 0.1)[0]['w'].tolist()
    [0.0]
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        expect_alike("frozen: params and grads", params, grads)
        return tree.zeros_like(params), state

    return Optimizer(init=lambda params: (), update=update, trained=_no_leaf)


def _no_leaf(params: Params) -> PyTree:
    return jax.tree.map(lambda _: False, params)


def freeze(optimizer: Optimizer, *patterns: str) -> Optimizer:
    """`optimizer` for the leaves whose path matches none of `patterns`; the others are fixed.

    Fixed leaves have no optimizer state, and no gradient is computed for them: it counts as 0 in
    norms, clips and measures.

    Raises: ValueError, in init and update, for a pattern that matches no leaf.

    >>> from fnn.optim import adam
    >>> opt = freeze(adam(), 'body/*')
    >>> tree.paths(opt.init({'body': {'w': jnp.ones(9)}, 'head': jnp.ones(2)}))
    ['trained/step', 'trained/m/head', 'trained/v/head']
    """
    optimizers = {"trained": optimizer, "frozen": frozen()}
    return by_group("freeze", optimizers, split_by(tree.matching(*patterns), "frozen", "trained"))


def groups_table(optimizers: Mapping[str, Optimizer], params: Params) -> str:
    """A table of the leaves, parameters and state that `groups` assigns to each pattern.

    Args:
      params: arrays or ShapeDtypeStructs; nothing is computed.

    Raises: ValueError, as `groups` does.

    >>> from fnn.optim import adam
    >>> params = {'body': jnp.zeros((300, 5)), 'head': {'bias': jnp.zeros(2), 'w': jnp.zeros(8)}}
    >>> print(groups_table({'body': frozen(), '*': adam()}, params))
    pattern  leaves  parameters  state bytes
    body          1       1,500            0
    *             2          10           84
    """
    flat = _flat("groups_table", params)
    rows: list[tuple[str, ...]] = [("pattern", "leaves", "parameters", "state bytes")]
    for pattern, paths in _first_matches(list(optimizers), flat).items():
        part = {path: flat[path] for path in paths}
        state = jax.eval_shape(optimizers[pattern].init, part)
        held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        rows.append((pattern, f"{len(part):,}", f"{tree.count(part):,}", f"{held:,}"))
    return show.table(rows)


def split_by(mask: tree.Mask, marked: str, rest: str) -> Callable[[Flat], Groups]:
    """The assignment of the leaves marked by the mask to one group, and of the rest to another."""

    def assign(flat: Flat) -> Groups:
        marks = mask(flat)
        return {marked: [p for p in flat if marks[p]], rest: [p for p in flat if not marks[p]]}

    return assign


def by_group(
    where: str, optimizers: Mapping[str, Optimizer], assign: Callable[[Flat], Groups]
) -> Optimizer:
    """Each optimizer on a flat dict of the leaves that `assign` gives to its name.

    Args:
      where: prefix of its error messages.
      assign: `{path: leaf} -> {name: paths}`, with every path once.
    """
    expect_unscaled(where, *optimizers.values())

    def parts(params: Params) -> dict[str, Flat]:
        flat = _flat(where, params)
        members = {name: paths for name, paths in assign(flat).items() if paths}
        return {name: {path: flat[path] for path in paths} for name, paths in members.items()}

    def init(params: Params) -> dict[str, Any]:
        return {name: optimizers[name].init(part) for name, part in parts(params).items()}

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        expect_alike(f"{where}: params and grads", params, grads)
        flat = _flat(where, grads)
        updates: Flat = {}
        new: dict[str, Any] = {}
        for name, part in parts(params).items():
            part_grads = {path: flat[path] for path in part}
            part_updates, new[name] = optimizers[name].update(
                part_grads, state[name], part, lr, _part_of(objective, params, part)
            )
            updates |= part_updates
        return _like(params, updates), new

    def weights(state: Any, params: Params) -> Params:
        used: Flat = {}
        for name, part in parts(params).items():
            used |= optimizers[name].weights(state[name], part)
        return _like(params, used)

    def trained(params: Params) -> PyTree:
        marks: Flat = {}
        for name, part in parts(params).items():
            marks |= optimizers[name].trained(part)
        return _like(params, marks)

    moving = [one for one in optimizers.values() if one.trained is not _no_leaf]
    steps = common_steps_per_update(where, *moving)
    return Optimizer(init, update, weights, trained=trained, steps_per_update=steps)


def _part_of(objective: Objective | None, params: Params, part: Flat) -> Objective | None:
    """The loss as a function of some of the leaves, with the others at `params`."""
    if objective is None:
        return None
    whole = objective  # for the type checker: not None inside the function below

    def at(moved: Flat) -> tuple[Any, Flat]:
        flat = dict(zip(tree.paths(params), jax.tree.leaves(params), strict=True))
        value, grads = whole.at(_like(params, flat | moved))
        every = dict(zip(tree.paths(params), jax.tree.leaves(grads), strict=True))
        return value, {path: every[path] for path in part}

    return Objective(objective.value, at)


def _flat(where: str, params: Params) -> Flat:
    names = tree.paths(params)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"{where}: expected a path of its own for each leaf, got {twice} twice; use no '/' in "
            "the names of parameters"
        )
    return dict(zip(names, jax.tree.leaves(params), strict=True))


def _like(params: Params, flat: Flat) -> Params:
    return jax.tree.unflatten(jax.tree.structure(params), [flat[p] for p in tree.paths(params)])


def _first_matches(patterns: list[str], flat: Flat) -> Groups:
    members: Groups = {pattern: [] for pattern in patterns}
    for path in flat:
        first = next((p for p in patterns if fnmatch.fnmatchcase(path, p)), None)
        if first is None:
            raise ValueError(
                f"groups: expected a pattern for every leaf, got none for {path!r} among "
                f"{patterns}; end with '*' to catch the rest, with frozen() to keep it fixed"
            )
        members[first].append(path)
    for pattern in [pattern for pattern in patterns if not members[pattern]]:
        taken = fnmatch.filter(flat, pattern)
        raise ValueError(
            f"groups: expected {pattern!r} to get a leaf, got none among {list(flat)}; "
            + (f"move it before those that take {taken}" if taken else "correct the pattern")
        )
    return members
