"""How the values of a hyperparameter are drawn: `{"loguniform": [1e-4, 1e-2]}` and the like."""

import math
import random
from typing import Annotated, Any, Self

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from search_core.spec.base import SpecModel, field_error

_MOST_CHOICES = 256

_Pair = Annotated[tuple[float, float], Field(strict=False)]
_WholePair = Annotated[tuple[int, int], Field(strict=False)]
_Choices = Annotated[
    tuple[JsonValue, ...], Field(strict=False, min_length=2, max_length=_MOST_CHOICES)
]


class SampleSpec(SpecModel):
    """What the values of one hyperparameter are drawn from: exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    uniform: _Pair | None = None
    """Any number between two, each as likely."""
    loguniform: _Pair | None = None
    """Any number between two above 0, each order of magnitude as likely."""
    randint: _WholePair | None = None
    """A whole number from the first to the second, both of them included."""
    choice: _Choices | None = None
    """One of these values."""

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        (kind,) = self.model_fields_set
        return kind

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """The values that have to be valid for all between them to be: both ends, or all choices.

        In the order in which they are written.
        """
        values: tuple[JsonValue, ...] = getattr(self, self.kind)
        return values

    @property
    def num_values(self) -> float:
        """How many different values there are; infinite between two numbers."""
        if self.randint is not None:
            return self.randint[1] - self.randint[0] + 1
        return math.inf if self.choice is None else len(self.choice)

    def draw(self, generator: random.Random) -> JsonValue:
        """A value at random."""
        if self.uniform is not None:
            return _within(generator.uniform(*self.uniform), *self.uniform)
        if self.loguniform is not None:
            low, high = self.loguniform
            return _within(math.exp(generator.uniform(math.log(low), math.log(high))), low, high)
        if self.randint is not None:
            return generator.randint(*self.randint)
        assert self.choice is not None
        return generator.choice(self.choice)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise field_error(
                "name exactly one of uniform, loguniform, randint and choice, "
                'such as {"loguniform": [1e-4, 1e-2]}'
            )
        if self.choice is not None:
            return self
        low, high = getattr(self, self.kind)
        if low >= high:
            raise field_error(
                f"{high} is not above {low}: write the lower end first; a single value belongs "
                "into the spec itself",
                self.kind,
                1,
            )
        if self.loguniform is not None and low <= 0:
            raise field_error(f"{low} has no logarithm: write an end above 0", self.kind, 0)
        return self

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


def _within(value: float, low: float, high: float) -> float:
    # Rounding may end a hair outside.
    return min(max(value, low), high)
