"""A run on disk: checkpoints that notice a flipped bit, and a log of rows.

A checkpoint is one safetensors file. Beside the arrays it holds a CRC-32 of each leaf (over name,
dtype, shape and bytes), which the format itself lacks, and a little JSON. It is written to a
temporary file, flushed to the disk and renamed: under its final name a file is always whole.
"""

import json
import math
import os
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.expect import expect_alike

_FORMAT = "fnn-1"


def save(path: str | Path, values: PyTree, meta: dict[str, Any] | None = None) -> None:
    """Write a tree of arrays, and `meta` (JSON), to the file `path`, all or nothing.

    Raises: ValueError for a typed key among the leaves (store `jax.random.key_data` of it);
      OSError if the disk refuses, with what was at `path` left as it was.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'state.safetensors'
    >>> save(path, {'w': jnp.arange(3.0)}, {'step': 7})
    >>> values, meta = load(path, {'w': jnp.zeros(3)})
    >>> values['w'].tolist(), meta
    ([0.0, 1.0, 2.0], {'step': 7})
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray] = {}
    for name, leaf in zip(tree.paths(values), jax.tree.leaves(values), strict=True):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"checkpoint.save: expected arrays of numbers, got a key at {name!r}; "
                "store jax.random.key_data of it"
            )
        if name in arrays:
            raise ValueError(
                "checkpoint.save: expected every leaf to have a path of its own, got two leaves at "
                f"{name!r}; rename the one whose key holds a '/'"
            )
        arrays[name] = np.ascontiguousarray(leaf).reshape(np.shape(leaf))  # not (1,) for ()
    text = json.dumps(meta or {})
    header = {
        "format": _FORMAT,
        "meta": text,
        "crc32": json.dumps(
            {"": zlib.crc32(text.encode())} | {n: _crc(n, a) for n, a in arrays.items()}
        ),
    }
    _write_whole(Path(path), to_bytes(arrays, metadata=header))


def load(path: str | Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Read what `save` wrote, into the structure of `like`.

    Args:
      like: a tree of arrays or ShapeDtypeStructs; shapes and dtypes must be those in the file.

    Returns: the tree, and the meta data.
    Raises: ValueError if the file is damaged (naming the leaf), or if its leaves are not those of
      `like` (naming every missing, extra and differing one).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'state.safetensors'
    >>> save(path, {'w': jnp.ones(2)})
    >>> load(path, {'w': jax.ShapeDtypeStruct((2,), jnp.float32)})[0]['w'].tolist()
    [1.0, 1.0]
    """
    path = Path(path)
    arrays, meta = _read(path)
    wanted = dict(zip(tree.paths(like), jax.tree.leaves(like), strict=True))
    expect_alike(f"checkpoint.load: {path} and the state", wanted, arrays, dtypes=True)
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), meta


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            sums = json.loads(header["crc32"])
            text = header["meta"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"checkpoint.load: expected a checkpoint of fnn in {path}, got a damaged or foreign "
            f"file ({error}); use an older checkpoint"
        ) from error
    found = {"": zlib.crc32(text.encode())} | {n: _crc(n, a) for n, a in arrays.items()}
    damaged = sorted(
        n or "(meta data)" for n in sums.keys() | found.keys() if sums.get(n) != found.get(n)
    )
    if damaged:
        raise ValueError(
            f"checkpoint.load: expected the checksums of {path} to hold, got damage in {damaged}; "
            "use an older checkpoint"
        )
    return arrays, json.loads(text)


def _crc(name: str, array: np.ndarray) -> int:
    head = f"{name}|{array.dtype.name}|{array.shape}".encode()
    return zlib.crc32(array.tobytes(), zlib.crc32(head))


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)


class RunDir:
    """A directory that keeps one run: `best.safetensors`, `last.safetensors`, `metrics.jsonl`.

    Give it to `fit` as its store. A row of the log is `{'step': 0, 'loss': ..., 'lr': ..., ...}`
    for each step, with what was measured at it (vectors as lists), and `{'step': 99, 'valid':
    {...}}` for an evaluation after step 99.

    Raises: ValueError if the directory cannot be made or written to, before any training.

    >>> import tempfile
    >>> run = RunDir(Path(tempfile.mkdtemp()) / 'runs' / 'a')
    >>> run.log([{'step': 0, 'loss': 1.5}])
    >>> run.rows(up_to_step=0)
    [{'step': 0, 'loss': 1.5}]
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        probe = self.path / f".writable.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"RunDir: expected a directory that can be written to, got {str(self.path)!r} "
                f"({error.strerror}); choose another path or change its permissions"
            ) from error

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    @property
    def _log(self) -> Path:
        return self.path / "metrics.jsonl"

    def has(self, name: str) -> bool:
        """Whether there is a checkpoint `name`."""
        return self._file(name).exists()

    def save(self, name: str, values: PyTree, meta: dict[str, Any]) -> None:
        """Write the checkpoint `name`; see `checkpoint.save`."""
        save(self._file(name), values, meta)

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Read the checkpoint `name`; see `checkpoint.load`."""
        return load(self._file(name), like)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to metrics.jsonl; numbers that are not finite become null."""
        with open(self._log, "a") as file:
            file.writelines(json.dumps(_finite(row)) + "\n" for row in rows)

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of steps up to `up_to_step`, in order; later or torn ones leave the file."""
        kept, lines = [], self._log.read_text().splitlines() if self._log.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed process
            if row["step"] <= up_to_step:
                kept.append(row)
        _write_whole(self._log, "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def new_runs(out: str | Path | None, name: str, seeds: Sequence[int] = (0,)) -> list[RunDir]:
    """New directories for an experiment, one for each seed, before any training.

    Args:
      out: the directory, which must be empty or not there; None for `runs/<name>/<time>`. Several
        seeds each get a directory `seed_<seed>` inside.

    Raises: ValueError for one that cannot be written to, or that holds something.

    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp())
    >>> [run.path.name for run in new_runs(out, 'digits', seeds=[3, 4])]
    ['seed_3', 'seed_4']
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    parent = Path("runs") / name / time if out is None else Path(out)
    runs = [RunDir(parent / f"seed_{seed}" if len(seeds) > 1 else parent) for seed in seeds]
    for run in runs:
        if any(run.path.iterdir()):
            raise ValueError(
                f"--out: expected a new directory, got {str(run.path)!r}, which is not empty; "
                "choose another"
            )
    return runs
