"""Examples of batches of searches for the OpenAPI document."""

from typing import Any, Final

from service.examples import DRY_RUN, SEARCH

BATCHES: Final[dict[str, Any]] = {
    "two searches": {
        "summary": "The same spec with two seeds, as two searches",
        "value": {
            "searches": [{"preset": "digits-quick", "trials": {"seeds": [seed]}} for seed in (0, 1)]
        },
    }
}
SUBMITTED: Final = {"items": [SEARCH]}
DRY_RUNS: Final = {"items": [DRY_RUN]}
