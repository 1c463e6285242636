"""The idx file format of MNIST and Fashion-MNIST."""

import math
from pathlib import Path

import numpy as np

from fnn.data._contents import read_bytes

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an idx file, plain or compressed with gzip, in native byte order.

    The format: two zero bytes, a type, the number of axes, the sizes as big-endian int32, then the
    elements in C order.

    Raises: ValueError for a file that is not idx, of another size than its header says, or damaged.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'tiny.idx'
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(file).tolist()
    [7, 8, 9]
    """
    data = read_bytes("read_idx", path)
    axes = data[3] if len(data) > 3 else 0
    start = 4 + 4 * axes
    if len(data) < max(start, 4) or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise ValueError(
            f"read_idx: expected an idx file, got one that begins with {data[:4]!r}; check {path}"
        )
    shape = np.frombuffer(data[4:start], ">i4").tolist()
    dtype = np.dtype(_DTYPES[data[2]])
    size = math.prod(shape) * dtype.itemsize
    if len(data) - start != size or min(shape, default=0) < 0:
        raise ValueError(
            f"read_idx: expected {size} bytes of data for the shape {tuple(shape)}, got "
            f"{len(data) - start}; fetch {path} again"
        )
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
