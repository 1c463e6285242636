"""Weights by other names: tables of rules, read in both directions.

A rule says which arrays of torch are which leaves of fnn, and how they are laid out. A conversion
is a table of rules, made into two pure functions on plain dicts of arrays; torch itself is not
needed. Paths of leaves begin with 'params' or 'state': 'params/blocks/0/mlp/up/kernel'.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn import tree
from fnn.expect import expect_alike, spec
from fnn.types import ModelState, Params

Arrays = tuple[Any, ...]
Shapes = tuple[tuple[int, ...], ...]
StateDict = Mapping[str, Any]  # name -> torch tensor or NumPy array


class Layout(NamedTuple):
    """How the arrays of a rule are laid out on either side.

    `to_fnn(arrays, shapes) -> leaves` is told the shapes that the leaves must have, so that heads
    need not be counted; None stands for an optional array that is not there. `to_torch(leaves) ->
    arrays` is the way back.
    """

    to_fnn: Callable[[Arrays, Shapes], Arrays]
    to_torch: Callable[[Arrays], Arrays]


class Rule(NamedTuple):
    """These arrays of torch are those leaves of fnn."""

    torch: tuple[str, ...]  # names in the state dict
    fnn: tuple[str, ...]  # paths of leaves
    layout: Layout
    optional: tuple[str, ...] = ()  # of the names: what may be missing, and is written all the same


class Conversion(NamedTuple):
    """Weights from torch and back.

    `to_fnn(state_dict) -> params, model_state` and `to_torch(params, model_state=()) ->
    state_dict`, a dict of NumPy arrays.
    """

    to_fnn: Callable[[StateDict], tuple[Params, ModelState]]
    to_torch: Callable[..., dict[str, np.ndarray]]


def conversion(
    rules: Sequence[Rule],
    like: tuple[Params, ModelState],
    *,
    ignored: Sequence[str] = (),
    rename: Callable[[str], str] = lambda name: name,
) -> Conversion:
    """Two functions from a table of rules.

    Args:
      rules: for every leaf of `like`, once; see `interop.torch` for those of each layer.
      like: parameters and model state as `init` makes them; ShapeDtypeStructs serve as well.
      ignored: patterns ('*' stands for any characters) of names in a state dict that hold nothing
        to learn, such as masks.
      rename: from a name in a state dict to that in the rules: older names, other prefixes.

    Raises: ValueError where the rules do not name each leaf once. `to_fnn` and `to_torch` raise one
      for missing, unexpected and differing arrays, which lists them all, with both shapes.

    >>> from fnn.interop import torch
    >>> like = {'kernel': jnp.zeros((3, 2)), 'bias': jnp.zeros(2)}, ()
    >>> names = conversion(torch.linear('fc', ''), like)
    >>> params, state = names.to_fnn({'fc.weight': np.ones((2, 3)), 'fc.bias': np.zeros(2)})
    >>> params['kernel'].shape, names.to_torch(params)['fc.weight'].shape
    ((3, 2), (2, 3))
    >>> _ = names.to_fnn({'fc.weight': np.ones((2, 4)), 'fc.bia': np.zeros(2)})
    Traceback (most recent call last):
        ...
    ValueError: to_fnn: expected the weights of another model:
      fc.weight (2, 4): does not fit params/kernel float32[3,2]
      fc.bias: missing, for params/bias float32[2]
      fc.bia (2,): unexpected
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    wanted = _leaves(*shapes)
    _expect_whole(rules, wanted)

    def to_fnn(state_dict: StateDict) -> tuple[Params, ModelState]:
        given = {rename(name): value for name, value in state_dict.items()}
        leaves, faults = _read(rules, given, wanted, ignored)
        if faults:
            raise ValueError("to_fnn: expected the weights of another model:\n" + _lines(faults))
        structure = jax.tree.structure(shapes)
        return jax.tree.unflatten(structure, [jnp.asarray(leaves[path]) for path in wanted])

    def to_torch(params: Params, model_state: ModelState = ()) -> dict[str, np.ndarray]:
        expect_alike("to_torch: the model and the weights", shapes, (params, model_state))
        leaves = _leaves(params, model_state)
        written: dict[str, Any] = {}
        for rule in rules:
            arrays = rule.layout.to_torch(tuple(np.asarray(leaves[path]) for path in rule.fnn))
            written |= dict(zip(rule.torch, arrays, strict=True))
        # A copy in memory of its own, which torch may write to.
        return {name: np.array(array, order="C") for name, array in written.items()}

    return Conversion(to_fnn, to_torch)


def repeat(rules: Iterable[Rule], n: int) -> list[Rule]:
    """The rules for each of n parts of a list, whose number stands where they say '{i}'.

    >>> same = Layout(lambda arrays, shapes: arrays, lambda leaves: leaves)
    >>> [rule.fnn for rule in repeat([Rule(('h.{i}.b',), ('params/{i}/bias',), same)], 2)]
    [('params/0/bias',), ('params/1/bias',)]
    """

    def numbered(names: tuple[str, ...], i: int) -> tuple[str, ...]:
        return tuple(name.replace("{i}", str(i)) for name in names)

    rows = list(rules)
    return [
        rule._replace(
            torch=numbered(rule.torch, i),
            fnn=numbered(rule.fnn, i),
            optional=numbered(rule.optional, i),
        )
        for i in range(n)
        for rule in rows
    ]


def as_numpy(value: Any) -> np.ndarray:
    """A torch tensor, or any array, as a NumPy array; bfloat16 stays bfloat16.

    >>> as_numpy([1.0, 2.0]).tolist()
    [1.0, 2.0]
    """
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        return np.asarray(value)
    except TypeError:  # a dtype of torch that NumPy lacks
        return np.asarray(jnp.from_dlpack(value.contiguous()))


def _leaves(params: Params, model_state: ModelState) -> dict[str, Any]:
    both = {"params": params, "state": model_state}
    return dict(zip(tree.paths(both), jax.tree.leaves(both), strict=True))


def _expect_whole(rules: Sequence[Rule], wanted: dict[str, Any]) -> None:
    named = [path for rule in rules for path in rule.fnn]
    faults = [f"{path}: no rule names it" for path in wanted if path not in named]
    faults += [f"{path}: no such leaf" for path in sorted({*named} - {*wanted})]
    faults += [f"{path}: named twice" for path in sorted({p for p in named if named.count(p) > 1})]
    if faults:
        raise ValueError("conversion: expected a rule for each leaf:\n" + _lines(faults))


def _read(
    rules: Sequence[Rule], given: dict[str, Any], wanted: dict[str, Any], ignored: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The leaves by path, and what is wrong with the rest."""
    leaves: dict[str, Any] = {}
    faults = []
    for rule in rules:
        target = ", ".join(f"{path} {spec(wanted[path])}" for path in rule.fnn)
        missing = [n for n in rule.torch if n not in given and n not in rule.optional]
        if missing:
            faults += [f"{name}: missing, for {target}" for name in missing]
            continue
        arrays = tuple(as_numpy(given[n]) if n in given else None for n in rule.torch)
        made = _laid_out(rule, arrays, tuple(wanted[path].shape for path in rule.fnn))
        if isinstance(made, str):
            names = zip(rule.torch, arrays, strict=True)
            found = ", ".join(f"{n} {a.shape}" for n, a in names if a is not None)
            faults.append(f"{found}: {made} {target}")
        else:
            leaves |= dict(zip(rule.fnn, made, strict=True))
    known = {name for rule in rules for name in rule.torch}
    for name in sorted(given.keys() - known):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
            faults.append(f"{name} {np.shape(given[name])}: unexpected")
    return leaves, faults


def _laid_out(rule: Rule, arrays: Arrays, shapes: Shapes) -> Arrays | str:
    """The leaves, or in words what is wrong."""
    try:
        made = rule.layout.to_fnn(arrays, shapes)
    except Differ:
        return "expected to be equal, for"
    except (ValueError, IndexError):  # NumPy's, for shapes that cannot be laid out like that
        return "does not fit"
    return made if tuple(leaf.shape for leaf in made) == shapes else "does not fit"


class Differ(Exception):
    """Two arrays that must be one differ."""


def _lines(faults: list[str]) -> str:
    return "\n".join(f"  {fault}" for fault in faults)
