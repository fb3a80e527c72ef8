"""Searching a HyperCuboid one path at a time.

The weights train as in single path one-shot search (arXiv 1904.00420, section 3.2): every step one
path, drawn at random. The alphas train by the score function estimator (Williams, 1992, equation
2): the gradient of the expected validation loss of a path drawn by them is the mean over drawn
paths of the loss, less that of the others, times the gradient of the path's log-probability. Only
losses are needed, no gradient through a network.

A path is drawn position by position, among the operations that read the state it has come to.

Legend: n images, p positions, o operations of a position, k classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from search_core.cuboid_supernet import CuboidSupernet
from search_core.data import LabelledImages
from search_core.derive.graph import Choices
from search_core.orders import ArchitectureGradient
from search_core.spec.algorithm import PathSampling
from search_core.supernet import Supernet


class PathSampler(nn.Module):
    """Draws paths and trains with them.

    Args:
        network: The cuboid's network.
        sampling: How the paths are drawn, and how many.
        generator: A CPU generator; what is drawn moves it on.
    """

    def __init__(
        self, network: CuboidSupernet, sampling: PathSampling, generator: torch.Generator
    ) -> None:
        super().__init__()
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

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The logits of the images x_nchw on a path drawn for a weight step, [n, k]."""
        weights_po = self.network.architecture_weights()["cuboid"].cpu()
        if self._sampling.weights == "uniform":
            weights_po = torch.ones_like(weights_po)
        return self.network.path_logits(x_nchw, self.draw(weights_po))

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
        weights_po = self.network.architecture_weights()["cuboid"].cpu()
        paths = [self.draw(weights_po) for _ in range(self._sampling.paths)]
        with torch.no_grad():
            losses = torch.stack(
                [
                    functional.cross_entropy(
                        self.network.path_logits(validation.images_nchw, path),
                        validation.labels_n,
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

    def draw(self, weights_po: Tensor) -> Choices:
        """Draws a path.

        Args:
            weights_po: On the CPU. At each position an operation is drawn in proportion to them.

        Returns:
            The index of an operation for each position.
        """
        path: list[int] = []
        open_to = self._everything
        for weights_o in weights_po:
            drawn = torch.multinomial(weights_o[open_to], 1, generator=self._generator)
            path.append(int(open_to[drawn]))
            open_to = self._reading[self.network.space.operations[path[-1]].out_channels]
        return tuple(path)

    def log_probability(self, path: Choices) -> Tensor:
        """The logarithm of the chance that `draw` draws a path by the softmaxed alphas; a scalar.

        Args:
            path: The index of an operation for each position.
        """
        scores_po = self.network.alpha / self.network.temperature
        terms = []
        open_to = self._everything
        for scores_o, index in zip(scores_po, path, strict=True):
            competing = scores_o[open_to.to(scores_o.device)]
            terms.append(scores_o[index] - competing.logsumexp(dim=0))
            open_to = self._reading[self.network.space.operations[index].out_channels]
        return torch.stack(terms).sum()
