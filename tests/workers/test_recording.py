"""How long a runner waits for a database that is away."""

from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from search_core.genotype import CellGenotype, Edge
from store.errors import LeaseLostError
from store.leases import Lease
from store.sessions import make_engine
from store.states import Reason
from workers.recording import StoreSink

LEASE = Lease(uuid4(), uuid4(), 1)


def test_it_gives_up_when_the_lease_would_be_over() -> None:
    away = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=1")
    sink = StoreSink(away, LEASE, patience=0.5)
    with pytest.raises(LeaseLostError, match="did not answer"):
        sink.interrupted(uuid4(), Reason.NODE_LOST, "lost")


def test_a_refusal_of_the_database_is_not_repeated(engine: Engine) -> None:
    sink = StoreSink(engine, LEASE, patience=3600)

    def refuse(session: object) -> None:
        raise IntegrityError("statement", {}, Exception("refused"))

    with pytest.raises(IntegrityError):
        sink._write(refuse)


def test_without_the_lease_nothing_is_written(engine: Engine) -> None:
    genotype = CellGenotype(
        normal=(Edge("skip_connect", 0), Edge("skip_connect", 1)),
        normal_concat=(2,),
        reduce=(Edge("skip_connect", 0), Edge("skip_connect", 1)),
        reduce_concat=(2,),
    )
    sink = StoreSink(engine, LEASE, patience=1)
    with pytest.raises(LeaseLostError):
        sink.succeeded(uuid4(), genotype)
