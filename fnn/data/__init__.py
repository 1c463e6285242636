"""Data on its way to training: sources, splits, statistics and encodings, as values."""

from fnn.data.audit import Finding as Finding
from fnn.data.audit import Findings as Findings
from fnn.data.audit import Limits as Limits
from fnn.data.audit import audit as audit
from fnn.data.cifar import read_cifar_binary as read_cifar_binary
from fnn.data.cifar import read_cifar_python as read_cifar_python
from fnn.data.cifar import read_sheets as read_sheets
from fnn.data.csv import read_csv as read_csv
from fnn.data.encode import Encoder as Encoder
from fnn.data.encode import fit_encoder as fit_encoder
from fnn.data.idx import read_idx as read_idx
from fnn.data.packing import Packed as Packed
from fnn.data.packing import pack as pack
from fnn.data.repeat import repeat as repeat
from fnn.data.sets import Dataset as Dataset
from fnn.data.sets import load as load
from fnn.data.show import show as show
from fnn.data.splits import class_weights as class_weights
from fnn.data.splits import grouped_k_fold as grouped_k_fold
from fnn.data.splits import grouped_split as grouped_split
from fnn.data.splits import k_fold as k_fold
from fnn.data.splits import split as split
from fnn.data.splits import stratified_grouped_k_fold as stratified_grouped_k_fold
from fnn.data.splits import stratified_k_fold as stratified_k_fold
from fnn.data.splits import stratified_split as stratified_split
from fnn.data.standardise import Standardiser as Standardiser
from fnn.data.standardise import fit_standardiser as fit_standardiser
from fnn.data.stream import Stream as Stream
from fnn.data.stream import Streamed as Streamed
from fnn.data.stream import stream as stream
from fnn.data.tables import Table as Table
from fnn.data.text import Characters as Characters
from fnn.data.text import Subwords as Subwords
from fnn.data.text import decode_bytes as decode_bytes
from fnn.data.text import encode_bytes as encode_bytes
from fnn.data.text import train_subwords as train_subwords
from fnn.data.windows import windows as windows

# fmt: off
__all__ = [
    "Characters", "Dataset", "Encoder", "Finding", "Findings", "Limits", "Packed",
    "Standardiser", "Stream", "Streamed", "Subwords", "Table", "audit", "class_weights",
    "decode_bytes", "encode_bytes", "fit_encoder", "fit_standardiser", "grouped_k_fold",
    "grouped_split", "k_fold", "load", "pack", "read_cifar_binary", "read_cifar_python",
    "read_csv", "read_idx", "read_sheets", "repeat", "show", "split",
    "stratified_grouped_k_fold", "stratified_k_fold", "stratified_split", "stream",
    "train_subwords", "windows",
]
# fmt: on
