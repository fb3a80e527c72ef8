"""Data sets by their spec, their splits, and training batches that can be resumed.

A data set lies in memory on the training device, or is read batch by batch; those who train see
`Images` either way. Importing the package registers the loader of every data set.
"""

from search_core.data import digits, folders, synthetic, torchvision_sets
from search_core.data.extra_tests import load_extra_test
from search_core.data.images import Batches, Dataset, Images, LabelledImages, Normalisation
from search_core.data.loading import DEFAULT_DATA_ROOT, REGISTRY, load, register
from search_core.data.sampling import BatchSampler, halves, stratified
from search_core.data.stored import StoredImages
from search_core.data.streamed import StreamedImages

__all__ = [
    "DEFAULT_DATA_ROOT",
    "REGISTRY",
    "BatchSampler",
    "Batches",
    "Dataset",
    "Images",
    "LabelledImages",
    "Normalisation",
    "StoredImages",
    "StreamedImages",
    "digits",
    "folders",
    "halves",
    "load",
    "load_extra_test",
    "register",
    "stratified",
    "synthetic",
    "torchvision_sets",
]
