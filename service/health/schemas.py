"""What the API says about itself."""

from typing import Literal

from service.schema_base import Answer


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"
    """Always ok: whoever reads this was answered."""


class Check(Answer):
    """One thing that has to be there."""

    ok: bool
    """Whether it is."""
    detail: str
    """What was found, or what to do."""


CheckName = Literal["database", "schema", "dispatcher"]
"""PostgreSQL answers; it has this version's tables; a dispatcher was seen lately."""


class Readiness(Answer):
    """Whether a search that is submitted now would run."""

    ready: bool
    """Whether every check is ok."""
    checks: dict[CheckName, Check]
    """Each of them: PostgreSQL answers, it has this version's tables, a dispatcher runs."""


class Root(Answer):
    """Where the API begins."""

    name: str
    """The product."""
    version: str
    """Its version."""
    links: dict[str, str]
    """Paths worth knowing."""
