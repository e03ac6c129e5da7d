"""Annotated faces: datasets, their readers, crops and augmentation."""

from lmopt.data.dataset import Dataset, Face, SourceSummary, Split, summary
from lmopt.data.load import load_dataset

__all__ = ["Dataset", "Face", "SourceSummary", "Split", "load_dataset", "summary"]
