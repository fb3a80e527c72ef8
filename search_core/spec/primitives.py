"""Names of the candidate operations, by operation family.

A name means a different operation in each family; `search_core.primitives` builds both.
"""

from typing import Final, Literal

Family = Literal["darts", "sharp"]

NONE: Final = "none"
SKIP: Final = "skip_connect"

_SHARED = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
)

PRIMITIVES: Final[dict[Family, tuple[str, ...]]] = {
    "darts": (*_SHARED, "nor_conv_3x3", "nor_conv_5x5", "nor_conv_7x7"),
    "sharp": (
        *_SHARED,
        "flood_conv_3x3",
        "flood_conv_5x5",
        "dil_flood_conv_3x3",
        "dil_flood_conv_5x5",
        "choke_conv_3x3",
        "choke_conv_5x5",
        "dil_choke_conv_3x3",
        "dil_choke_conv_5x5",
    ),
}
"""Every registered primitive of a family. A supernet's own list may be any subset, in any order."""

ALL_PRIMITIVES: Final = frozenset(name for names in PRIMITIVES.values() for name in names)

DARTS: Final = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The columns of alpha in the DARTS space (arXiv 1806.09055, section 3.1)."""

SHARP_DARTS: Final = (
    NONE,
    "max_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "dil_conv_3x3",
    "flood_conv_3x3",
    "dil_flood_conv_3x3",
    "choke_conv_3x3",
    "dil_choke_conv_3x3",
)
"""The columns of alpha in the sharpDARTS space (arXiv 1903.09900)."""

SHARPER_DARTS: Final = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "flood_conv_3x3",
    "flood_conv_5x5",
    "dil_flood_conv_3x3",
)
"""The columns of alpha in the sharperDARTS space (arXiv 1903.09900)."""
