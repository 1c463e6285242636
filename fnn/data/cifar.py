"""CIFAR-10 in its published binary and Python formats, and as sheets of pictures."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from fnn.types import Batch

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_ROW = 1 + 3 * 32 * 32  # bytes of a record: the label, then three planes of 32 x 32


def read_cifar_binary(*paths: str | Path) -> Batch:
    """The records of `data_batch_1.bin` and its like, one file after another.

    Returns: Batch of uint8 pictures (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for a file whose size is no multiple of a record's 3,073 bytes.
    Source: Krizhevsky 2009, and the data set's page.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'batch.bin'
    >>> _ = file.write_bytes(bytes([7]) + bytes(3072))
    >>> x, y = read_cifar_binary(file)
    >>> x.shape, y.tolist()
    ((1, 32, 32, 3), [7])
    """
    parts = []
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if data.size == 0 or data.size % _ROW:
            raise ValueError(
                f"read_cifar_binary: expected records of {_ROW} bytes, got {data.size} bytes in "
                f"{path}; fetch it again"
            )
        parts.append(data.reshape(-1, _ROW))
    rows = np.concatenate(parts)
    return Batch(_pictures(rows[:, 1:]), rows[:, 0].astype(np.int32))


def read_cifar_python(*paths: str | Path) -> Batch:
    """The pickled dicts of `data_batch_1` and its like; nothing in them is run.

    Only what a dict of arrays needs is unpickled; a file that asks for more is refused.

    Returns: Batch of uint8 pictures (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for a file that is no such dict or asks to run code.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'batch'
    >>> made = {b'data': np.zeros((1, 3072), np.uint8), b'labels': [7]}
    >>> _ = file.write_bytes(pickle.dumps(made))
    >>> x, y = read_cifar_python(file)
    >>> x.shape, y.tolist()
    ((1, 32, 32, 3), [7])
    """
    parts = [_unpickle(path) for path in paths]
    pictures = np.concatenate([np.asarray(part[b"data"], np.uint8) for part in parts])
    labels = np.concatenate([np.asarray(part[b"labels"], np.int32) for part in parts])
    return Batch(_pictures(pictures), labels)


def read_sheets(folder: str | Path, pattern: str, labels: str) -> Batch:
    """Pictures of 32 x 32 that lie in rows on larger pictures, and their labels as raw uint8.

    Args:
      folder: where they are.
      pattern: of the sheets' names, such as 'test_exact_*.webp'; they are taken in order of name.
      labels: name of the file of labels.

    Returns: Batch of uint8 pictures (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for no sheets, or labels that are not as many; ModuleNotFoundError without
      pillow.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new('RGB', (64, 32)).save(folder / 'sheet_0.png')   # two black pictures
    >>> _ = (folder / 'labels').write_bytes(bytes([3, 7]))
    >>> x, y = read_sheets(folder, 'sheet_*.png', 'labels')
    >>> x.shape, y.tolist()
    ((2, 32, 32, 3), [3, 7])
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "read_sheets: needs pillow; pip install 'fnn[data]'", name="PIL"
        ) from error
    sheets = sorted(Path(folder).glob(pattern))
    if not sheets:
        raise ValueError(
            f"read_sheets: expected sheets {pattern} in {folder}, got none; check the folder"
        )
    parts = []
    for path in sheets:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGB"))
        down, across = sheet.shape[0] // 32, sheet.shape[1] // 32
        tiles = sheet.reshape(down, 32, across, 32, 3).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, 32, 32, 3))
    x = np.concatenate(parts)
    y = np.fromfile(Path(folder) / labels, np.uint8).astype(np.int32)
    if len(x) != len(y):
        raise ValueError(
            f"read_sheets: expected a label for each of {len(x)} pictures, got {len(y)} in "
            f"{labels}; check {folder}"
        )
    return Batch(x, y)


def _pictures(planes: np.ndarray) -> np.ndarray:
    """(n, 3072) bytes by colour, row, column to (n, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _ArraysOnly(pickle.Unpickler):
    """Knows the few names that a pickled array is made of, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy(\.(_core|core)(\.multiarray)?)?", module):
            if name == "_reconstruct":
                return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
        if re.fullmatch(r"numpy\.(_core|core)\.numeric", module) and name == "_frombuffer":
            return np._core.numeric._frombuffer  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):  # how newer pickles spell bytes
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(path: str | Path) -> dict[bytes, Any]:
    try:
        made = _ArraysOnly(io.BytesIO(Path(path).read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"read_cifar_python: expected a pickled dict of arrays, got {path}, which was not "
            f"read: {error}; fetch it again"
        ) from error
    if not isinstance(made, dict) or not {b"data", b"labels"} <= made.keys():
        raise ValueError(
            f"read_cifar_python: expected a dict with data and labels, got {type(made).__name__} "
            f"in {path}; name data_batch_1 to 5 or test_batch"
        )
    return made
