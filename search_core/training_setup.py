"""What a training starts from: its network, and its images in three parts that share none."""

from dataclasses import dataclass
from pathlib import Path

import torch

from search_core import data, networks, path_network
from search_core.classifier import Classifier
from search_core.genotype import CellGenotype
from search_core.randomness import stream
from search_core.spec.networks import CellNetworkSpec
from search_core.spec.retraining import RetrainingSpec
from search_core.training_measurement import TestImages


@dataclass(frozen=True)
class TrainingImages:
    """The images of a training, each part for one purpose.

    Attributes:
        batches: What trains the weights.
        validation: What chooses the best epoch, held out of the training split; None where the
            spec holds none out.
        test: What the result is measured on, and nothing before.
    """

    batches: data.Batches
    validation: data.Images | None
    test: TestImages


def load_images(
    spec: RetrainingSpec, seed: int, *, device: torch.device, data_root: Path | str
) -> TrainingImages:
    """Loads and divides the images of a spec.

    Args:
        spec: Names the data set, and what is held out of it.
        seed: Decides what is held out, and the order and augmentation of the batches.
        device: Where the network is trained.
        data_root: The data folder.

    Returns:
        The three parts.

    Raises:
        DataNotFoundError: The data set, or a further test set, is not in its folder.
    """
    # One core trains; the others of the trial read ahead, where images come from files.
    dataset = data.load(spec.dataset, data_root, num_workers=spec.resources.cpus - 1)
    # They wait for the end, but that is no time to find out that their files are missing.
    extra_tests: dict[str, data.Images] = {
        name: data.load_extra_test(name, data_root) for name in spec.extra_tests
    }
    train, held_out = data.halves(
        dataset.train, 1 - spec.validation_portion, stream(seed, "held-out images")
    )
    batches = train.to(device).batches(
        spec.training.batch_size,
        spec.augmentation,
        order_generator=stream(seed, "training batches"),
        augmentation_generator=stream(seed, "training augmentation"),
    )
    return TrainingImages(
        batches=batches,
        validation=held_out.to(device) if len(held_out) else None,
        test=TestImages(dataset.test, extra_tests, device),
    )


def build_network(spec: RetrainingSpec, seed: int) -> Classifier:
    """Builds the network of a spec, on the CPU.

    Args:
        spec: Names the architecture, the network's size and the images that it is for.
        seed: Decides the initial weights.
    """
    facts, genotype, network = spec.dataset.facts, spec.genotype, spec.network
    weight_generator = stream(seed, "weights")
    if not isinstance(genotype, CellGenotype):
        return path_network.build(
            genotype,
            classes=facts.num_classes,
            image_shape=facts.image_shape,
            weight_generator=weight_generator,
        )
    assert isinstance(network, CellNetworkSpec)  # the spec has checked that they belong together
    assert spec.family is not None
    return networks.build(
        genotype,
        form=network.form,
        family=spec.family,
        channels=network.channels,
        cells=network.cells,
        classes=facts.num_classes,
        image_shape=facts.image_shape,
        auxiliary=network.auxiliary_weight > 0,
        choke_channels=network.choke_channels,
        weight_generator=weight_generator,
    )
