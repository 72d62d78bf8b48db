"""Labelled images from folders and from the simulator, behind one protocol."""

from workshop.datasets.base import DataSet, Planes, Sample
from workshop.datasets.chooser import open_dataset
from workshop.datasets.masks import MaskDataSet
from workshop.datasets.severstal import SeverstalDataSet
from workshop.datasets.simulated import SimulatedDataSet

__all__ = [
    "DataSet",
    "MaskDataSet",
    "Planes",
    "Sample",
    "SeverstalDataSet",
    "SimulatedDataSet",
    "open_dataset",
]
