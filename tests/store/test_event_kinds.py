"""The list of events that receivers of webhooks read is whole."""

import re
from pathlib import Path

import store
from store.events import KINDS
from store.states import SearchStatus

SOURCES = "".join(file.read_text() for file in Path(store.__file__).parent.glob("*.py"))
LISTED = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def test_every_kind_of_event_is_in_the_list() -> None:
    of_trials = set(re.findall(r'"(trial\.[a-z_]+)"', SOURCES))
    of_searches = {
        *re.findall(r'f"\{[^}]*kind[^}]*\}\.([a-z_]+)"', SOURCES),
        *re.findall(r'_ask_runner\(session, search, "([a-z_]+)"\)', SOURCES),
        # A step is named by the state that it leads to, but for two of those to the queue.
        *SearchStatus,
        "requeued",
        "resumed",
    }
    assert {"trial.epoch", "trial.retried"} <= of_trials
    assert {"best", "changed", "cancel_requested", "preempt_requested", "queued"} <= of_searches
    kinds = of_trials | {f"search.{each}" for each in of_searches}
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in LISTED] == []
    # What a webhook may ask for.
    of_trainings = {f"training.{each}" for each in of_searches}
    assert sorted(KINDS) == sorted(kinds | of_trainings)
