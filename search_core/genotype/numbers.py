"""Whole numbers of a genotype's JSON: what its schema calls an integer, and nothing else.

Pydantic would take "3" and true for numbers. Two texts of one architecture would differ, and the
schema that other programs check against would refuse what we accept.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; 3.0 is one."""

Version = Annotated[Literal[1], BeforeValidator(_whole)]
"""Version of a JSON form."""

Stride = Annotated[Literal[1, 2], BeforeValidator(_whole)]
"""1 keeps the image size, 2 halves it rounding up."""
