"""Readers of CIFAR-10: its binary and Python formats, and sheets of tiled images."""

import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fnn.data._contents import read_bytes
from fnn.types import Batch

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_ROW = 1 + 3 * 32 * 32  # bytes of a record: the label, then three planes of 32 x 32


def read_cifar_binary(*paths: str | Path) -> Batch:
    """CIFAR-10 in its binary format, `data_batch_1.bin` and so on, concatenated.

    Returns: Batch of uint8 images (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for no files, one whose size is no multiple of a record's 3,073 bytes, or a
      label above 9.
    Source: Krizhevsky 2009, and the data set's page.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'batch.bin'
    >>> _ = file.write_bytes(bytes([7]) + bytes(3072))
    >>> x, y = read_cifar_binary(file)
    >>> x.shape, y.tolist()
    ((1, 32, 32, 3), [7])
    """
    _expect_paths("read_cifar_binary", paths)
    parts = []
    for path in paths:
        data = np.frombuffer(read_bytes("read_cifar_binary", path), np.uint8)
        if data.size == 0 or data.size % _ROW:
            raise ValueError(
                f"read_cifar_binary: expected records of {_ROW} bytes, got {data.size} bytes in "
                f"{path}; fetch it again"
            )
        parts.append(data.reshape(-1, _ROW))
        _expect_classes("read_cifar_binary", path, parts[-1][:, 0])
    rows = np.concatenate(parts)
    return Batch(_images(rows[:, 1:]), rows[:, 0].astype(np.int32))


def read_cifar_python(*paths: str | Path) -> Batch:
    """CIFAR-10 in its Python format, `data_batch_1` and so on, unpickled without running code.

    Only dicts of arrays are unpickled, by Python and not by NumPy; any other content is refused.

    Returns: Batch of uint8 images (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for no files, other content, and images or labels of other shapes or dtypes.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'batch'
    >>> made = {b'data': np.zeros((1, 3072), np.uint8), b'labels': [7]}
    >>> _ = file.write_bytes(pickle.dumps(made))
    >>> x, y = read_cifar_python(file)
    >>> x.shape, y.tolist()
    ((1, 32, 32, 3), [7])
    """
    _expect_paths("read_cifar_python", paths)
    images, labels = zip(*[_unpickle(path) for path in paths], strict=True)
    return Batch(_images(np.concatenate(images)), np.concatenate(labels).astype(np.int32))


def read_sheets(folder: str | Path, pattern: str, labels: str) -> Batch:
    """Images of 32 x 32 tiled row by row on larger images, and their labels as raw uint8.

    Args:
      folder: of the sheets and the labels.
      pattern: of the names of the sheets, such as 'test_exact_*.webp'; read in order of name.
      labels: name of the file of labels.

    Returns: Batch of uint8 images (n, 32, 32, 3) and int32 labels (n,).
    Raises: ValueError for no sheets, damaged ones, sides that 32 does not divide, or another number
      of labels than images; ModuleNotFoundError without pillow.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new('RGB', (64, 32)).save(folder / 'sheet_0.png')   # two black images
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
        try:
            with Image.open(path) as image:
                sheet = np.asarray(image.convert("RGB"))
        except (
            OSError,
            SyntaxError,
            ValueError,
        ) as error:  # the classes that pillow raises for a bad file
            raise ValueError(
                f"read_sheets: expected an image at {path}, got a damaged or foreign file "
                f"({error}); fetch it again"
            ) from error
        (down, rest), (across, beyond) = (divmod(side, 32) for side in sheet.shape[:2])
        if rest or beyond:
            raise ValueError(
                f"read_sheets: expected sides that 32 divides, got {sheet.shape[:2]} in {path}; "
                "check the folder"
            )
        tiles = sheet.reshape(down, 32, across, 32, 3).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, 32, 32, 3))
    x = np.concatenate(parts)
    raw = read_bytes("read_sheets", Path(folder) / labels)
    y = np.frombuffer(raw, np.uint8).astype(np.int32)
    if len(x) != len(y):
        raise ValueError(
            f"read_sheets: expected a label for each of {len(x)} images, got {len(y)} in "
            f"{labels}; check {folder}"
        )
    return Batch(x, y)


def _images(planes: np.ndarray) -> np.ndarray:
    """(n, 3072) bytes in the order color, row, column to (n, 32, 32, 3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _expect_paths(where: str, paths: Sequence[Any]) -> None:
    if not paths:
        raise ValueError(f"{where}: expected at least one file, got none; name the files")


def _expect_classes(where: str, path: str | Path, labels: np.ndarray) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise ValueError(
            f"{where}: expected labels in [0, {len(CLASSES)}), got {labels.min()} to "
            f"{labels.max()} in {path}; fetch it again"
        )


class _Dtype:
    """A pickled dtype. NumPy's own class would accept any state that a file gives it."""

    def __init__(self, name: Any, *_: Any):
        self.name = name.decode() if isinstance(name, bytes) else name
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else order

    def dtype(self) -> np.dtype:
        if not re.fullmatch("[iu][1248]|f[48]", self.name) or self.order not in "<>=|":
            raise pickle.UnpicklingError(f"it has an array of dtype {self.name!r}")
        return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """A pickled array, which `__setstate__` fills."""

    def __init__(self, *_: Any):
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if fortran else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    flat = np.frombuffer(content, dtype.dtype())
    return flat.reshape(shape, order="F" if order in ("F", b"F") else "C")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


_ALLOWED: dict[str, dict[str, Any]] = {
    r"numpy(\.(_core|core)(\.multiarray)?)?": {
        "_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype,
    },
    r"numpy\.(_core|core)\.numeric": {"_frombuffer": _from_buffer},
    "_codecs": {"encode": _encode},  # of bytes in newer pickles
}  # fmt: skip


class _ArraysOnly(pickle._Unpickler):  # the one in Python, which is memory-safe for any file
    """Resolves the few names that pickled arrays need, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        for pattern, names in _ALLOWED.items():
            if re.fullmatch(pattern, module) and name in names:
                return names[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3072) and labels (n,) of a file."""
    try:
        content = read_bytes("read_cifar_python", path)
        loaded = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict) or not {b"data", b"labels"} <= loaded.keys():
            raise ValueError(f"{type(loaded).__name__} without data and labels")
        data, labels = (_array(loaded[name]) for name in (b"data", b"labels"))
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _ROW - 1:
            raise ValueError(f"data of dtype {data.dtype} and shape {data.shape}")
        if labels.dtype.kind not in "iu" or labels.shape != data.shape[:1]:
            raise ValueError(f"labels of dtype {labels.dtype} and shape {labels.shape}")
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may ask for anything
        raise ValueError(
            f"read_cifar_python: expected a pickled dict of arrays, data (n, {_ROW - 1}) and "
            f"labels (n,), at {path}, got another file ({error}); fetch it again, and name "
            "data_batch_1 to 5 or test_batch"
        ) from error
    _expect_classes("read_cifar_python", path, labels)
    return data, labels


def _array(value: Any) -> np.ndarray:
    return value.array if isinstance(value, _Array) else np.asarray(value)
