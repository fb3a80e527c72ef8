"""What is known of each data set before it is loaded. Free of torch.

Means and deviations are those of the training split's pixels on a scale from 0 to 1, by channel.
They are published values: for CIFAR-10, the ones in use with DARTS (arXiv 1806.09055); for
CIFAR-100, SVHN, MNIST, Fashion-MNIST and STL-10, what measuring the training split gives and
common training code uses; for each split of EMNIST, the measurements of PyTorch Lightning Bolts;
for ImageNet, torchvision's. Those of digits were computed here, and a test computes them again.
"""

from dataclasses import dataclass
from typing import Final, Literal

EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]
ExtraTest = Literal["cifar10_1"]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set without loading it.

    Attributes:
        image_shape: Channels, height and width of one image.
        num_classes: How many classes its labels have.
        num_train: Images of the training split, which a search divides into its two halves.
        num_test: Images of the test split, which no search sees.
        mean: Mean of the training split's pixels by channel, with the brightest value at 1.
        std: Their standard deviation, likewise.
        summary: One sentence for a list of data sets.
        brightest: The largest value a pixel can have; the smallest is 0.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    summary: str
    brightest: int = 255

    @property
    def num_bytes(self) -> int:
        """Bytes of both splits as they lie in memory, one for each value of a pixel."""
        channels, height, width = self.image_shape
        return (self.num_train + self.num_test) * channels * height * width


CIFAR10_MEAN: Final = (0.49139968, 0.48215827, 0.44653124)
CIFAR10_STD: Final = (0.24703233, 0.24348505, 0.26158768)
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
IMAGENET_NUM_CLASSES: Final = 1000
IMAGENET_NUM_TRAIN: Final = 1_281_167
IMAGENET_NUM_TEST: Final = 50_000

FACTS: Final[dict[str, DatasetFacts]] = {
    "digits": DatasetFacts(
        image_shape=(1, 8, 8),
        num_classes=10,
        num_train=1437,
        num_test=360,
        # One constant for the image, not one for each pixel: the border pixels hardly vary.
        mean=(0.30554309487342834,),
        std=(0.3762132227420807,),
        brightest=16,
        summary="1,797 real 8x8 grey images of handwritten digits, bundled with scikit-learn",
    ),
    "cifar10": DatasetFacts(
        image_shape=(3, 32, 32),
        num_classes=10,
        num_train=50_000,
        num_test=10_000,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        summary="60,000 colour photographs of 10 kinds of animals and vehicles, 32x32",
    ),
    "cifar100": DatasetFacts(
        image_shape=(3, 32, 32),
        num_classes=100,
        num_train=50_000,
        num_test=10_000,
        mean=(0.50707516, 0.48654887, 0.44091784),
        std=(0.26733429, 0.25643846, 0.27615047),
        summary="60,000 colour photographs of 100 kinds of things, 32x32",
    ),
    "svhn": DatasetFacts(
        image_shape=(3, 32, 32),
        num_classes=10,
        num_train=73_257,
        num_test=26_032,
        mean=(0.4376821, 0.4437697, 0.47280442),
        std=(0.19803012, 0.20101562, 0.19703614),
        summary="99,289 colour photographs of the digits of house numbers, 32x32",
    ),
    "mnist": DatasetFacts(
        image_shape=(1, 28, 28),
        num_classes=10,
        num_train=60_000,
        num_test=10_000,
        mean=(0.1307,),
        std=(0.3081,),
        summary="70,000 grey images of handwritten digits, 28x28",
    ),
    "fashion_mnist": DatasetFacts(
        image_shape=(1, 28, 28),
        num_classes=10,
        num_train=60_000,
        num_test=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        summary="70,000 grey photographs of 10 kinds of clothing, 28x28",
    ),
    "stl10": DatasetFacts(
        image_shape=(3, 96, 96),
        num_classes=10,
        num_train=5_000,
        num_test=8_000,
        mean=(0.44671062, 0.43980984, 0.40664645),
        std=(0.26034098, 0.25657727, 0.27126738),
        summary="13,000 labelled colour photographs of 10 kinds of animals and vehicles, 96x96",
    ),
}
"""The data sets of one shape and size, by name."""


def _emnist(
    what: str, num_classes: int, num_train: int, num_test: int, mean: float, std: float
) -> DatasetFacts:
    return DatasetFacts(
        image_shape=(1, 28, 28),
        num_classes=num_classes,
        num_train=num_train,
        num_test=num_test,
        mean=(mean,),
        std=(std,),
        summary=f"{num_train + num_test:,} grey images of handwritten {what}, 28x28",
    )


EMNIST_FACTS: Final[dict[EmnistSplit, DatasetFacts]] = {
    "byclass": _emnist(
        "digits, capitals and small letters", 62, 697_932, 116_323, 0.173592227, 0.331621347
    ),
    "bymerge": _emnist(
        "digits and letters, look-alike cases merged",
        47,
        697_932,
        116_323,
        0.173596326,
        0.331618547,
    ),
    "balanced": _emnist(
        "digits and letters, every class equally often",
        47,
        112_800,
        18_800,
        0.175104172,
        0.333207002,
    ),
    "letters": _emnist(
        "letters, capitals and small ones merged", 26, 124_800, 20_800, 0.172227306, 0.330915913
    ),
    "digits": _emnist("digits", 10, 240_000, 40_000, 0.173251824, 0.331631915),
    "mnist": _emnist("digits, as many as MNIST has", 10, 60_000, 10_000, 0.173304455, 0.331694036),
}
"""The six splits of EMNIST (arXiv 1702.05373), as its files have them."""

EXTRA_TEST_FACTS: Final[dict[ExtraTest, DatasetFacts]] = {
    "cifar10_1": DatasetFacts(
        image_shape=(3, 32, 32),
        num_classes=10,
        num_train=0,
        num_test=2_000,
        # It was made to be judged by networks trained on CIFAR-10, so it is normalised as that is.
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        summary="CIFAR-10.1 v6: 2,000 newer photographs of CIFAR-10's classes (arXiv 1806.00451)",
    ),
}
"""Further test sets for networks trained on another set's images; nothing trains on them."""
