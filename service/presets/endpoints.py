"""`/v1/presets`: specs worth starting from."""

from fastapi import APIRouter

from search_core.spec import PRESETS, SearchSpec
from service import examples
from service.openapi import ok, problems
from service.presets.schemas import PresetAnswer, PresetList

router = APIRouter(prefix="/v1/presets", tags=["presets"])


@router.get(
    "",
    summary="List presets",
    responses={
        200: ok("All of them.", examples.PRESET_LIST),
        **problems("invalid-parameter"),
    },
)
async def list_presets() -> PresetList:
    """Every preset with the full spec that it stands for."""
    return PresetList(
        items=[
            PresetAnswer(
                name=name,
                summary=preset.summary,
                spec=SearchSpec.model_validate({"preset": name}).model_dump(mode="json"),
            )
            for name, preset in PRESETS.items()
        ]
    )
