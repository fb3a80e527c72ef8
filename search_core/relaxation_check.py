"""Whether a planned supernet computes what the plain form does, tried on a few images.

A forward pass is continuous in its rounding, so a loss and what the normalisations measure are
compared strictly. A gradient is not: of the millions of values before a network's ReLUs, single
precision puts some on the other side of the kink, where the gradient jumps. Measured on networks of
16 channels and 8 cells, that moves the gradient of one parameter or another by up to 5 %, and all
of them together by up to 1 %; for other images others. A wrong kernel moves the gradients of its
own weights by far more, whatever the images.

Where a search trains in a lower precision, that is compared as well: other kernels compute it, or
the same ones of other types. Half precision moves gradients by 15 to 75 % of their norms, in either
form, and a single tensor's by next to nothing or by all of it, as chance has it: so the mean over
all tensors is held against what the plain form's are moved by.

Legend: n images, k classes.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from search_core.data import Images, LabelledImages
from search_core.orders import frozen
from search_core.precision import logits
from search_core.supernet import Supernet

_FORWARD_TOLERANCE = 1e-3
_GRADIENT_TOLERANCE = 0.05
_FLOOR = 0.01
"""Of the root mean square over all tensors: what a tensor is less than that is not looked at."""
_ROUNDINGS = 2.0
"""How many times as far from single precision as the plain form a plan may be in a lower one."""
_NOTHING = 1e-4
"""A norm that may be rounding, as all are of one image: a mean over what was normalised is 0."""

# A quarter of a batch, so that the plain form does not take more memory here than a plan takes to
# train; but with fewer, a normalisation of small images has next to nothing to average over.
_FEWEST, _MOST = 4, 8
_TRIES = 3

_STEP = torch.finfo(torch.bfloat16).eps
"""How far apart losses of half precision are that are next to each other, relatively."""

# The gradient of a network that is sure and right is mostly rounding, and that of a network which
# knows nothing is small where the targets are even: this is neither.
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Difference:
    """The largest one between both forms.

    Attributes:
        what: Where it is, for people.
        relative: Of the norms.
        tolerance: The most that rounding explains.
    """

    what: str
    relative: float
    tolerance: float

    @property
    def excess(self) -> float:
        """How many times the tolerance it is; beyond it above 1, and where it is not a number."""
        ratio = self.relative / self.tolerance
        return ratio if ratio == ratio else float("inf")

    def __str__(self) -> str:
        return f"{self.what} differs by {self.relative:.2g} of its norm"


def largest_difference(
    network: Supernet, images: Images, *, batch_size: int, jointly: bool = False
) -> Difference:
    """Compares losses, gradients and running statistics of a planned network with its plain form's.

    A copy of the network does it, with random numbers of its own: nothing that training depends on
    changes. Both forms begin with the same random numbers; operations that draw some may draw them
    in another order in each, and then differ.

    Args:
        network: A planned network.
        images: Images to train on, of which the first few are taken; of others where a difference
            may have been a kink.
        batch_size: Of the training.
        jointly: Whether training also takes gradients of alphas and weights in one pass.

    Returns:
        The largest difference by its tolerance. Nothing is compared where the plain loss is not
        finite: that is not for a plan to mend.
    """
    num_images = min(batch_size, max(_FEWEST, min(batch_size // 4, _MOST)))
    few = images.take(torch.arange(min(len(images), _TRIES * num_images)))
    copied = _copied(network)
    found: Difference | None = None
    for batch in list(few.in_order(num_images)):
        if len(batch) < num_images and found is not None:
            break
        difference = _difference(copied, batch, jointly=jointly)
        if found is None or difference.excess < found.excess:
            found = difference
        if found.excess <= 1:
            break
    assert found is not None
    return found


def _copied(network: Supernet) -> Supernet:
    """A plain copy, with statistics of the last batch alone."""
    network.unplan()  # a plan may hold what cannot be copied
    copied = copy.deepcopy(network).train()
    network.plan()
    for module in copied.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = 1.0
    return copied


def _difference(copied: Supernet, batch: LabelledImages, *, jointly: bool) -> Difference:
    fast, plain = _both(copied, batch, "float32", jointly=jointly)
    if not (plain.loss.isfinite() and plain.evaluated.isfinite()):
        return Difference("the loss", 0.0, _FORWARD_TOLERANCE)
    found = _largest_of(fast, plain)
    if copied.precision == "float32" or found.excess > 1:
        return found
    fast, rounded = _both(copied, batch, copied.precision, jointly=jointly)
    if not (rounded.loss.isfinite() and rounded.evaluated.isfinite()):
        return found
    return max(found, _largest_of(fast, plain, rounded), key=lambda difference: difference.excess)


def _both(
    copied: Supernet, batch: LabelledImages, precision: str, *, jointly: bool
) -> tuple["_Measured", "_Measured"]:
    """What a plan computes, and the plain form; the buffers are as before then."""
    buffers = list(copied.buffers())
    before = [buffer.clone() for buffer in buffers]

    def measured(evaluates: bool) -> _Measured:
        found = _measure(copied, batch, precision, jointly=jointly, evaluates=evaluates)
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return found

    copied.plan()
    evaluates = copied.evaluates_by_plans
    fast = measured(evaluates)
    copied.unplan()
    return fast, measured(evaluates)


def _largest_of(
    ours: "_Measured", exact: "_Measured", rounded: "_Measured | None" = None
) -> Difference:
    """The largest difference by its tolerance.

    Args:
        ours: What a plan computes.
        exact: What the plain form does in single precision.
        rounded: What it does in the plan's precision, where that is a lower one.
    """
    where = "" if rounded is None else f" in {ours.precision}"
    rounded_gradients = [None] * len(exact.gradients) if rounded is None else rounded.gradients
    gradients = zip(ours.gradients, exact.gradients, rounded_gradients, strict=True)
    return max(
        _difference_of_losses(
            f"the loss{where}", ours.loss, exact.loss, None if rounded is None else rounded.loss
        ),
        _difference_of_losses(
            f"the loss in evaluation after training{where}",
            ours.evaluated,
            exact.evaluated,
            None if rounded is None else rounded.evaluated,
        ),
        _largest(
            f"the {'statistic' if rounded is None else 'statistics of'} {{}}{where}",
            _FORWARD_TOLERANCE,
            ours.statistics,
            exact.statistics,
            None if rounded is None else rounded.statistics,
        ),
        *(
            _largest(f"the gradient of {{}}{where}", _GRADIENT_TOLERANCE, *each)
            for each in gradients
        ),
        key=lambda difference: difference.excess,
    )


def _difference_of_losses(
    what: str, ours: Tensor, exact: Tensor, rounded: Tensor | None
) -> Difference:
    tolerance = _FORWARD_TOLERANCE
    if rounded is not None:
        # It may be right by chance: two that are about a step apart are as exact.
        tolerance += _ROUNDINGS * _apart(rounded, exact) + _STEP
    return Difference(what, _apart(ours, exact), tolerance)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return abs(float(ours - theirs)) / (1 + abs(float(theirs)))


@dataclass(frozen=True)
class _Measured:
    """What a form computes, by names of parameters and buffers.

    Attributes:
        precision: Of the training.
        loss: In training.
        evaluated: The loss in evaluation, which is always in single precision; where plans do not
            evaluate, the one in training again.
        gradients: Of the halves of a step.
        statistics: Buffers after them.
    """

    precision: str
    loss: Tensor
    evaluated: Tensor
    gradients: Sequence[Mapping[str, Tensor]]
    statistics: Mapping[str, Tensor]


def _measure(
    network: Supernet, batch: LabelledImages, precision: str, *, jointly: bool, evaluates: bool
) -> _Measured:
    alphas, weights = network.architecture_parameters(), network.weight_parameters()
    # As the halves of a step ask for them: a form may spare what nobody asks for.
    passes: list[tuple[list[nn.Parameter], list[nn.Parameter]]] = [
        (alphas, weights),
        (weights, alphas),
    ]
    if jointly:
        passes.append(([*alphas, *weights], []))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    gradients = []
    device = batch.labels_n.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _exactly(device):
        for wanted, others in passes:
            with frozen(others):
                logits_nk = logits(network, batch.images_nchw, precision)
                loss = functional.cross_entropy(
                    logits_nk, batch.labels_n, label_smoothing=_SMOOTHING
                )
                found = torch.autograd.grad(loss, wanted, materialize_grads=True)
            of = zip(wanted, found, strict=True)
            gradients.append({names[id(parameter)]: gradient for parameter, gradient in of})
        evaluated = _evaluated(network, batch) if evaluates else loss.detach()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return _Measured(precision, loss.detach(), evaluated, gradients, statistics)


@torch.no_grad()
def _evaluated(network: Supernet, batch: LabelledImages) -> Tensor:
    network.eval()
    loss = functional.cross_entropy(network(batch.images_nchw), batch.labels_n)
    network.train()
    return loss


def _exactly(device: torch.device) -> AbstractContextManager[None]:
    """Has a GPU compute convolutions in full, not in TF32, which one of the forms might not use."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return flags


def _largest(
    what: str,
    tolerance: float,
    ours: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    rounded: Mapping[str, Tensor] | None,
) -> Difference:
    """The largest difference among tensors of one kind; of a lower precision, the mean one."""
    names = [name for name, each in exact.items() if each.is_floating_point()]
    if not names:
        return Difference(what, 0.0, tolerance)
    relative = _relative(ours, exact, names)
    if rounded is not None:
        tolerance += _ROUNDINGS * float(_relative(rounded, exact, names).mean())
        return Difference(what.format("all tensors"), float(relative.mean()), tolerance)
    worst = int(relative.argmax())  # what is not a number counts as the largest
    return Difference(what.format(names[worst]), float(relative[worst]), tolerance)


def _relative(
    ours: Mapping[str, Tensor], exact: Mapping[str, Tensor], names: Sequence[str]
) -> Tensor:
    """How far tensors are apart, by name."""
    norms = torch.stack([exact[name].double().norm() for name in names])
    gaps = torch.stack([(ours[name].double() - exact[name].double()).norm() for name in names])
    return gaps / (norms + _FLOOR * norms.square().mean().sqrt() + _NOTHING)
