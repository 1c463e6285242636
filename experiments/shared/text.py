"""Text for language models of characters."""

import sysconfig
from pathlib import Path

import numpy as np

from fnn import data
from fnn.data import Characters
from fnn.types import Data


def read_text(root: str | None) -> tuple[str, str]:
    """Tiny Shakespeare, or else the sources of Python's standard library; and its name."""
    try:
        return data.load("tiny_shakespeare", root), "tiny Shakespeare"
    except FileNotFoundError as error:
        if root is not None:
            raise
        print(f"{error}\nreading the sources of Python's standard library instead")
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = "".join(path.read_text("utf-8", errors="ignore") for path in sources)
    return "".join(c for c in text if c.isascii())[:2_000_000], "Python's standard library"


def text_windows(text: str, length: int, evaluated: int | None = None) -> tuple[Data, Characters]:
    """Windows of characters: the first nine tenths train, the rest validates; and the alphabet.

    Args:
      length: of a window.
      evaluated: number of windows to validate on, evenly spaced; None for all that do not overlap.
    """
    symbols = Characters.of(text)
    tokens = symbols.encode(text).astype(np.uint8 if len(symbols) <= 256 else np.int32)
    train, valid = np.split(tokens, [9 * len(tokens) // 10])
    stride = length if evaluated is None else max(length, (len(valid) - 1) // evaluated)
    parts = Data(
        train=data.windows(train, length, stride=1),
        valid=data.windows(valid, length, stride=stride),
    )
    return parts, symbols
