"""Keys: who they let in, and for how long."""

import re
import subprocess
import sys
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, update

from store import access, keys, owners
from store.errors import ForbiddenError, InvalidKeyError, NotFoundError
from store.models import Key
from store.sessions import transaction
from store.states import Role


def test_a_secret_lets_its_owner_in_and_is_not_stored(engine: Engine) -> None:
    with transaction(engine) as session:
        made = keys.create(session, "ana", Role.MEMBER, name="notebook")
        owners.change(session, "ana", {"teams": ["vision"]})
        who = keys.authenticate(session, keys.digest(made.secret))
        assert (who.key_id, who.owner, who.role) == (made.key.id, "ana", Role.MEMBER)
        assert who.teams == {"vision"}
        stored = session.get_one(Key, made.key.id, populate_existing=True)
        secret = made.secret.removeprefix(keys.PREFIX)
        for value in vars(stored).values():
            assert secret not in str(value)
        assert made.secret.startswith(stored.prefix)
        assert stored.last_used_at is not None


def test_secrets_are_long_and_all_different() -> None:
    drawn = {keys.draw() for _ in range(100)}
    assert len(drawn) == 100
    for secret in drawn:
        assert re.fullmatch(r"dbk_[\w-]{43}", secret)


def test_an_unknown_key_lets_nobody_in(engine: Engine) -> None:
    with transaction(engine) as session, pytest.raises(InvalidKeyError, match="no such key"):
        keys.authenticate(session, keys.digest(keys.draw()))


def test_a_revoked_key_lets_nobody_in_for_good(engine: Engine) -> None:
    with transaction(engine) as session:
        made = keys.create(session, "ana", Role.MEMBER)
    with transaction(engine) as session:
        first = keys.revoke(session, made.key.id).revoked_at
    with transaction(engine) as session:
        assert keys.revoke(session, made.key.id).revoked_at == first
        with pytest.raises(InvalidKeyError, match="was revoked"):
            keys.authenticate(session, keys.digest(made.secret))


def test_a_key_lets_in_until_it_expires(engine: Engine) -> None:
    with transaction(engine) as session:
        made = keys.create(session, "ana", Role.MEMBER, lifetime=timedelta(hours=1))
        keys.authenticate(session, keys.digest(made.secret))
    with transaction(engine) as session:
        session.execute(update(Key).values(expires_at=Key.created_at).where(Key.owner == "ana"))
        with pytest.raises(InvalidKeyError, match="has expired"):
            keys.authenticate(session, keys.digest(made.secret))


def test_two_who_use_a_key_at_once_do_not_wait_for_each_other(engine: Engine) -> None:
    with transaction(engine) as session:
        made = keys.create(session, "ana", Role.MEMBER)
    with transaction(engine) as first, transaction(engine) as second:
        keys.authenticate(first, keys.digest(made.secret))
        # It would wait for the first one's commit, which comes after it here: for ever.
        assert keys.authenticate(second, keys.digest(made.secret)).owner == "ana"


def test_roles_include_the_weaker_ones() -> None:
    assert access.includes(Role.ADMIN, Role.MEMBER)
    assert access.includes(Role.MEMBER, Role.VIEWER)
    assert access.includes(Role.VIEWER, Role.VIEWER)
    assert not access.includes(Role.VIEWER, Role.MEMBER)
    assert not access.includes(Role.MEMBER, Role.ADMIN)


def test_a_role_that_is_too_weak_is_told_which_one_would_do(engine: Engine) -> None:
    with transaction(engine) as session:
        made = keys.create(session, "ana", Role.VIEWER)
        who = keys.authenticate(session, keys.digest(made.secret))
    with pytest.raises(ForbiddenError, match="the role member, and yours is viewer"):
        access.require_role(who, Role.MEMBER)


def test_only_an_admin_who_is_let_in_counts_as_usable(engine: Engine) -> None:
    with transaction(engine) as session:
        for key in keys.page(session):
            keys.revoke(session, key.id)
        assert not keys.any_usable(session)
        keys.create(session, "ana", Role.MEMBER)
        keys.create(session, "ana", Role.ADMIN, lifetime=timedelta(0))
        assert not keys.any_usable(session)
        keys.create(session, "ana", Role.ADMIN, lifetime=timedelta(hours=1))
        assert keys.any_usable(session)


def test_what_is_not_there_is_not_found(engine: Engine) -> None:
    with transaction(engine) as session:
        with pytest.raises(NotFoundError):
            owners.get(session, "nobody")
        with pytest.raises(NotFoundError):
            keys.revoke(session, UUID(int=7))


def test_the_command_prints_the_secret_alone(engine: Engine, database_url: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "store.keys", "create", "--owner", "ops", "--days", "7"],
        env={"DARTBOARD_DATABASE_URL": database_url, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    secret = run.stdout.removesuffix("\n")
    assert secret not in run.stderr
    with transaction(engine) as session:
        who = keys.authenticate(session, keys.digest(secret))
    assert (who.owner, who.role) == ("ops", Role.ADMIN)


def test_the_command_says_what_to_do_about_a_bad_name_and_a_bare_database() -> None:
    command = [sys.executable, "-m", "store.keys", "create", "--owner"]
    away = {"DARTBOARD_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "PATH": ""}
    bad = subprocess.run([*command, "a b"], env=away, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "use letters" in bad.stderr
    bare = subprocess.run([*command, "ops"], env=away, capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stdout) == (1, "")
    assert "python -m migrations" in bare.stderr
    assert "Traceback" not in bare.stderr
