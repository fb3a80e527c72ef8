"""What the API says about presets."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import WithJsonSchema

from search_core.spec import PRESETS, SearchSpec
from search_core.spec.presets import TRAINING_PRESETS, Preset
from search_core.spec.retraining import RetrainingSpec
from service.schema_base import STANDS_FOR, Answer

PresetSpec = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "anyOf": [
                {STANDS_FOR: "SearchSpec"},
                {"type": "object", "description": "A RetrainingSpec without its architecture."},
            ]
        }
    ),
]


class PresetAnswer(Answer):
    """A named spec to start from.

    `{"preset": "its name"}` is a complete body of a search. A training needs its `architecture`
    besides.
    """

    name: str
    """Its name."""
    summary: str
    """One sentence about it."""
    kind: Literal["search", "training"]
    """What starts from it."""
    spec: PresetSpec
    """The full spec that it stands for; a training's lacks the architecture."""


class PresetList(Answer):
    """All presets."""

    items: Sequence[PresetAnswer]
    """Each of them."""

    @classmethod
    def complete(cls) -> Self:
        """All that there are: those of searches, then those of trainings."""
        named = {**PRESETS, **TRAINING_PRESETS}
        return cls(
            items=[
                PresetAnswer(
                    name=name, summary=preset.summary, kind=preset.kind, spec=_full(name, preset)
                )
                for name, preset in named.items()
            ]
        )


def _full(name: str, preset: Preset) -> dict[str, Any]:
    if preset.kind == "search":
        return SearchSpec.model_validate({"preset": name}).model_dump(mode="json")
    # Some architecture, so that the others' defaults are filled in.
    spec = RetrainingSpec.model_validate({"preset": name, "architecture": "DARTS_V2"})
    return spec.model_dump(mode="json", exclude={"architecture"})
