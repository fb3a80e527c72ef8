"""`keys create|list|revoke`, `owners list|set` and `whoami`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dartboard.cli import output
from dartboard.cli.options import Json, Url, connect

if TYPE_CHECKING:
    from dartboard.keys import Key, Owner

_ROLES = ("viewer", "member", "admin")
_NO_LIMIT = "none"


def create(
    owner: Annotated[
        str | None, typer.Option(help="Who it lets in. Default: yourself; others take an admin.")
    ] = None,
    role: Annotated[
        str,
        typer.Option(help="viewer looks, member submits and steers, admin does all of it for all."),
    ] = "member",
    name: Annotated[str, typer.Option(help="What it is used by.")] = "",
    days: Annotated[
        float | None, typer.Option(min=0, help="How long it lets in. Default: until revoked.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Make a key. Its secret is printed this once.

    With --json: the key with its secret as `key`.
    """
    if role not in _ROLES:
        raise typer.BadParameter(f"no role {role!r}; there are: {', '.join(_ROLES)}")
    with connect(url) as client:
        made = client.keys.create(owner, role, name=name, days=days)
    if as_json:
        output.print_json(made)
        return
    # The secret alone on standard output: it goes into a file or a variable from there.
    output.stderr().print(
        f"A {made.role} key of {made.owner}; keep it now, it is not shown again. Use it as "
        "DARTBOARD_API_KEY.",
        soft_wrap=True,
    )
    print(made.key)


def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List your keys, or as an admin everybody's, without their secrets.

    With --json: an array of keys.
    """
    with connect(url) as client:
        found = client.keys.list(owner)
    if as_json:
        output.print_json(found)
        return
    made = output.table("id", "owner", "role", "begins", "name", "made", "used", "state")
    for key in found:
        made.add_row(
            str(key.id),
            key.owner,
            key.role,
            key.prefix,
            key.name or "-",
            output.age(key.created_at),
            output.age(key.last_used_at),
            _state(key),
        )
    output.stdout().print(made)


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id; see `keys list`.")],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Take a key out of use, at once and for good.

    With --json: the key.
    """
    with connect(url) as client:
        revoked = client.keys.revoke(key_id)
    if as_json:
        output.print_json(revoked)
        return
    output.stdout().print(f"{revoked.prefix}... of {revoked.owner} lets nobody in any more.")


def list_owners(as_json: Json = False, url: Url = None) -> None:
    """List who searches belong to, with their weights, quotas and teams.

    With --json: an array of owners.
    """
    with connect(url) as client:
        found = client.owners.list()
    if as_json:
        output.print_json(found)
        return
    made = output.table("owner", "weight", "running", "most running", "most GPUs", "teams")
    for owner in found:
        made.add_row(*_row(owner))
    output.stdout().print(made)


def set_owner(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Their name.")],
    weight: Annotated[
        float | None, typer.Option(help="Their part of the cluster, relative to others'.")
    ] = None,
    max_running: Annotated[
        str | None, typer.Option(metavar="N|none", help="Most searches that run at once.")
    ] = None,
    max_gpus: Annotated[
        str | None, typer.Option(metavar="N|none", help="Most GPUs that they hold at once.")
    ] = None,
    team: Annotated[
        list[str] | None,
        typer.Option(
            help="See and steer searches with this label `team`. Repeatable; `none` for no team."
        ),
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Set an owner's weight, quotas and teams; what is not given stays. For admins.

    With --json: the owner.
    """
    changes: dict[str, Any] = {}
    if weight is not None:
        changes["weight"] = weight
    if max_running is not None:
        changes["max_running"] = _limit(max_running, int, "--max-running")
    if max_gpus is not None:
        changes["max_gpus"] = _limit(max_gpus, float, "--max-gpus")
    if team:
        changes["teams"] = [] if team == [_NO_LIMIT] else team
    if not changes:
        raise typer.BadParameter("name what to set: --weight, --max-running, --max-gpus or --team")
    with connect(url) as client:
        changed = client.owners.change(owner, **changes)
    if as_json:
        output.print_json(changed)
        return
    made = output.table("owner", "weight", "running", "most running", "most GPUs", "teams")
    made.add_row(*_row(changed))
    output.stdout().print(made)


def whoami(as_json: Json = False, url: Url = None) -> None:
    """Say who your key lets in, and what it lets you do.

    With --json: the same as an object.
    """
    with connect(url) as client:
        me = client.me()
        server = client.url
    if as_json:
        output.print_json(me)
        return
    teams = f", of the teams {', '.join(me.teams)}" if me.teams else ""
    until = "" if me.expires_at is None else f", until {me.expires_at.astimezone():%Y-%m-%d %H:%M}"
    output.stdout().print(f"{me.owner} at {server}: {me.role}{teams}{until}", soft_wrap=True)


def _limit(text: str, kind: type[int] | type[float], option: str) -> float | None:
    if text == _NO_LIMIT:
        return None
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter("give a number, or none", param_hint=option) from None


def _row(owner: "Owner") -> list[str]:
    return [
        owner.name,
        f"{owner.weight:g}",
        str(owner.num_running),
        "-" if owner.max_running is None else str(owner.max_running),
        "-" if owner.max_gpus is None else f"{owner.max_gpus:g}",
        ", ".join(owner.teams) or "-",
    ]


def _state(key: "Key") -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "in use"
    left = (key.expires_at - datetime.now(UTC)).total_seconds()
    return "expired" if left <= 0 else f"for {output.duration(left)} more"
