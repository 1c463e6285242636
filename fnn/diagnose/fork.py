"""Forks of a run: the same steps from the same state with other hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fnn import show, tree
from fnn.expect import did_you_mean
from fnn.keys import run_keys
from fnn.measures import Named, Recorded
from fnn.recipe import RecipeFunction
from fnn.train import _compiled as compiled
from fnn.train._job import make_job, seed_keys
from fnn.train._scan import gather, scan_steps
from fnn.train.check import check_state
from fnn.train.sweeps.result import mean_and_std
from fnn.types import Data, Hyper, PRNGKey, TrainState

Edits = Mapping[str, Mapping[str, Any]]  # name -> {path of a hyperparameter: its new value}


@dataclass(frozen=True, kw_only=True)
class Fork:
    """The result of `fork`; the first branch has no edit. Prints as a table."""

    names: tuple[str, ...]  # 'as it is', and the names of the edits
    state: TrainState  # at the end; leaves (branches, seeds, ...)
    train: dict[str, Float[Array, "branches seeds steps ..."]]  # metrics of the steps
    valid: dict[str, Float[Array, "branches seeds"]]  # at the end

    @property
    def measures(self) -> dict[str, Float[np.ndarray, "branches seeds"]]:
        """The mean loss of the steps, and the final validation metrics."""
        loss = np.asarray(self.train["loss"], np.float64).mean(axis=-1)
        valid = {name: np.asarray(values, np.float64) for name, values in self.valid.items()}
        return {"train loss": loss, **{f"valid {name}": valid[name] for name in sorted(valid)}}

    @property
    def differences(self) -> dict[str, Float[np.ndarray, "branches seeds"]]:
        """The measures minus those of the first branch with the same seed."""
        return {name: values - values[:1] for name, values in self.measures.items()}

    def __str__(self) -> str:
        seeds, steps = self.train["loss"].shape[1:3]
        columns = [["", *self.names]]
        for name, values in self.measures.items():
            apart = self.differences[name][1:]
            columns.append([name, _plain(values[0]), *map(_difference, apart)])
        rows = list(zip(*columns, strict=True))
        noise = f"{seeds} noise seeds" if seeds > 1 else "1 noise seed"
        title = f"{steps} steps, {noise}: mean ± std, and the difference in such std"
        return f"{title}\n{show.table(rows, left=len(columns))}"


def fork(
    recipe: RecipeFunction,
    state: TrainState,
    data: Data,
    *,
    key: PRNGKey,
    hyper: Hyper,
    edits: Edits,
    steps: int,
    batch_size: int,
    seeds: int = 5,
    eval_batch_size: int = 1024,
) -> Fork:
    """Continues from `state` for some steps, without and with edits of the hyperparameters.

    All branches have the same batches and noise. With the first seed these are those of the run of
    `key` from `state.step` on, so that its branch without an edit continues that run. Other seeds
    repeat all with other batches and noise. Branches are compared seed by seed; the std of the
    differences tells how reliable their mean is. One compiled program runs all branches and seeds;
    the given state is unchanged.

    Args:
      recipe, data, key, hyper, batch_size, eval_batch_size: those of the run.
      state: of the run, after any step.
      edits: for each branch by name, the hyperparameters to change and their values, e.g.
        `{'lr halved': {'lr': 0.5 * lr}, 'no dropout': {'rate': 0.0}}`. In a nested hyper they are
        named by path, such as 'optimizer/b1'.
      steps: updates of each branch.
      seeds: number of noise seeds; with 1 there is no std.

    Returns: a Fork. `print` shows the differences; a mean less than two or three std from 0 may be
      noise.
    Raises: ValueError for what `check` finds, for a state that is not the recipe's, and for an edit
      of an unknown hyperparameter, or to a value of another shape.

    >>> from fnn import Batch, Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.linspace(-1, 1, 8)[:, None]
    >>> data, hyper = Data(train=Batch(x, 3 * x), valid=Batch(x, 3 * x)), {'lr': 0.3}
    >>> state = make_init(recipe)(jax.random.key(1), hyper, x)
    >>> result = fork(recipe, state, data, key=jax.random.key(0), hyper=hyper, steps=10,
    ...               batch_size=4, edits={'frozen': {'lr': 0.0}})
    >>> result.names, result.valid['loss'].shape
    (('as it is', 'frozen'), (2, 5))
    >>> bool((result.differences['valid loss'][1] > 0).all())   # without learning it is worse
    True
    """
    job = make_job(recipe, data, key=key, hyper=hyper, batch_size=batch_size)
    check_state("fork", recipe, state, hyper=hyper, x=data.train[0])
    changed = _stack_edits(hyper, edits)
    sizes, keys = (batch_size, steps, eval_batch_size), seed_keys(key, seeds)
    state, train, valid = _branches(recipe, sizes, state, keys, hyper, changed, job.data)
    return Fork(names=("as it is", *edits), state=state, train=train, valid=valid)


@partial(jax.jit, static_argnums=(0, 1))
def _branches(
    recipe: RecipeFunction,
    sizes: tuple[int, int, int],
    state: TrainState,
    keys: Key[Array, " seeds"],
    hyper: Hyper,
    changed: dict[str, Array],
    data: Data,
) -> tuple[TrainState, Named, dict[str, Array]]:
    batch_size, steps, eval_batch_size = sizes

    def branch(
        values: dict[str, Array], key: PRNGKey
    ) -> tuple[TrainState, Named, dict[str, Array]]:
        keys = run_keys(key)
        edited = tree.map_with_path(lambda path, leaf: values.get(path, leaf), hyper)

        def advance(
            state: TrainState, step: Int[Array, ""], indices: Int[Array, " batch"]
        ) -> tuple[TrainState, Recorded]:
            return compiled.step(recipe, (), state, gather(data.train, indices), keys.noise, edited)

        after, recorded = scan_steps(
            advance,
            state,
            state.step,
            keys=keys,
            train=data.train,
            batch_size=batch_size,
            length=steps,
        )
        valid = compiled.evaluate(recipe, eval_batch_size, (), after, data.valid, edited)
        return after, recorded[1], valid

    over_seeds = jax.vmap(branch, in_axes=(None, 0))
    return jax.vmap(over_seeds, in_axes=(0, None))(changed, keys)


def _stack_edits(hyper: Hyper, edits: Edits) -> dict[str, Array]:
    """Values in all branches, the unedited one first, of each hyperparameter that is changed."""
    if not any(edits.values()):
        raise ValueError(
            "fork: expected an edit that changes something, got none; "
            "give edits={'lr halved': {'lr': ...}}"
        )
    before = dict(zip(tree.paths(hyper), jax.tree.leaves(hyper), strict=True))
    for name, edit in edits.items():
        for path, value in edit.items():
            _expect_hyper(name, path, value, before)
    paths = sorted({path for edit in edits.values() for path in edit})
    hypers = [before, *({**before, **edit} for edit in edits.values())]
    return {path: _stack([hyper[path] for hyper in hypers]) for path in paths}


def _expect_hyper(name: str, path: str, value: Any, before: dict[str, Any]) -> None:
    if path not in before:
        hint = did_you_mean(path, before, "add it to hyper")
        raise ValueError(
            f"fork: expected the edit {name!r} to change some of {sorted(before)}, got {path!r}; "
            f"{hint}"
        )
    if jnp.shape(value) != jnp.shape(before[path]):
        raise ValueError(
            f"fork: expected the edit {name!r} to keep the shape {jnp.shape(before[path])} of "
            f"{path!r}, got {jnp.shape(value)}; give one value for each branch"
        )


def _stack(values: list[Any]) -> Array:
    """Stacked in their common dtype: an edit may change an int to a float."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*values)
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def _plain(values: Float[np.ndarray, " seeds"]) -> str:
    mean, std = mean_and_std(values)
    return f"{mean:.4g}" + ("" if np.isnan(std) else f" ± {std:.2g}")


def _difference(values: Float[np.ndarray, " seeds"]) -> str:
    mean, std = mean_and_std(values)
    if np.isnan(std):
        return f"{mean:+.3g}"
    in_std = f" ({mean / std:+.1f} std)" if std > 0 else ""
    return f"{mean:+.3g} ± {std:.2g}{in_std}"
