"""The network that is built of an architecture, told apart by `kind`. Free of torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from search_core.spec.base import SpecModel, field_error
from search_core.spec.primitives import Family


class CellNetworkSpec(SpecModel):
    """The network that is built of a pair of cells, and how it is kept from overfitting."""

    kind: Literal["cell"] = "cell"
    """That of the architecture, which chooses it where it is left out."""
    family: Family | None = None
    """Which operations the primitive names stand for; null is the family that a published
    architecture was published with, and `darts` for a genotype."""
    form: Literal["cifar", "imagenet"] = "cifar"
    """The stem: `cifar` keeps the image size, `imagenet` divides it by 8."""
    channels: int = Field(default=36, ge=1, le=1024)
    """Channels of the first cell; each reduction doubles them."""
    cells: int = Field(default=20, ge=3, le=100)
    """Depth in cells; those at a third and at two thirds reduce."""
    choke_channels: int = Field(default=32, ge=1, le=1024)
    """Middle channels of the `choke_conv` primitives."""
    auxiliary_weight: float = Field(default=0.4, ge=0, le=10)
    """Share of the auxiliary head's loss that is added to the loss; 0 builds no such head."""
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    """Chance of an operation to be left out that the last epochs reach, starting from 0."""

    @model_validator(mode="after")
    def _check_stem(self) -> Self:
        if self.form == "imagenet" and self.channels == 1:
            raise field_error(
                "the imagenet form halves channels in its stem; it needs at least 2", "channels"
            )
        return self


class PathNetworkSpec(SpecModel):
    """The network that a path through a HyperCuboid is: the path says all of it."""

    # Without a default, so that by the schema an object without it is of one kind.
    kind: Literal["path"]
    """That of the architecture, which chooses it where it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_settings_of_cells(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name in CellNetworkSpec.model_fields and name not in cls.model_fields:
                raise field_error(
                    f"{name} is a setting of networks of cells, and the architecture is a path, "
                    "which says all of its network itself; leave it out",
                    name,
                )
        return values


NetworkSpec = Annotated[CellNetworkSpec | PathNetworkSpec, Field(discriminator="kind")]
"""The network of an architecture, told apart by `kind`."""
