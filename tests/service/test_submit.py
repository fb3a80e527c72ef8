"""POST /v1/searches: what is stored, and everything that is refused with a pointer."""

import gzip
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from search_core.spec import AlgorithmSpec, SearchSpec
from service.spec_body import LARGEST_BODY
from store.models import Event, Search, Trial
from tests.conftest import BEARER
from tests.service.conftest import SPEC, Api, serving

JSON = {"Content-Type": "application/json"}
SPACE = {"kind": "darts"}
ALGORITHM = list(AlgorithmSpec.model_fields)


def test_a_search_is_stored_before_it_is_answered(api: Api, engine: Engine) -> None:
    answer = api.post("/v1/searches", json=SPEC)
    assert answer.status_code == 201
    search = answer.json()
    assert answer.headers["location"] == f"/v1/searches/{search['id']}"
    assert (search["status"], search["waiting"]) == ("queued", None)
    now = api.get(answer.headers["location"]).json()
    assert {**now, "waiting": None} == search
    assert now["waiting"] == {
        "position": 1,
        "why": "no dispatcher is running",
        "estimated_start": None,
    }
    assert [trial["seed"] for trial in search["trials"]] == [0, 7]
    assert search["created_at"].endswith("Z")
    assert SearchSpec.model_validate_json(json.dumps(search["spec"])).name == "first"
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Trial)) == 2


def test_a_preset_alone_is_a_spec(api: Api) -> None:
    answer = api.post("/v1/searches", json={"preset": "digits-quick"})
    assert answer.status_code == 201
    assert answer.json()["spec"]["preset"] == "digits-quick"


def test_a_dry_run_stores_nothing(api: Api, engine: Engine) -> None:
    answer = api.post("/v1/searches?dry_run=true", json=SPEC)
    assert answer.status_code == 200
    dry = answer.json()
    assert (dry["num_trials"], dry["epochs"], dry["trial_epochs"]) == (2, 3, 6)
    assert dry["images_for_weights"] + dry["images_for_alphas"] == 1437
    assert dry["batches_per_epoch"] == dry["images_for_weights"] // 32
    assert dry["spec"]["algorithm"]["order"] == "first"
    assert _num_stored(engine) == 0


@pytest.mark.parametrize("changes", [{"labels": {"größe": "é"}}, {"name": "名前 🎯"}])
def test_any_language_comes_back_as_it_was(api: Api, changes: dict[str, Any]) -> None:
    search = api.submit(**changes)
    (key,) = changes
    assert api.get(f"/v1/searches/{search['id']}").json()[key] == changes[key]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/space"]),
        ([], [""]),
        (None, [""]),
        ({"space": None}, ["/space"]),
        ({"space": {}}, ["/space/kind"]),
        ({"space": {"kind": "dart"}}, ["/space/kind"]),
        ({"space": {**SPACE, "channels": 0}}, ["/space/channels"]),
        ({"space": {**SPACE, "channels": "8"}}, ["/space/channels"]),
        ({"space": {**SPACE, "darts": 1}}, ["/space/darts"]),
        ({"space": {**SPACE, "primitives": ["none", "conv"]}}, ["/space/primitives/1"]),
        ({"space": {**SPACE, "primitives": ["none"]}}, ["/space/primitives"]),
        ({"space": SPACE, "kind": "name", "name": 5}, ["/name", "/kind"]),
        ({"space": SPACE, "colour": "red"}, ["/colour"]),
        ({"space": SPACE, "a/b~c": 1}, ["/a~1b~0c"]),
        ({"space": SPACE, "training": {"epochs": 1e9}}, ["/training/epochs"]),
        ({"space": SPACE, "training": {"epochs": 10**30}}, ["/training/epochs"]),
        ({"space": SPACE, "training": {"batch_size": 5000}}, ["/training/batch_size"]),
        (
            {"space": SPACE, "training": {"schedule": {"kind": "cosine", "power": 2}}},
            ["/training/schedule/power"],
        ),
        (
            {
                "space": SPACE,
                "training": {
                    "epochs": 3,
                    "schedule": {"kind": "cosine_power", "warmup_epochs": 3},
                },
            },
            ["/training/schedule/warmup_epochs"],
        ),
        ({"space": SPACE, "trials": {"seeds": [1, 2, 1]}}, ["/trials/seeds/2"]),
        (
            {"space": SPACE, "trials": {"seeds": [0, -1, "2"]}},
            ["/trials/seeds/1", "/trials/seeds/2"],
        ),
        ({"space": SPACE, "trials": {"seeds": []}}, ["/trials/seeds"]),
        ({"space": SPACE, "labels": {"kind": ""}}, ["/labels/kind"]),
        ({"space": SPACE, "labels": {"my key": "x"}}, ["/labels/my key"]),
        ({"space": SPACE, "labels": {"[key]": ""}}, ["/labels/[key]", "/labels/[key]"]),
        ({"space": SPACE, "labels": {"a": "\x00"}}, ["/labels/a"]),
        *(
            ({"space": SPACE, "name": f"a{each}b"}, ["/name"])
            for each in "\x00\x7f\x9b\u2028\u202e"
        ),
        ({"space": SPACE, "name": "x" * 201}, ["/name"]),
        ({"space": SPACE, "priority": 1e400}, ["/priority"]),
        ({"preset": "nope"}, ["/preset"]),
        ({"preset": 5}, ["/preset"]),
        ({"preset": 5, "colour": "red"}, ["/preset", "/colour"]),
        ({"preset": "digits-quick", "training": {"batch_size": 5000}}, ["/training/batch_size"]),
        ({"preset": "digits-quick", "space": {"nodes": 99}}, ["/space/nodes"]),
        ({"preset": "digits-quick", "space": [1]}, ["/space"]),
    ],
)
def test_each_offending_field_has_its_pointer(
    offline: Api, body: object, pointers: list[str]
) -> None:
    text = json.dumps(body).replace("Infinity", "1e400")
    answer = offline.post("/v1/searches", content=text, headers=JSON)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:dartboard:problem:invalid-spec"
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert all(error["message"] for error in problem["errors"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {**SPACE, "chanels": 4}}, "unknown field 'chanels'; did you mean 'channels'?"),
        ({"algorithm": {"x": 1}}, f"unknown field 'x'; known here are: {', '.join(ALGORITHM)}"),
        (
            {"space": {}},
            "kind is required; choose from: darts, sharp_darts, sharper_darts, hypercuboid",
        ),
        (
            {"space": {"kind": "nope"}},
            "unknown kind 'nope'; choose from: darts, sharp_darts, sharper_darts, hypercuboid",
        ),
        (
            {"training": {"schedule": {"kind": "cosin"}}},
            (
                "unknown kind 'cosin'; did you mean 'cosine'? Choose from: constant, cosine, "
                "cosine_power"
            ),
        ),
        (
            {"space": {"kind": 5}},
            "unknown kind 5; choose from: darts, sharp_darts, sharper_darts, hypercuboid",
        ),
        (
            {"algorithm": {"order": "frist"}},
            "'frist' is none of the choices; did you mean 'first'? Choose from: first, second",
        ),
        ({"training": {"epochs": 0}}, "0 is too small: it must be at least 1"),
        ({"training": {"learning_rate": 0}}, "0 is too small: it must be above 0"),
        ({"training": {"momentum": 1}}, "1 is too large: it must be below 1"),
        ({"training": {"epochs": 10**9}}, "1000000000 is too large: it must be at most 10000"),
        (
            {"training": {"epochs": "8"}},
            "'8' is not an integer: write one without quotes, a point or an exponent",
        ),
        ({"training": 3}, "3 is not an object: an object is written in braces, {...}"),
        ({"trials": {"seeds": []}}, "it is empty: it must have at least 1 item"),
        (
            {"trials": {"seeds": [*range(257)]}},
            "it has 257 items: it must have at most 256 items",
        ),
        ({"trials": {"seeds": 5}}, "5 is not a list: a list is written in brackets, [...]"),
        (
            {"trials": {"seeds": [4, 4]}},
            "seed 4 must not repeat: the same seed gives the same trial",
        ),
        ({"name": 5}, "5 is not text: text is written in double quotes"),
        ({"name": "x" * 300}, "it has 300 characters: it must have at most 200 characters"),
        (
            {"dataset": {"name": "synthetic", "image_shape": [3, 16]}},
            "item 2 is missing",
        ),
        (
            {"dataset": {"name": "image_folder", "root": "x", "num_train": 9, "num_test": 9}},
            "num_classes is required",
        ),
        (
            {"algorithm": {"exclude_none": "x" * 100}},
            f"'{'x' * 60}...' is neither true nor false; write one of them, without quotes",
        ),
    ],
)
def test_a_message_names_the_value_and_what_is_right(
    offline: Api, changes: dict[str, Any], message: str
) -> None:
    (error,) = offline.post("/v1/searches", json={"space": SPACE, **changes}).json()["errors"]
    assert error["message"] == message


def test_a_misspelt_data_set_is_told_its_right_name(offline: Api) -> None:
    body = {"space": SPACE, "dataset": {"name": "cifra10"}}
    (error,) = offline.post("/v1/searches", json=body).json()["errors"]
    assert error["pointer"] == "/dataset/name"
    assert error["message"].startswith(
        "unknown name 'cifra10'; did you mean 'cifar10'? Choose from: digits, "
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (rb'{"name": "\ud800"}', r"lone surrogate \ud800"),
        (rb'{"labels": {"\udc00": "x"}}', r"lone surrogate \udc00"),
        (b'{"priority": -' + b"9" * 10_000 + b"}", "has 10,000 digits"),
    ],
)
def test_what_json_allows_and_no_spec_can_hold_is_named(
    offline: Api, body: bytes, words: str
) -> None:
    answer = offline.post("/v1/searches", content=body, headers=JSON)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert "sys." not in answer.text


def test_a_wrong_key_is_told_from_a_wrong_value(offline: Api) -> None:
    body = {"space": SPACE, "labels": {"[key]": ""}}
    key, value = offline.post("/v1/searches", json=body).json()["errors"]
    assert key["message"].startswith("this key: '[key]' has a character that is not allowed")
    assert value["message"] == "it is empty: it must have at least 1 character"


def test_a_body_of_errors_does_not_make_an_endless_answer(offline: Api) -> None:
    body = {"space": SPACE} | {f"x{number}": 0 for number in range(5000)}
    errors = offline.post("/v1/searches", json=body).json()["errors"]
    assert len(errors) == 100


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"not json",
        b"{'space': 1}",
        b'{"space": NaN}',
        b'{"space": -Infinity}',
        b'{"name": "\xff"}',
        b'\xef\xbb\xbf{"preset": "digits-quick"}',
        '{"preset": "digits-quick"}'.encode("utf-16"),
        rb'{"preset": "digits-quick", "name": "\ud800"}',
        b'{"preset": "digits-quick", "preset": "digits-quick"}',
        b'{"space": {"kind": "darts", "kind": "darts"}}',
        b'{"priority": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"preset": "digits-quick", "labels": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"preset": "digits-quick", "space": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    ],
    ids=range(17),
)
def test_what_is_not_json_is_told_so(offline: Api, body: bytes) -> None:
    answer = offline.post("/v1/searches", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "urn:dartboard:problem:malformed-json"
    assert len(answer.content) < 1000


@pytest.mark.parametrize("given_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_told_which_header_to_send(
    offline: Api, given_type: str | None
) -> None:
    headers = {} if given_type is None else {"Content-Type": given_type}
    answer = offline.post("/v1/searches", content=json.dumps(SPEC), headers=headers)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_a_compressed_body_is_told_to_come_as_it_is(offline: Api) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps(SPEC).encode())
    answer = offline.post("/v1/searches", content=body, headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding was 'gzip'" in answer.json()["detail"]


def test_a_charset_in_the_media_type_is_fine(api: Api) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = api.post("/v1/searches?dry_run=true", content=json.dumps(SPEC), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_one_mebibyte_is_refused(offline: Api, chunked: bool) -> None:
    body = json.dumps({**SPEC, "name": "x" * LARGEST_BODY}).encode()

    async def chunks() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    content = chunks() if chunked else body
    answer = offline.post("/v1/searches", content=content, headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:dartboard:problem:body-too-large"


_KEY = f"Authorization: {BEARER['Authorization']}\r\n"


def _connected(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=4)


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_before_reading_still_gets_the_refusal(chunked: bool) -> None:
    piece = b"x" * 65_536
    body = b"%x\r\n%b\r\n" % (len(piece), piece) * 64 + b"0\r\n\r\n" if chunked else piece * 64
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST /v1/searches HTTP/1.1\r\nHost: x\r\n{_KEY}Content-Type: application/json\r\n"
    head += length
    with serving("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as address:
        for _ in range(3):
            with _connected(address) as peer:
                peer.sendall(f"{head}\r\n\r\n".encode() + body)
                answer = peer.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"urn:dartboard:problem:body-too-large" in answer


def test_who_asks_before_sending_is_refused_at_once() -> None:
    head = (
        f"POST /v1/searches HTTP/1.1\r\nHost: x\r\n{_KEY}Content-Type: application/json\r\n"
        f"Content-Length: {LARGEST_BODY + 1}\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        serving("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as address,
        _connected(address) as peer,
    ):
        peer.sendall(head.encode())
        assert peer.makefile("rb").read().startswith(b"HTTP/1.1 413")


def test_a_body_of_exactly_one_mebibyte_is_read(api: Api) -> None:
    body = json.dumps(SPEC).encode()
    body += b" " * (LARGEST_BODY - len(body))
    answer = api.post("/v1/searches?dry_run=true", content=body, headers=JSON)
    assert answer.status_code == 200


_NASTY = st.sampled_from(
    ["\x00", "\ud800", "kind", "darts", "[key]", "digits-quick", "digits", "~/", "\u202e", ""]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _NASTY,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | _NASTY, inner, max_size=4)
    ),
    max_leaves=8,
)
_FIELDS = ["preset", "name", "space", "dataset", "algorithm", "training", "trials", "resources"]
_FIELDS += ["priority", "labels"]
_ALMOST_SPECS = st.fixed_dictionaries(
    {"space": st.just(SPACE) | st.fixed_dictionaries({"kind": st.just("darts"), "nodes": _VALUES})},
    optional={name: _VALUES for name in _FIELDS if name != "space"},
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=_VALUES | _ALMOST_SPECS)
def test_no_body_makes_a_server_error_or_leaves_a_trace(
    api: Api, engine: Engine, body: object
) -> None:
    before = _num_stored(engine)
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = api.post("/v1/searches", content=content, headers=JSON)
    assert answer.status_code in (201, 400, 422), answer.text
    assert _num_stored(engine) == before + (2 if answer.status_code == 201 else 0)
    if answer.status_code != 201:
        assert answer.headers["content-type"] == "application/problem+json"


def _num_stored(engine: Engine) -> int:
    """Searches and their first events."""
    with Session(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(table)) for table in (Search, Event)
        ]
    return sum(count or 0 for count in counts)
