"""Further test sets, for networks that were trained on another data set's images.

Nothing trains on them and nothing is selected by them, so a search cannot name one.
"""

from pathlib import Path

import numpy as np
import torch

from search_core.data.images import Normalisation
from search_core.data.loading import DEFAULT_DATA_ROOT, check_is_as_told
from search_core.data.stored import StoredImages
from search_core.errors import DataNotFoundError
from search_core.spec.dataset_facts import EXTRA_TEST_FACTS, ExtraTest

_CIFAR10_1_FILES = ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")


def load_extra_test(name: ExtraTest, data_root: Path | str = DEFAULT_DATA_ROOT) -> StoredImages:
    """Loads a further test set.

    Args:
        name: `cifar10_1`: version 6 of CIFAR-10.1 (arXiv 1806.00451).
        data_root: The data folder, in which its files lie: for CIFAR-10.1
            `cifar10.1_v6_data.npy` and `cifar10.1_v6_labels.npy`.

    Returns:
        The images, normalised like the data set that they extend.

    Raises:
        DataNotFoundError: The files are not there, or are not what they should be.
    """
    facts = EXTRA_TEST_FACTS[name]
    folder = Path(data_root).absolute()
    try:
        # No pickles: a file of the same name must not run code.
        pixels_nhwc, labels_n = (
            torch.from_numpy(np.load(folder / file, allow_pickle=False))
            for file in _CIFAR10_1_FILES
        )
    except (OSError, ValueError) as error:
        raise DataNotFoundError(
            f"no usable test set {name!r} in {folder}: {error}; put "
            f"{' and '.join(_CIFAR10_1_FILES)} there"
        ) from error
    images = StoredImages(
        pixels_nhwc.permute(0, 3, 1, 2).contiguous(), labels_n.long(), Normalisation.of(facts)
    )
    check_is_as_told(images, facts, facts.num_test, f"the test set {name!r} in {folder}")
    return images
