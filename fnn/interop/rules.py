"""Conversion of weights between torch and fnn, in both directions, by one table of rules.

A rule maps arrays of torch to leaves of fnn, with their layouts; a conversion is two pure functions
on dicts of arrays. torch itself is not needed. Paths of leaves begin with 'params' or 'state':
'params/blocks/0/mlp/up/kernel'.
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
    """`to_fnn(arrays, shapes) -> leaves`, with the shapes of the leaves, and its inverse.

    The inverse is `to_torch(leaves) -> arrays`. A missing optional array is None.
    """

    to_fnn: Callable[[Arrays, Shapes], Arrays]
    to_torch: Callable[[Arrays], Arrays]


class Rule(NamedTuple):
    """A mapping of arrays of torch to leaves of fnn."""

    torch: tuple[str, ...]  # names in the state dict
    fnn: tuple[str, ...]  # paths of leaves
    layout: Layout
    optional: tuple[str, ...] = ()  # names that may be missing when read


class Conversion(NamedTuple):
    """`to_fnn(state_dict) -> params, model_state`, and its inverse.

    The inverse is `to_torch(params, model_state=()) -> state_dict`, a dict of NumPy arrays.
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
    """The conversion of a table of rules.

    Args:
      rules: cover each leaf of `like` once; see `interop.torch` for those of each layer.
      like: parameters and model state, or ShapeDtypeStructs.
      ignored: patterns (with '*') of names in a state dict without parameters, such as masks.
      rename: from a name in a state dict to that in the rules, for older names or other prefixes.

    Raises: ValueError if the rules do not cover each leaf once. `to_fnn` and `to_torch` raise one
      that lists all missing, unexpected and differing arrays, with both shapes.

    >>> from fnn.interop import torch
    >>> like = {'kernel': jnp.zeros((3, 2)), 'bias': jnp.zeros(2)}, ()
    >>> names = conversion(torch.linear('fc', ''), like)
    >>> params, state = names.to_fnn({'fc.weight': np.ones((2, 3)), 'fc.bias': np.zeros(2)})
    >>> params['kernel'].shape, names.to_torch(params)['fc.weight'].shape
    ((3, 2), (2, 3))
    >>> _ = names.to_fnn({'fc.weight': np.ones((2, 4)), 'fc.bia': np.zeros(2)})
    Traceback (most recent call last):
        ...
    ValueError: to_fnn: expected the weights of this model, got:
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
            raise ValueError("to_fnn: expected the weights of this model, got:\n" + _lines(faults))
        structure = jax.tree.structure(shapes)
        return jax.tree.unflatten(structure, [jnp.asarray(leaves[path]) for path in wanted])

    def to_torch(params: Params, model_state: ModelState = ()) -> dict[str, np.ndarray]:
        expect_alike("to_torch: the model and the weights", shapes, (params, model_state))
        leaves = _leaves(params, model_state)
        written: dict[str, Any] = {}
        for rule in rules:
            arrays = rule.layout.to_torch(tuple(np.asarray(leaves[path]) for path in rule.fnn))
            written |= dict(zip(rule.torch, arrays, strict=True))
        # Contiguous copies, which torch may write to.
        return {name: np.array(array, order="C") for name, array in written.items()}

    return Conversion(to_fnn, to_torch)


def repeat(rules: Iterable[Rule], n: int) -> list[Rule]:
    """The rules for each of n items of a list, with the index in place of '{i}'.

    >>> same = Layout(lambda arrays, shapes: arrays, lambda leaves: leaves)
    >>> [rule.fnn for rule in repeat([Rule(('h.{i}.b',), ('params/{i}/bias',), same)], 2)]
    [('params/0/bias',), ('params/1/bias',)]
    """

    def numbered(rule: Rule, i: int) -> Rule:
        names = ((n.replace("{i}", str(i)) for n in names) for names in rule[:2] + rule[3:])
        torch, fnn, optional = map(tuple, names)
        return Rule(torch, fnn, rule.layout, optional)

    rows = list(rules)
    return [numbered(rule, i) for i in range(n) for rule in rows]


def _as_numpy(value: Any) -> np.ndarray:
    """A torch tensor, or any array, as a NumPy array; bfloat16 stays bfloat16."""
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
    """The leaves by path, and the faults of the others."""
    leaves: dict[str, Any] = {}
    faults = []
    for rule in rules:
        target = ", ".join(f"{path} {spec(wanted[path])}" for path in rule.fnn)
        missing = [n for n in rule.torch if n not in given and n not in rule.optional]
        if missing:
            faults += [f"{name}: missing, for {target}" for name in missing]
            continue
        arrays = tuple(_as_numpy(given[n]) if n in given else None for n in rule.torch)
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
    """The leaves, or a description of the fault."""
    try:
        made = rule.layout.to_fnn(arrays, shapes)
    except Mismatch:
        return "expected to be equal, for"
    except (ValueError, IndexError):  # of NumPy, for shapes that do not fit the layout
        return "does not fit"
    return made if tuple(leaf.shape for leaf in made) == shapes else "does not fit"


class Mismatch(Exception):
    """Arrays that must be equal differ."""


def _lines(faults: list[str]) -> str:
    return "\n".join(f"  {fault}" for fault in faults)
