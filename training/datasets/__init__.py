"""Labelled images from folders and from the simulator, behind one protocol."""

from training.datasets.base import DataSet, Planes, Sample
from training.datasets.chooser import open_dataset
from training.datasets.masks import Masks
from training.datasets.severstal import Severstal
from training.datasets.simulated import Simulated

__all__ = ["DataSet", "Masks", "Planes", "Sample", "Severstal", "Simulated", "open_dataset"]
