"""How the architecture weights (alphas) of a search are found."""

from typing import Literal, Self

from pydantic import Field, model_validator

from search_core.spec.base import SpecModel, field_error
from search_core.spec.finalists import Finalists

RelaxationForm = Literal["fast", "plain"]
"""How a supernet's mixtures are computed while it trains: planned as a whole, or one operation at a
time."""


class PathSampling(SpecModel):
    """Single paths in place of the mixture of all operations (arXiv 1904.00420, 1907.01845).

    The weights of an operation are then trained as they are used later, and not as one summand of
    many. Paths are drawn by the multipliers that the weighting makes of the softmaxed alphas, so
    that under Max-W no operation is ever far less likely than the heaviest.
    """

    weights: Literal["fair", "uniform", "alphas"] = "fair"
    """Which paths a weight step trains. `fair`: so many that every operation takes part once, on
    the same images, and the mean of their gradients; `uniform`: one, of which all are as likely;
    `alphas`: one, drawn by the multipliers."""
    alphas: Literal["paths", "mixture"] = "paths"
    """What trains the alphas: the losses of drawn paths, by the score function estimator (Williams
    1992), which needs no backward pass; or the gradient of the mixture, as without sampling."""
    paths: int = Field(default=8, ge=2, le=256)
    """Paths that are compared on each validation batch, where `alphas` is `paths`."""


class AlgorithmSpec(SpecModel):
    """How the architecture weights (alphas) are searched."""

    order: Literal["first", "second"] = "first"
    """First order takes the validation gradient at the current weights; second order at the
    weights one step ahead, corrected by a finite difference (arXiv 1806.09055, section 2.3)."""
    weighting: Literal["scalar", "max_w"] = "scalar"
    """How an edge weighs its primitives: by the softmax itself, or by Max-W regularization."""
    detach_max: bool = False
    """Max-W only: let no gradient flow through the maximum. Off as in the published code."""
    architecture_learning_rate: float = Field(default=3e-4, gt=0, le=10)
    """Adam's learning rate for the alphas."""
    architecture_weight_decay: float = Field(default=1e-3, ge=0, le=10)
    """Adam's weight decay for the alphas."""
    exclude_none: bool = True
    """Never derive the primitive `none`, as published; false gives the variant without the rule."""
    stop_on_collapse_epochs: int = Field(default=0, ge=0, le=10_000)
    """End a trial early once this many epochs in a row have derived a collapsed normal cell, one
    whose edges are all `skip_connect` or `none`. 0 only warns."""

    warmup_epochs: int = Field(default=0, ge=0, le=10_000)
    """First epochs in which only the weights are trained: the alphas wait until the candidates have
    learnt something to be compared by."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Divides the alphas before the softmax: below 1 sharpens the weights, above 1 levels them."""
    final_temperature: float | None = Field(default=None, gt=0, le=100)
    """The temperature of the last epoch, approached by a constant factor an epoch; null keeps
    `temperature`."""
    cost_weight: float = Field(default=0.0, ge=0, le=1000)
    """Hypercuboid only: how much the alphas' loss grows with the multiply-adds that they expect, as
    a share of the mean path's; 0 searches for accuracy alone."""

    sampling: PathSampling | None = None
    """Hypercuboid only: train one path at a time; null trains all at once, as published."""
    finalists: Finalists | None = None
    """Hypercuboid only: afterwards train the heaviest paths from scratch, and take the best one;
    null takes the heaviest, as published."""

    relaxation: Literal["auto", "fast", "plain"] = "auto"
    """How a supernet's mixtures are computed while it trains: operation by operation (`plain`), or
    planned as a whole, the same up to rounding in less time and memory (`fast`). `auto` is fast on
    a CPU and on CUDA, where it was measured, and plain elsewhere; on a GPU `fast` captures steps as
    well. A plan is compared with the plain form before it trains, and given up with a warning where
    it fails."""

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        if self.sampling is not None and self.order != "first":
            raise field_error(
                "paths that are sampled have no weight step to look ahead of; "
                "choose the order 'first'",
                "order",
            )
        return self

    @model_validator(mode="after")
    def _check_detach_max(self) -> Self:
        if self.detach_max and self.weighting != "max_w":
            raise field_error(
                f"detach_max has no effect on the {self.weighting!r} weighting; "
                "leave it out or choose the weighting 'max_w'",
                "detach_max",
            )
        return self
