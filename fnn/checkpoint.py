"""A run on disk: checkpoints with checksums, trained models, and the log of the metrics.

A checkpoint is one safetensors file, with a CRC-32 of each leaf (over name, dtype, shape and bytes)
and JSON in its header. Dtypes that the format lacks, such as float8 and int4, are stored as bytes.
Writes are atomic: to a temporary file, which is flushed to the disk and renamed.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.expect import expect_alike
from fnn.recipe import RecipeFunction
from fnn.train import trained_params
from fnn.types import Hyper, Model, ModelState, Params, TrainState

_FORMAT = "fnn-1"
_MODEL_VERSION = 1  # of the files of `save_model`


def save(path: str | Path, values: PyTree, meta: dict[str, Any] | None = None) -> None:
    """Write a tree of arrays, and `meta` (JSON), to the file `path`, atomically.

    Every dtype of JAX is preserved; Python numbers get JAX's default dtypes.

    Raises: ValueError for a leaf that is not a numeric array (for a typed key, store
      `jax.random.key_data`), two leaves of one path, or `meta` that is not JSON; OSError if writing
      fails, with the file at `path` unchanged.

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
        if name in arrays:
            raise ValueError(
                "checkpoint.save: expected a unique path for every leaf, got two leaves at "
                f"{name!r}; rename the one whose key has a '/'"
            )
        arrays[name] = _as_array(name, leaf)
    text = _as_json(meta or {})
    raw = {n: a.dtype.name for n, a in arrays.items() if a.dtype.name not in _NATIVE}
    header = {
        "format": _FORMAT,
        "meta": text,
        "crc32": json.dumps(
            {"": zlib.crc32(text.encode())} | {n: _crc(n, a) for n, a in arrays.items()}
        ),
        "dtypes": json.dumps(raw),  # of leaves stored as bytes, with a last axis of uint8
    }
    stored = {n: _as_bytes(a) if n in raw else a for n, a in arrays.items()}
    _write_whole(Path(path), to_bytes(stored, metadata=header))


_Masked = np.ma.MaskedArray
# The dtypes that safetensors.numpy supports.
_NATIVE = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
     "float16", "bfloat16", "float32", "float64"]
)  # fmt: skip


def _as_array(name: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"checkpoint.save: expected arrays of numbers, got a key at {name!r}; "
            "store jax.random.key_data of it"
        )
    python = isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic)
    try:
        array = np.asarray(leaf, jnp.result_type(leaf) if python else None)
    except (TypeError, ValueError, OverflowError):
        array = np.asarray(leaf, object)
    numbers = jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
    same = python or getattr(leaf, "dtype", array.dtype) == array.dtype
    if not (numbers and same and hasattr(jnp, array.dtype.name)) or isinstance(leaf, _Masked):
        raise ValueError(
            "checkpoint.save: expected arrays of numbers of a dtype of JAX, got "
            f"{getattr(leaf, 'dtype', type(leaf).__name__)} at {name!r}; convert it, or put it "
            "into meta"
        )
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).reshape(array.shape)  # not (1,) for ()


def _as_json(meta: dict[str, Any]) -> str:
    try:
        return json.dumps(meta)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint.save: expected meta that JSON can hold, got {error}; convert it, numbers "
            "of NumPy by .item()"
        ) from error


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, array.dtype.itemsize)


def _from_bytes(raw: np.ndarray, dtype: str) -> np.ndarray:
    return np.frombuffer(raw.tobytes(), jnp.dtype(dtype)).reshape(raw.shape[:-1])


def load(path: str | Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Read a file of `save` into the structure of `like`.

    Args:
      like: a tree of arrays or ShapeDtypeStructs; shapes and dtypes must be those in the file. The
        arrays are put into the memory of those of `like`: into the host's for `optim.offload`.

    Returns: the tree, and the metadata.
    Raises: ValueError for a damaged file (naming the leaf), for leaves that differ from those of
      `like` (naming each), and, without jax_enable_x64, for 64-bit values out of the 32-bit range.

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
    leaves = [_placed(_on_device(path, name, arrays[name]), leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), meta


def _placed(array: jax.Array, like: Any) -> jax.Array:
    space = jax.typeof(like).memory_space
    return jax.device_put(array, space) if space == jax.memory.Space.Host else array


def _on_device(path: Path, name: str, array: np.ndarray) -> jax.Array:
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow != array.dtype:
        with np.errstate(over="ignore"):
            kept = array.astype(narrow)
        rounded = array.dtype.kind in "fc"  # as JAX does without jax_enable_x64
        lost = (np.isinf(kept) != np.isinf(array)) | ((kept == 0) != (array == 0))
        if (lost if rounded else kept != array).any():
            raise ValueError(
                f"checkpoint.load: expected values in the range of {narrow} at {name!r} in {path}, "
                f"got others in {array.dtype}; load it with jax_enable_x64"
            )
    return jnp.asarray(array)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}
        version = header["format"]
        sums, raw = json.loads(header["crc32"]), json.loads(header.get("dtypes", "{}"))
        text = header["meta"]
        if not isinstance(sums, dict):
            raise ValueError("checksums that are not a dict")
        arrays = {n: _from_bytes(a, raw[n]) if n in raw else a for n, a in stored.items()}
        meta = json.loads(text)
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"checkpoint.load: expected a checkpoint of fnn in {path}, got a damaged or foreign "
            f"file ({error}); use an older checkpoint"
        ) from error
    if version != _FORMAT:
        raise ValueError(
            f"checkpoint.load: expected the format {_FORMAT!r} in {path}, got {version!r}; read it "
            "with the version of fnn that wrote it"
        )
    found = {"": zlib.crc32(text.encode())} | {n: _crc(n, a) for n, a in arrays.items()}
    damaged = sorted(
        n or "(metadata)" for n in sums.keys() | found.keys() if sums.get(n) != found.get(n)
    )
    if damaged:
        raise ValueError(
            f"checkpoint.load: expected the checksums of {path} to hold, got damage in {damaged}; "
            "use an older checkpoint"
        )
    return arrays, meta


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


class LoadedModel(NamedTuple):
    """A model of `load_model`, the arguments of its `apply`, and the configuration."""

    model: Model
    params: Params
    model_state: ModelState
    config: Any


def save_model(
    path: str | Path,
    state: TrainState | tuple[Params, ModelState],
    *,
    config: Any,
    x: Any,
    recipe: RecipeFunction | None = None,
    hyper: Hyper = None,
) -> None:
    """Write a trained model to one file, for inference: its weights, without code.

    The file holds the parameters to evaluate with (the optimizer's `weights`, such as a moving
    average), the model state, and as JSON the configuration and the shapes of the inputs.

    Args:
      state: after training; or a pair (params, model_state), which is written unchanged.
      config: JSON, from which `load_model` builds the model; tuples come back as lists.
      x: a batch of inputs, or ShapeDtypeStructs; only shapes and dtypes are written.
      recipe, hyper: those of the training; needed for the optimizer's `weights` of a TrainState.

    Raises: ValueError for a TrainState without its recipe, a config that is not JSON, and
      parameters in containers other than dicts, lists and tuples; OSError if writing fails.

    >>> import tempfile
    >>> from fnn import models, nn
    >>> path, x = Path(tempfile.mkdtemp()) / 'model.safetensors', jnp.zeros((1, 3))
    >>> model = nn.linear(2)
    >>> save_model(path, model.init(jax.random.key(0), x), config={'features': 2}, x=x)
    >>> loaded = load_model(path, lambda config: nn.linear(config['features']))
    >>> loaded.config, loaded.model.apply(loaded.params, loaded.model_state, x)[0].shape
    ({'features': 2}, (1, 2))
    """
    if isinstance(state, TrainState):
        if recipe is None:
            raise ValueError(
                "checkpoint.save_model: expected recipe= and hyper= with a TrainState, got none: "
                "the optimizer knows which weights to evaluate with; pass those of the training, "
                "or a pair (params, model_state)"
            )
        state = trained_params(recipe, state, hyper), state.model_state
    params, model_state = state
    values = {"params": params, "model_state": model_state}
    meta = {
        "model": _MODEL_VERSION,
        "config": _json(config),
        "structure": _encode("", values, lambda leaf: None),
        "inputs": _encode("x", x, lambda leaf: [list(leaf.shape), jnp.result_type(leaf).name]),
    }
    save(path, values, meta)


def load_model(path: str | Path, make_model: Callable[[Any], Model]) -> LoadedModel:
    """Read a file of `save_model`; nothing of the training is needed.

    Args:
      make_model: builds the model from the configuration, such as
        `lambda config: models.mlp.mlp(models.mlp.MLPConfig(**config))`.

    Raises: ValueError for a file that is damaged, of another version, or not a model, and for a
      make_model that fails or builds a model with other parameters (naming each leaf that differs).

    >>> import tempfile
    >>> from fnn import models, nn
    >>> path, x = Path(tempfile.mkdtemp()) / 'model.safetensors', jnp.zeros((1, 3))
    >>> save_model(path, nn.linear(2).init(jax.random.key(0), x), config={}, x=x)
    >>> load_model(path, lambda config: nn.linear(2)).params['kernel'].shape
    (3, 2)
    """
    arrays, meta = _read(Path(path))
    where = f"checkpoint.load_model: {path}"
    if (version := meta.get("model")) != _MODEL_VERSION:
        what = "a checkpoint of a run" if version is None else f"version {version}"
        raise ValueError(
            f"{where}: expected a model of version {_MODEL_VERSION}, got {what}; write it with "
            "save_model of this version of fnn"
        )
    shape = _decode(meta["structure"], lambda leaf: 0)
    leaves = [jnp.asarray(arrays[name]) for name in tree.paths(shape)]
    values = jax.tree.unflatten(jax.tree.structure(shape), leaves)
    config = meta["config"]
    try:
        model = make_model(config)
    except Exception as error:
        raise ValueError(
            f"{where}: expected make_model to accept the config {config}, got "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, Model):
        raise ValueError(
            f"{where}: expected a Model from make_model, got {type(model).__name__}; return "
            "models.mlp.mlp(...), say"
        )
    x = _decode(meta["inputs"], lambda leaf: jax.ShapeDtypeStruct(leaf[0], jnp.dtype(leaf[1])))
    params, model_state = jax.eval_shape(model.init, jax.random.key(0), x)
    like = {"params": params, "model_state": model_state}
    expect_alike(
        f"{where}: the model of the config {config} and its weights", like, values, dtypes=True
    )
    return LoadedModel(model, values["params"], values["model_state"], config)


def _json(config: Any) -> Any:
    """`config` as read back; ValueError if JSON changes more than tuples to lists."""

    def lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lists(item) for key, item in value.items()}
        return [lists(item) for item in value] if isinstance(value, (list, tuple)) else value

    try:
        read = json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint.save_model: expected a config of JSON, got {config!r} ({error}); name "
            "functions by strings, and make numbers float or int"
        ) from error
    if read != lists(config):
        raise ValueError(
            f"checkpoint.save_model: expected a config whose keys are strings, got {config!r}; "
            "JSON would make strings of them"
        )
    return read


def _encode(path: str, value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Nested dicts, lists and tuples as JSON, with each leaf replaced by leaf(value)."""
    if value is None:
        return {"none": []}
    if jax.tree_util.all_leaves([value]):
        return leaf(value)
    kind = type(value)
    if kind in (list, tuple):
        return {kind.__name__: [_encode(f"{path}/{i}", v, leaf) for i, v in enumerate(value)]}
    if kind is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(f"{path}/{key}", v, leaf) for key, v in value.items()}}
    raise ValueError(
        "checkpoint.save_model: expected dicts with strings for keys, lists and tuples, got "
        f"{kind.__name__} at {path!r}; give params, model_state and inputs in these"
    )


def _decode(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The inverse of `_encode`."""
    if not isinstance(value, dict):
        return leaf(value)
    ((kind, children),) = value.items()
    if kind == "dict":
        return {key: _decode(child, leaf) for key, child in children.items()}
    items = [_decode(child, leaf) for child in children]
    return {"none": None, "list": items, "tuple": tuple(items)}[kind]


class RunDir:
    """The directory of a run: `best` and `last.safetensors`, `metrics.jsonl` and `config.json`.

    The store of `fit`. The log has a row `{'step': 0, 'loss': ..., 'lr': ..., ...}` for each step,
    with its measures (vectors as lists), and `{'step': 99, 'valid': {...}}` for an evaluation after
    step 99.

    Raises: ValueError if the directory cannot be created or written to.

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
        """Whether the checkpoint `name` exists."""
        return self._file(name).exists()

    def save(self, name: str, values: PyTree, meta: dict[str, Any]) -> None:
        """Write the checkpoint `name`; see `checkpoint.save`."""
        save(self._file(name), values, meta)

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Read the checkpoint `name`; see `checkpoint.load`."""
        return load(self._file(name), like)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.json`, with text for what JSON lacks; the one of a resumed run stays.

        >>> import tempfile
        >>> run = RunDir(tempfile.mkdtemp())
        >>> run.write_config({'lr': 0.1, 'root': Path('data')})
        >>> json.loads((run.path / 'config.json').read_text())
        {'lr': 0.1, 'root': 'data'}
        """
        path = self.path / "config.json"
        if not path.exists():
            _write_whole(path, (json.dumps(dict(config), indent=2, default=str) + "\n").encode())

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to metrics.jsonl, with null for non-finite numbers."""
        with open(self._log, "a") as file:
            file.writelines(json.dumps(_finite(row)) + "\n" for row in rows)

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of steps up to `up_to_step`; later and truncated ones are removed from the file.

        Raises: ValueError for a file that is not text, or a complete line that is not a row.
        """
        try:
            lines = self._log.read_text("utf-8").splitlines() if self._log.exists() else []
        except UnicodeDecodeError as error:
            raise ValueError(
                f"RunDir: expected text in {self._log}, got a damaged file ({error}); correct it, "
                "or resume from a copy"
            ) from error
        kept = []
        for i, line in enumerate(lines):
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                continue  # the last line of a killed process
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError(
                    f"RunDir: expected a row {{'step': ...}} in line {i + 1} of {self._log}, got "
                    f"{line[:80]!r}; delete the line"
                )
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
    """New directories for an experiment, one for each seed.

    Args:
      out: the directory, which must be empty or not exist; None for `runs/<name>/<time>`. Several
        seeds each get a directory `seed_<seed>` inside.

    Raises: ValueError for a directory that cannot be written to, or is not empty.

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
