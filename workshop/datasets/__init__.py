"""Labelled images from folders and from the simulator, behind one protocol."""

from workshop.datasets.base import DataSet, Planes, Sample
from workshop.datasets.chooser import open_dataset
from workshop.datasets.masks import Masks
from workshop.datasets.severstal import Severstal
from workshop.datasets.simulated import Simulated

__all__ = ["DataSet", "Masks", "Planes", "Sample", "Severstal", "Simulated", "open_dataset"]
