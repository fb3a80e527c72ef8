"""What every part of a spec has in common."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class SpecModel(BaseModel):
    """A frozen part of a spec.

    Unknown fields are refused, so that a misspelt setting is an error and not silently a default.
    Types are not coerced ("8" is not 8); a JSON document is read with `model_validate_json`.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ser_json_inf_nan="null",
    )


def field_error(message: str, *path: str | int) -> PydanticCustomError:
    """An error that a model validator raises about one field below the model.

    Pydantic places such an error at the model; the path says where in it the offending value is,
    so that an API can point at it.

    Args:
        message: A sentence that says what to do.
        path: Keys and indices from the model to the field.

    Returns:
        The error to raise; its context has `message` and `path`.
    """
    return PydanticCustomError("invalid_field", "{message}", {"message": message, "path": path})
