"""Data sets: folders, zips, npz, idx, built-ins, hub sets; decoded once, in an order of the seed."""

from unnoise.data.builtin import BUILTINS
from unnoise.data.dataset import Batch, Dataset
from unnoise.data.opening import open_data
from unnoise.data.report import DataReport

__all__ = ["BUILTINS", "Batch", "DataReport", "Dataset", "open_data"]
