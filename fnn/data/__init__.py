"""Data sets: reading, splitting, standardizing, encoding, tokenizing, streaming and auditing."""

from fnn.data.audit import Finding, Findings, Limits, audit
from fnn.data.cifar import read_cifar_binary, read_cifar_python, read_sheets
from fnn.data.csv import read_csv
from fnn.data.datasets import Dataset, load
from fnn.data.encode import Encoder, fit_encoder
from fnn.data.idx import read_idx
from fnn.data.packing import Packed, pack
from fnn.data.repeat import repeat
from fnn.data.show import show
from fnn.data.splits import (
    class_weights,
    grouped_k_fold,
    grouped_split,
    k_fold,
    split,
    stratified_grouped_k_fold,
    stratified_k_fold,
    stratified_split,
)
from fnn.data.standardize import Standardizer, fit_standardizer
from fnn.data.stream import Stream, Streamed, stream
from fnn.data.tables import Table
from fnn.data.text import Characters, Subwords, decode_bytes, encode_bytes, train_subwords
from fnn.data.windows import windows

# fmt: off
__all__ = [
    "Characters", "Dataset", "Encoder", "Finding", "Findings", "Limits", "Packed",
    "Standardizer", "Stream", "Streamed", "Subwords", "Table", "audit", "class_weights",
    "decode_bytes", "encode_bytes", "fit_encoder", "fit_standardizer", "grouped_k_fold",
    "grouped_split", "k_fold", "load", "pack", "read_cifar_binary", "read_cifar_python",
    "read_csv", "read_idx", "read_sheets", "repeat", "show", "split",
    "stratified_grouped_k_fold", "stratified_k_fold", "stratified_split", "stream",
    "train_subwords", "windows",
]
# fmt: on
