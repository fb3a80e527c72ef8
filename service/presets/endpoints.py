"""`/v1/presets`: specs worth starting from."""

from fastapi import APIRouter

from service import examples
from service.openapi import ok, problems
from service.presets.schemas import PresetList

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
    """Every preset with the full spec that it stands for: those of searches, then of trainings."""
    return PresetList.complete()
