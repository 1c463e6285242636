"""File contents, complete or refused: decompressed, and decoded if they are text."""

import bz2
import gzip
import lzma
import zlib
from pathlib import Path

_DECOMPRESS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\0": lzma.decompress}


def read_bytes(where: str, path: str | Path) -> bytes:
    """The bytes in a file, decompressed if its first bytes are those of gzip, bzip2 or xz."""
    content = Path(path).read_bytes()
    for magic, decompress in _DECOMPRESS.items():
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
    """The text in a file, compressed or not, without its byte order mark; newlines unchanged."""
    try:
        return read_bytes(where, path).decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise ValueError(
            f"{where}: expected text in {encoding} at {path}, got {error}; name its encoding, such "
            "as latin-1 or utf-16"
        ) from error
    except LookupError as error:
        raise ValueError(f"{where}: expected the name of an encoding, got {encoding!r}") from error
