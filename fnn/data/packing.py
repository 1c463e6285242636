"""Sequence packing: several sequences of different lengths per row of fixed length."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from fnn._messages import refuse

Rows = Int[np.ndarray, "rows length"]
Pieces = Int[np.ndarray, " pieces"]


class Packed(NamedTuple):
    """Rows of tokens, each with the number of its sequence and its position there."""

    tokens: Integer[np.ndarray, "rows length"]
    segments: Rows  # int32; 1, 2, ... within a row, 0 in padding
    positions: Rows  # int32; counted from 0 in each segment, 0 in padding

    def labels(self, ignore_index: int = -100) -> Rows:
        """The next token of the same segment; `ignore_index` at the end of each and in padding.

        Targets for `losses.cross_entropy` with the same `ignore_index`: the mean loss over the
        tokens with a successor does not depend on the packing.

        Returns: int32 (rows, length).
        Raises: ValueError if the tokens contain `ignore_index`.

        >>> packed = pack([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])], length=4)
        >>> packed.labels().tolist()
        [[4, 5, -100, -100], [2, -100, -100, -100]]
        """
        if (self.tokens[self.segments > 0] == ignore_index).any():
            raise ValueError(
                f"Packed.labels: expected an ignore_index that is no token, got {ignore_index}; "
                "choose one outside the vocabulary"
            )
        labels = np.full(self.tokens.shape, ignore_index, np.int32)
        continues = (self.segments[:, 1:] == self.segments[:, :-1]) & (self.segments[:, 1:] > 0)
        labels[:, :-1][continues] = self.tokens[:, 1:][continues]
        return labels


def pack(sequences: Sequence[np.ndarray], length: int, *, padding: int = 0) -> Packed:
    """Packs sequences into rows by best fit decreasing; every token occurs exactly once.

    From the longest on, each sequence goes to the row with the least room that holds it. A sequence
    longer than a row is cut into segments, each with positions from 0.

    With `layers.segment_mask(segments)` a token attends only to its own segment, as if it were
    alone in its row; `Packed.labels` are the targets. The order of the rows has no meaning.

    Args:
      sequences: integers (tokens,) each; empty ones take no room.
      length: of a row, at least 1.
      padding: the token that fills up a row.

    Returns: Packed of three arrays (rows, length), the tokens in the dtype of the sequences. For
      sequences that fit a row, at most 11/9 of the minimal number of rows, plus one.
    Raises: ValueError for no tokens, a length below 1, or sequences of another rank.
    Source: Johnson 1974, "Fast algorithms for bin packing" (best fit decreasing).

    >>> packed = pack([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])], length=4)
    >>> packed.tokens.tolist()
    [[3, 4, 5, 6], [1, 2, 0, 0]]
    >>> packed.segments.tolist(), packed.positions.tolist()
    ([[1, 1, 1, 2], [1, 1, 0, 0]], [[0, 1, 2, 0], [0, 1, 0, 0]])
    """
    if isinstance(sequences, str) or not isinstance(sequences, Iterable):
        refuse("pack", "a list of sequences", sequences, "give arrays of integers")
    sequences = [np.asarray(sequence) for sequence in sequences]
    _check(sequences, length)
    stream = np.concatenate([sequence for sequence in sequences if sequence.size])
    if stream.dtype.kind not in "iu":  # uint64 beside int64
        raise ValueError(
            f"pack: expected sequences of dtypes with a common integer dtype, got {stream.dtype}; "
            "convert them to np.int64"
        )
    sizes = _pieces(np.array([len(sequence) for sequence in sequences]), length)
    row, start, segment = _best_fit(sizes, length)
    within = np.arange(len(stream)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    index = np.repeat(row * length + start, sizes) + within

    def scattered(values: np.ndarray, fill: int = 0) -> np.ndarray:
        rows = np.full((row.max() + 1) * length, fill, values.dtype)
        rows[index] = values
        return rows.reshape(-1, length)

    segments = np.repeat(segment, sizes).astype(np.int32)
    return Packed(
        scattered(stream, padding), scattered(segments), scattered(within.astype(np.int32))
    )


def _check(sequences: list[np.ndarray], length: int) -> None:
    if length < 1:
        raise ValueError(f"pack: expected a length of at least 1, got {length}")
    if not any(sequence.size for sequence in sequences):
        raise ValueError("pack: expected at least one token, got none; check the sequences")
    for i, sequence in enumerate(sequences):
        if sequence.ndim != 1 or (sequence.size and sequence.dtype.kind not in "iu"):
            raise ValueError(
                f"pack: expected sequences of integers of shape (tokens,), got {sequence.dtype} "
                f"of shape {sequence.shape} at {i}; encode texts first, by Characters or Subwords"
            )


def _pieces(sizes: np.ndarray, length: int) -> Pieces:
    """The sizes of the pieces of all sequences, in order."""
    counts = -(-sizes // length)
    pieces = np.full(counts.sum(), length)
    last = np.cumsum(counts)[counts > 0] - 1
    pieces[last] = (sizes[counts > 0] - 1) % length + 1
    return pieces


def _best_fit(sizes: Pieces, length: int) -> tuple[Pieces, Pieces, Pieces]:
    """The row of each piece, its start in that row, and its number there from 1."""
    row, start, segment = np.empty((3, len(sizes)), np.int64)
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by free room
    has_rows = 0  # bit r is set if there are rows with r free tokens
    used: list[int] = []  # number of segments of each row
    for i in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[i])
        fitting = has_rows >> size << size
        if fitting:
            room = (fitting & -fitting).bit_length() - 1
            r = open_rows[room].pop()
            has_rows ^= 0 if open_rows[room] else 1 << room
        else:
            room, r = length, len(used)
            used.append(0)
        used[r] += 1
        row[i], start[i], segment[i] = r, length - room, used[r]
        open_rows[room - size].append(r)
        has_rows |= 1 << (room - size)
    return row, start, segment
