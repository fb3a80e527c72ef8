"""Scikit-learn's handwritten digits: real images that need no download.

The test split is fixed: it depends on no seed of a user's, and a search never receives it.

Legend: n images, c channels, h height, w width.
"""

from pathlib import Path

import torch

from search_core.data.images import Dataset, Normalisation
from search_core.data.loading import register
from search_core.data.sampling import stratified
from search_core.data.stored import StoredImages
from search_core.randomness import stream
from search_core.spec.datasets import DigitsDataset

_SPLIT_SEED = 0


@register("digits")
def load_digits(dataset: DigitsDataset, folder: Path) -> Dataset:
    """Loads the images and divides them into training and test split, class by class."""
    from sklearn import datasets  # slow to import, and only needed here

    bunch = datasets.load_digits()
    pixels_nchw = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
    labels_n = torch.from_numpy(bunch.target).long()
    generator = stream(_SPLIT_SEED, "digits test split")
    test_n = stratified(labels_n, dataset.facts.num_test, generator)
    is_test_n = torch.zeros(len(labels_n), dtype=torch.bool)
    is_test_n[test_n] = True
    everything = StoredImages(pixels_nchw, labels_n, Normalisation.of(dataset.facts))
    return Dataset(
        train=everything.take((~is_test_n).nonzero().squeeze(1)),
        test=everything.take(is_test_n.nonzero().squeeze(1)),
    )
