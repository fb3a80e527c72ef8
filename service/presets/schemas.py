"""What the API says about presets."""

from collections.abc import Sequence

from service.schema_base import Answer
from service.searches.schemas import StoredSpec


class PresetAnswer(Answer):
    """A named spec to start from: `{"preset": "its name"}` is a complete body."""

    name: str
    """Its name."""
    summary: str
    """One sentence about it."""
    spec: StoredSpec
    """The full spec that it stands for."""


class PresetList(Answer):
    """All presets."""

    items: Sequence[PresetAnswer]
    """Each of them."""
