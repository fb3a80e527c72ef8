"""Many rows in one statement with one parameter, for writes whose number a user chooses."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Text, cast, column, func, insert, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from store.models import Base

RowT = TypeVar("RowT", bound=Base)


def insert_all(
    session: Session, table: type[RowT], rows: Sequence[Mapping[str, Any]]
) -> Sequence[RowT]:
    """Inserts rows that all set the same columns; the others have their defaults.

    The driver would send one statement for each row, which costs an API process more than all else
    that it does for a submission.

    Args:
        session: The caller's session.
        table: Where to.
        rows: By column, values that JSON can say; ids as `UUID`.

    Returns:
        The new rows, in any order.
    """
    if not rows:
        return []
    names = list(rows[0])
    types = table.__table__.c
    text = json.dumps([dict(row) for row in rows], default=str)
    values = cast(literal(text, Text), JSONB)
    source = func.jsonb_to_recordset(values).table_valued(
        *(column(name, types[name].type) for name in names)
    )
    made = select(*source.render_derived(with_types=True).c)
    return session.scalars(insert(table).from_select(names, made).returning(table)).all()
