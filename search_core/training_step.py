"""One step of training a derived network (arXiv 1806.09055, appendix A.2).

Legend: n images, k classes.
"""

import torch
from torch import nn
from torch.nn import functional

from search_core.bilevel import BatchResult
from search_core.classifier import Classifier
from search_core.data import LabelledImages
from search_core.errors import DivergedError
from search_core.optimizers import SGD
from search_core.precision import computing_in
from search_core.spec.retraining import NetworkTrainingSpec

_SMALLEST_SCALE = 1.0


class TrainingStep:
    """Loss of both heads, gradient, clipping and SGD, in the precision that a spec asks for.

    Args:
        network: The network, already on its device.
        training: Learning rate, momentum, weight decay, clipping, label smoothing, precision.
        auxiliary_weight: Share of the auxiliary head's loss.
        device: Where the network is.

    Attributes:
        optimizer: SGD over all weights.
        scaler: Scales the loss so that float16 gradients do not vanish; off in other precisions.
    """

    def __init__(
        self,
        network: Classifier,
        training: NetworkTrainingSpec,
        *,
        auxiliary_weight: float,
        device: torch.device,
    ) -> None:
        self.network = network
        self.optimizer = SGD(
            network.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
        self._device = device
        self._precision = training.precision
        self._auxiliary_weight = auxiliary_weight
        self._label_smoothing = training.label_smoothing
        self._gradient_clip = training.gradient_clip

    def __call__(self, batch: LabelledImages) -> BatchResult:
        """Makes one step.

        Args:
            batch: The training batch.

        Returns:
            Loss and hits of the main head, before the weights moved.

        Raises:
            DivergedError: The loss or the gradient is not finite. Nothing has been trained on it.
        """
        self.network.train()
        with computing_in(self._precision, self._device.type):
            logits = self.network(batch.images_nchw)
        main_nk = logits.main_nk.float()
        loss = main_loss = self._cross_entropy(main_nk, batch)
        if logits.auxiliary_nk is not None:
            auxiliary_loss = self._cross_entropy(logits.auxiliary_nk.float(), batch)
            loss = main_loss + self._auxiliary_weight * auxiliary_loss
        if not torch.isfinite(loss):
            raise DivergedError(f"the training loss is {float(loss.detach())}")
        self._descend(loss)
        num_correct = int((main_nk.argmax(dim=1) == batch.labels_n).sum())
        return BatchResult(float(main_loss.detach()), num_correct)

    def _cross_entropy(self, logits_nk: torch.Tensor, batch: LabelledImages) -> torch.Tensor:
        return functional.cross_entropy(
            logits_nk, batch.labels_n, label_smoothing=self._label_smoothing
        )

    def _descend(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._gradient_clip)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise DivergedError(f"the norm of the weights' gradient is {float(norm)}")
        # With a scaler, a gradient that is not finite is not stepped on and halves the scale:
        # usually the scale was too large. Only if that does not help, it is the network.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise DivergedError("the weights' gradient is not finite in float16 at any scale")
        self.optimizer.zero_grad()
