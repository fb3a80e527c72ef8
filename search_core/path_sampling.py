"""Searching a HyperCuboid by single paths.

The weights train as in one-shot search by single paths (arXiv 1904.00420, section 3.2), by default
with strict fairness (arXiv 1907.01845, section 3.2): a step trains as many paths as it takes for
every operation to take part once. The alphas train by the score function estimator (Williams,
1992, equation 2): the gradient of the expected validation loss of a drawn path is the mean over
drawn paths of the loss, less that of the others, times the gradient of the path's log-probability.
Only losses are needed, no gradient through a network.

A path is drawn position by position, among the operations that read the state it has come to, in
proportion to their multipliers.

Legend: n images, p positions, o operations of a position, k classes.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from search_core.cuboid_supernet import CuboidSupernet
from search_core.data import LabelledImages
from search_core.derive.graph import Choices
from search_core.orders import ArchitectureGradient
from search_core.precision import logits
from search_core.spec.algorithm import PathSampling
from search_core.supernet import Supernet


class PathSampler:
    """Draws paths and trains with them.

    Args:
        network: The cuboid's network.
        sampling: How the paths are drawn, and how many.
        generator: A CPU generator; what is drawn moves it on.
    """

    def __init__(
        self, network: CuboidSupernet, sampling: PathSampling, generator: torch.Generator
    ) -> None:
        self.network = network
        self._sampling = sampling
        self._generator = generator
        self._reading = {
            channels: torch.tensor(
                [
                    index
                    for index, operation in enumerate(network.space.operations)
                    if operation.in_channels == channels
                ]
            )
            for channels in network.space.channels
        }
        self._everything = torch.arange(len(network.space.operations))

    def paths_to_train(self) -> list[Choices]:
        """The paths of the next weight step, which share its images."""
        if self._sampling.weights == "fair":
            return self.draw_fairly()
        multipliers_po = self._multipliers().detach().cpu()
        if self._sampling.weights == "uniform":
            multipliers_po = torch.ones_like(multipliers_po)
        return [self.draw(multipliers_po)]

    def order(
        self,
        network: Supernet,
        weight_optimizer: Optimizer,
        train: LabelledImages,
        validation: LabelledImages,
    ) -> ArchitectureGradient:
        """The score function's estimate of the alphas' gradient; see `search_core.orders`.

        Args:
            network: The network that this sampler was made with.
            weight_optimizer: Not used.
            train: Not used.
            validation: The batch of the alphas' half.

        Returns:
            The mean loss of the drawn paths, and the estimate.
        """
        assert network is self.network
        multipliers_po = self._multipliers().detach().cpu()
        paths = [self.draw(multipliers_po) for _ in range(self._sampling.paths)]
        with torch.no_grad():
            losses = torch.stack(
                [
                    functional.cross_entropy(
                        self.logits(validation.images_nchw, path), validation.labels_n
                    )
                    for path in paths
                ]
            )
        # Each is compared with the mean of the others, which leaves the estimate unbiased.
        others = (losses.sum() - losses) / (len(paths) - 1)
        surprise = torch.stack(
            [
                loss * self.log_probability(path)
                for loss, path in zip(losses - others, paths, strict=True)
            ]
        ).mean()
        gradients = torch.autograd.grad(surprise, self.network.architecture_parameters())
        return ArchitectureGradient(losses.mean(), gradients)

    def logits(self, x_nchw: Tensor, path: Choices) -> Tensor:
        """The logits of the images x_nchw on one path, in the network's precision, [n, k].

        Args:
            x_nchw: The images.
            path: The index of an operation for each position.
        """
        forward = partial(self.network.path_logits, path=path)
        return logits(forward, x_nchw, self.network.precision)

    def draw(self, multipliers_po: Tensor) -> Choices:
        """Draws a path.

        Args:
            multipliers_po: On the CPU. At each position an operation is drawn in proportion to
                those of all that read the state.

        Returns:
            The index of an operation for each position.
        """
        path: list[int] = []
        open_to = self._everything
        for multipliers_o in multipliers_po:
            drawn = torch.multinomial(multipliers_o[open_to], 1, generator=self._generator)
            path.append(int(open_to[drawn]))
            open_to = self._after(path[-1])
        return tuple(path)

    def draw_fairly(self) -> list[Choices]:
        """Draws as many paths as a position has operations, so that each is on one of them.

        Where fewer operations read a state than lead to it, some are on several; where more do,
        some are on none this time.
        """
        paths: list[Choices] = [(index,) for index in self._shuffled(self._everything)]
        for _ in self.network.space.positions[1:]:
            waiting: dict[int, list[int]] = {}
            continued: list[Choices] = []
            for path in paths:
                channels = self.network.space.operations[path[-1]].out_channels
                if not waiting.get(channels):
                    waiting[channels] = self._shuffled(self._reading[channels])
                continued.append((*path, waiting[channels].pop()))
            paths = continued
        return paths

    def log_probability(self, path: Choices) -> Tensor:
        """The logarithm of the chance that `draw` draws a path by the multipliers; a scalar.

        Args:
            path: The index of an operation for each position.
        """
        terms = []
        open_to = self._everything
        for multipliers_o, index in zip(self._multipliers(), path, strict=True):
            competing = multipliers_o[open_to.to(multipliers_o.device)]
            terms.append(multipliers_o[index].log() - competing.sum().log())
            open_to = self._after(index)
        return torch.stack(terms).sum()

    def _multipliers(self) -> Tensor:
        return self.network.weighting(self.network.softmaxed(self.network.alpha))

    def _after(self, index: int) -> Tensor:
        return self._reading[self.network.space.operations[index].out_channels]

    def _shuffled(self, indices: Tensor) -> list[int]:
        order = torch.randperm(len(indices), generator=self._generator)
        shuffled: list[int] = indices[order].tolist()
        return shuffled
