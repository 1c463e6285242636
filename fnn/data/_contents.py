"""The content of a file, whole or not at all: decompressed, and decoded if it is text."""

import bz2
import gzip
import lzma
import zlib
from pathlib import Path

_PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\0": lzma.decompress}


def read_bytes(where: str, path: str | Path) -> bytes:
    """The bytes in a file, decompressed if it begins as gzip, bzip2 or xz does.

    Raises: ValueError for a file that is truncated or damaged.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'a.gz'
    >>> _ = file.write_bytes(gzip.compress(b'hello'))
    >>> read_bytes('here', file)
    b'hello'
    """
    content = Path(path).read_bytes()
    for magic, decompress in _PACKED.items():
        if content.startswith(magic):
            try:
                return decompress(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(
                    f"{where}: expected a whole compressed file at {path}, got a truncated or "
                    f"damaged one ({error}); fetch it again"
                ) from error
    return content


def read_text(where: str, path: str | Path, encoding: str = "utf-8") -> str:
    """The text in a file, compressed or not, without a byte order mark; newlines as they are.

    Raises: ValueError for bytes that are no text in this encoding.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / 'a.txt'
    >>> _ = file.write_text('ü', encoding='latin-1')
    >>> read_text('here', file, 'latin-1')
    'ü'
    """
    content = read_bytes(where, path)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise ValueError(
            f"{where}: expected text in {encoding} at {path}, got {error}; name its encoding, such "
            "as latin-1 or utf-16"
        ) from error
    except LookupError as error:
        raise ValueError(f"{where}: expected the name of an encoding, got {encoding!r}") from error
