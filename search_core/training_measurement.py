"""Measuring a derived network: on held-out images each epoch, on test images once at the end.

Legend: n images, c channels, h height, w width, k classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_core.classifier import Classifier, Logits
from search_core.data import Images
from search_core.evaluation import evaluate
from search_core.states import snapshot
from search_core.training_reports import TestMeasurement, TrainingResult


@dataclass(frozen=True)
class BestEpoch:
    """The epoch that the held-out images have chosen so far.

    Attributes:
        epoch: Which one, from 1.
        accuracy: Its validation accuracy.
        loss: Its validation loss.
        weights: The network's `state_dict` after it.
    """

    epoch: int
    accuracy: float
    loss: float
    weights: dict[str, Tensor]

    def is_worse_than(self, accuracy: float, loss: float) -> bool:
        """Whether an epoch with these is better: by accuracy, of equals by loss.

        A few held-out images soon give the same accuracy many times.

        Args:
            accuracy: The other's validation accuracy.
            loss: The other's validation loss.
        """
        return (accuracy, -loss) > (self.accuracy, -self.loss)


def main_head(network: Classifier) -> nn.Module:
    """The network without its auxiliary logits: from images to logits [n, k].

    Args:
        network: The network; its weights are shared.
    """
    return _MainHead(network)


class TestImages:
    """The test split of a data set, and further test sets, kept away until they are asked for.

    Args:
        test: The test split.
        extra: Further test sets by name.
        device: Where the network is that they will measure.
    """

    __test__ = False  # for pytest, which takes a class of this name for a test

    def __init__(self, test: Images, extra: Mapping[str, Images], device: torch.device) -> None:
        self._test = test
        self._extra = extra
        self._device = device

    def measure(self, network: Classifier, epoch: int, best: BestEpoch | None) -> TrainingResult:
        """Measures the weights that a network has, and the best ones.

        Args:
            network: The network; it is left in eval mode with the weights that it has.
            epoch: Of which epoch these are.
            best: The best ones; None where nothing was held out.
        """
        last = self._measure(network, epoch)
        if best is None or best.epoch == epoch:
            return TrainingResult(last, None if best is None else last)
        last_weights = snapshot(dict(network.state_dict()))
        network.load_state_dict(best.weights)
        best_measurement = self._measure(network, best.epoch)
        network.load_state_dict(last_weights)
        return TrainingResult(last, best_measurement)

    def _measure(self, network: Classifier, epoch: int) -> TestMeasurement:
        loss, accuracy = self._evaluate(network, self._test)
        extra = {name: self._evaluate(network, images)[1] for name, images in self._extra.items()}
        return TestMeasurement(epoch, loss, accuracy, extra)

    def _evaluate(self, network: Classifier, images: Images) -> tuple[float, float]:
        return evaluate(main_head(network), images.to(self._device))


class _MainHead(nn.Module):
    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_nchw: Tensor) -> Tensor:
        logits: Logits = self.network(x_nchw)
        return logits.main_nk
