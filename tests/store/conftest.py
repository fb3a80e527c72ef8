"""Shorthand for the states that store tests start from."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, update

from search_core.genotype import CellGenotype, Edge
from search_core.spec import SearchSpec
from search_core.spec.retraining import RetrainingSpec
from store import leases, searches
from store.leases import Capacity, Lease, Node
from store.models import Search
from store.sessions import transaction

MINUTE = timedelta(minutes=1)
PLENTY = Capacity((Node(cpus=1000, gpus=1000),))

GENOTYPE = CellGenotype(
    normal=(Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
    reduce_concat=(2,),
)


def spec(**fields: Any) -> SearchSpec:
    """A small valid spec with some fields of one's own."""
    return SearchSpec.model_validate(
        {"space": {"kind": "darts"}, "training": {"epochs": 3}, **fields}
    )


def training_spec(**fields: Any) -> RetrainingSpec:
    """A small valid spec of a training with some fields of one's own."""
    return RetrainingSpec.model_validate(
        {"architecture": GENOTYPE, "training": {"epochs": 3}, **fields}
    )


def forget_pauses(engine: Engine) -> None:
    """Lets searches that crashed be claimed again at once."""
    with engine.begin() as connection:
        connection.execute(update(Search).values(not_before=None))


@pytest.fixture
def submit(engine: Engine) -> Callable[..., UUID]:
    """Submits a small spec, with some fields of one's own, and gives its id."""

    def submit(**fields: Any) -> UUID:
        with transaction(engine) as session:
            return searches.submit(session, spec(**fields)).id

    return submit


@pytest.fixture
def claim(engine: Engine) -> Callable[..., Lease | None]:
    """Claims the next search."""

    def claim(capacity: Capacity = PLENTY, duration: timedelta = MINUTE) -> Lease | None:
        with transaction(engine) as session:
            return leases.claim(session, capacity, holder="test", duration=duration)

    return claim


def wait_until(condition: Callable[[], object]) -> None:
    """Looks until something holds that another thread or process brings about."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
