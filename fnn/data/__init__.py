"""Data on its way to training: splits and statistics, as values."""

from fnn.data.splits import split as split
from fnn.data.standardise import Standardiser as Standardiser
from fnn.data.standardise import fit_standardiser as fit_standardiser
