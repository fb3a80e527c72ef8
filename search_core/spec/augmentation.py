"""How training images are varied, and what fits which data set. Free of torch."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from search_core.spec.base import SpecModel, field_error
from search_core.spec.datasets import BaseDataset

AutoAugmentPolicy = Literal["cifar10", "imagenet", "svhn"]

_EIGHT_BIT: Final = 255


class AugmentationSpec(SpecModel):
    """Random changes to training images, made in the order of these fields; all off by default.

    Both halves are augmented where they train: the weights' and the alphas'. No image is where it
    measures accuracy.
    """

    crop_padding: int = Field(default=0, ge=0, le=512)
    """Black pixels added on every side before the image's own size is cut out at a random place."""
    resized_crop: bool = False
    """Cut out 8 to 100 % of the area at an aspect ratio of 3:4 to 4:3 and scale it to the image
    size, instead of scaling the whole image. Only for images that are read batch by batch."""
    horizontal_flip: bool = False
    """Mirror left and right, half of the time. Not for digits and letters."""
    auto_augment: AutoAugmentPolicy | None = None
    """An AutoAugment policy (arXiv 1805.09501), by the data set that it was learned on."""
    cutout: int = Field(default=0, ge=0, le=1024)
    """Side in pixels of a square that is set to the mean colour after normalisation, around a
    random pixel and cut off at the borders (arXiv 1708.04552)."""

    @model_validator(mode="after")
    def _check_one_crop(self) -> Self:
        if self.crop_padding and self.resized_crop:
            raise field_error("choose one of crop_padding and resized_crop", "resized_crop")
        return self


def check_augmentation(augmentation: AugmentationSpec, dataset: BaseDataset) -> None:
    """Refuses an augmentation that cannot work on a data set, or would leave nothing of it.

    Args:
        augmentation: The augmentation.
        dataset: The data set.

    Raises:
        PydanticCustomError: About the field at fault, for a validator of a model that has the
            augmentation as `augmentation`.
    """
    facts = dataset.facts
    channels, height, width = facts.image_shape
    side = min(height, width)
    if augmentation.crop_padding >= side:
        raise field_error(
            f"crop_padding {augmentation.crop_padding} could leave nothing of images of "
            f"{height}x{width} pixels; it must be below {side}",
            "augmentation",
            "crop_padding",
        )
    if augmentation.cutout > side:
        raise field_error(
            f"cutout {augmentation.cutout} could leave nothing of images of {height}x{width} "
            f"pixels; it must be at most {side}",
            "augmentation",
            "cutout",
        )
    if augmentation.resized_crop and not dataset.streamed:
        raise field_error(
            f"resized_crop needs images that are read batch by batch, and {dataset.name!r} is "
            "kept in memory at its final size; use crop_padding",
            "augmentation",
            "resized_crop",
        )
    if augmentation.auto_augment and (facts.brightest != _EIGHT_BIT or channels not in (1, 3)):
        raise field_error(
            f"auto_augment is for grey or colour images with 256 levels; {dataset.name!r} has "
            f"{channels} channels and {facts.brightest + 1} levels",
            "augmentation",
            "auto_augment",
        )
