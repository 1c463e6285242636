"""Data on its way to training: sources, splits, statistics and encodings, as values."""

from fnn.data.cifar import read_cifar_binary as read_cifar_binary
from fnn.data.cifar import read_cifar_python as read_cifar_python
from fnn.data.cifar import read_sheets as read_sheets
from fnn.data.encode import Encoder as Encoder
from fnn.data.encode import fit_encoder as fit_encoder
from fnn.data.idx import read_idx as read_idx
from fnn.data.sets import Dataset as Dataset
from fnn.data.sets import load as load
from fnn.data.splits import class_weights as class_weights
from fnn.data.splits import grouped_split as grouped_split
from fnn.data.splits import k_fold as k_fold
from fnn.data.splits import split as split
from fnn.data.splits import stratified_split as stratified_split
from fnn.data.standardise import Standardiser as Standardiser
from fnn.data.standardise import fit_standardiser as fit_standardiser
from fnn.data.tables import Table as Table
from fnn.data.tables import read_csv as read_csv
from fnn.data.text import Characters as Characters
from fnn.data.text import Subwords as Subwords
from fnn.data.text import decode_bytes as decode_bytes
from fnn.data.text import encode_bytes as encode_bytes
from fnn.data.text import train_subwords as train_subwords
