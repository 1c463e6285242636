"""Tokenizers: text as bytes, characters or subwords, and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fnn.data._arrays import expect_text, expect_tokens
from fnn.data._contents import read_text

Tokens = Int[np.ndarray, " tokens"]


def encode_bytes(text: str) -> Tokens:
    """The UTF-8 bytes of a text, int32 in [0, 256).

    >>> encode_bytes('aé').tolist()
    [97, 195, 169]
    """
    return np.frombuffer(expect_text("encode_bytes", text).encode(), np.uint8).astype(np.int32)


def decode_bytes(tokens: Any) -> str:
    """The text of UTF-8 bytes; invalid ones become the replacement character.

    >>> decode_bytes(encode_bytes('aé'))
    'aé'
    """
    tokens = expect_tokens("decode_bytes", tokens, 256)
    return tokens.astype(np.uint8).tobytes().decode(errors="replace")


@dataclass(frozen=True)
class Characters:
    """A character-level tokenizer: one token per symbol, numbered in the order given.

    >>> characters = Characters.of('hello')
    >>> characters.symbols, characters.encode('hole').tolist()
    ('ehlo', [1, 3, 2, 0])
    >>> characters.decode([1, 0])
    'he'
    """

    symbols: str

    @classmethod
    def of(cls, text: str) -> "Characters":
        """The tokenizer of all characters that occur in a text, sorted."""
        return cls("".join(sorted(set(expect_text("Characters.of", text)))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, int32 in [0, len).

        Raises: ValueError for an unknown character.
        """
        text = expect_text("Characters.encode", text)
        token_of = {symbol: i for i, symbol in enumerate(self.symbols)}
        unknown = sorted(set(text) - token_of.keys())
        if unknown:
            raise ValueError(
                f"Characters.encode: expected characters of {self.symbols!r}, got {unknown}; "
                "make the Characters of all texts"
            )
        return np.fromiter((token_of[symbol] for symbol in text), np.int32, len(text))

    def decode(self, tokens: Any) -> str:
        """The text of tokens: a list, or an array of NumPy or JAX."""
        tokens = expect_tokens("Characters.decode", tokens, len(self))
        return "".join(self.symbols[token] for token in tokens)


class Subwords:
    """A byte pair encoding over bytes: any text has tokens, and frequent words have few.

    Made by `train_subwords` or from a file that it saved, with the package tokenizers (the extra
    'text').
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, int32 in [0, len)."""
        return np.asarray(
            self._tokenizer.encode(expect_text("Subwords.encode", text)).ids, np.int32
        )

    def decode(self, tokens: Any) -> str:
        """The text of tokens: a list, or an array of NumPy or JAX."""
        tokens = expect_tokens("Subwords.decode", tokens, len(self))
        return self._tokenizer.decode(tokens.tolist())

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, in the format of the package tokenizers."""
        self._tokenizer.save(str(path))

    @classmethod
    def load(cls, path: str | Path) -> "Subwords":
        """The tokenizer in a file written by `save`.

        Raises: ValueError for a file that is damaged, or of another format.
        """
        content = read_text("Subwords.load", path)
        package = _tokenizers("Subwords.load")
        try:
            return cls(package.Tokenizer.from_str(content))
        except Exception as error:  # the package raises no other class
            raise ValueError(
                f"Subwords.load: expected a vocabulary of the package tokenizers at {path}, got a "
                f"damaged or foreign file ({error}); make it again by train_subwords"
            ) from error


def train_subwords(text: str, vocabulary: int) -> Subwords:
    """The byte pair encoding of a text.

    Args:
      vocabulary: number of tokens, at least the 256 bytes.

    Raises: ValueError for fewer; ModuleNotFoundError without tokenizers.
    Source: Sennrich, Haddow & Birch 2016, arXiv:1508.07909, over bytes as in GPT-2.

    >>> subwords = train_subwords('low lower lowest ' * 10, 260)
    >>> tokens = subwords.encode('slow')
    >>> len(tokens), subwords.decode(tokens)
    (2, 'slow')
    """
    text = expect_text("train_subwords", text)
    if vocabulary < 256:
        raise ValueError(
            f"train_subwords: expected at least the 256 bytes as vocabulary, got {vocabulary}"
        )
    package = _tokenizers("train_subwords")
    tokenizer = package.Tokenizer(package.models.BPE())
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return Subwords(tokenizer)


def _tokenizers(where: str) -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{where}: needs tokenizers; pip install 'fnn[text]'", name="tokenizers"
        ) from error
    return tokenizers
