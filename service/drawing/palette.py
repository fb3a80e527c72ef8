"""Font and colours that all pictures share; dark enough to read on white."""

from typing import Final

FONT: Final = "Helvetica,Arial,sans-serif"
INK: Final = "#1f2933"
GREY: Final = "#9aa5b1"
FAINT: Final = "#e4e7eb"
