"""A path through a HyperCuboid as a value: one operation after the other.

Source: arXiv 1903.09900, section 3.3.
"""

import hashlib
import json
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search_core.genotype.numbers import Stride, Version, Whole
from search_core.spec import axes
from search_core.spec.axes import Choice, GivenChoice
from search_core.spec.base import field_error
from search_core.spec.layers import Layers
from search_core.spec.operations import OPERATIONS

_CONFIG: Final = ConfigDict(
    extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)


def _add_operations(schema: dict[str, Any]) -> None:
    # When the schema is made: more may be registered by then than when this module is read.
    schema["enum"] = [*OPERATIONS]


class PathStep(BaseModel):
    """One operation of a path."""

    model_config = _CONFIG

    level: Whole = Field(ge=0, le=1000)
    """The level that it belongs to, from 0."""
    stride: Stride
    """1 keeps the image size, 2 halves it rounding up."""
    in_channels: Whole = Field(ge=1, le=8192)
    """Channels that come in: those that the step before puts out."""
    out_channels: Whole = Field(ge=1, le=8192)
    """Channels that go out."""
    operation: str = Field(json_schema_extra=_add_operations)
    """The operation's registered name."""
    settings: dict[str, GivenChoice] = Field(default_factory=dict)
    """Its other hyperparameters by axis, such as `kernel_size`. One that is left out has its axis's
    default; one that changes nothing is dropped, so that equal steps are equal."""

    @field_validator("operation")
    @classmethod
    def _check_operation(cls, value: str) -> str:
        if value not in OPERATIONS:
            raise ValueError(f"unknown operation {value!r}; known are: {', '.join(OPERATIONS)}")
        return value

    @model_validator(mode="after")
    def _keep_what_matters(self) -> Self:
        known = axes.layer_axes()
        checked: dict[str, Choice] = {}
        for name, choice in self.settings.items():
            if name not in known:
                raise field_error(
                    f"unknown axis {name!r}; known are: {', '.join(known)}", "settings", name
                )
            try:
                checked[name] = known[name].check(choice)
            except ValueError as error:
                raise field_error(str(error), "settings", name) from None
        kept = axes.without_idle(
            self.operation, self.in_channels, self.out_channels, (self.stride,), checked
        )
        # The model is frozen for its readers; this is still its making.
        object.__setattr__(self, "settings", kept)
        return self

    @property
    def layers(self) -> Layers:
        """What the operation is made of."""
        return axes.layers(
            self.operation, self.in_channels, self.out_channels, self.stride, self.settings
        )


class PathGenotype(BaseModel):
    """A network without branches: a stem, the steps, and a head.

    The stem is a 3x3 convolution to the first step's channels and a batch normalisation. The head
    is a SharpSepConv to `final_channels`, a global pool and a linear classifier.
    """

    model_config = _CONFIG

    kind: Literal["path"] = "path"
    """Which kind of genotype this is."""
    version: Version = 1
    """Version of this JSON form."""
    final_channels: Whole = Field(default=768, ge=1, le=8192)
    """Channels that are pooled and classified."""
    steps: tuple[PathStep, ...] = Field(min_length=1, max_length=256)
    """The operations in their order."""

    @model_validator(mode="after")
    def _check_chain(self) -> Self:
        for index, (before, step) in enumerate(
            zip(self.steps, self.steps[1:], strict=False), start=1
        ):
            if step.in_channels != before.out_channels:
                raise field_error(
                    f"step {index} takes {step.in_channels} channels, but the step before puts "
                    f"out {before.out_channels}",
                    "steps",
                    index,
                    "in_channels",
                )
            if step.level < before.level:
                raise field_error(
                    f"step {index} is on level {step.level}, after one on level {before.level}",
                    "steps",
                    index,
                    "level",
                )
        return self

    def to_json(self) -> str:
        """The JSON form, one line; `parse` reads it back to an equal genotype."""
        return self.model_dump_json()

    def to_text(self) -> str:
        """A short form that reads like the published one of cells; `parse` reads it back."""
        steps = ", ".join(repr(_as_tuple(step)) for step in self.steps)
        return f"Path(final_channels={self.final_channels}, steps=[{steps}])"

    def canonical_json(self) -> str:
        """The JSON that the hash is taken of: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits: the architecture's address."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def _as_tuple(step: PathStep) -> tuple[Any, ...]:
    plain = (step.level, step.stride, step.in_channels, step.out_channels, step.operation)
    return (*plain, step.settings) if step.settings else plain
