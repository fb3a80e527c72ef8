"""One attempt: what is sent, and what each answer means."""

import asyncio
import hashlib
import hmac
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from service.webhooks import sending
from service.webhooks.sending import Sender
from store.deliveries import Outcome
from tests.service.receivers import receiving
from tests.service.test_webhook_addresses import NOW, message, send
from tests.service.test_webhook_addresses import names as names


def test_a_message_is_signed_and_says_what_it_is() -> None:
    with receiving() as receiver:
        assert send(receiver.url) == Outcome(204)
    (request,) = receiver.received
    assert request.json == {"kind": "ping"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("Dartboard/")
    assert request.headers["Dartboard-Event"] == "ping"
    assert request.headers["Dartboard-Delivery"] == str(message("").id)
    assert request.headers["Dartboard-Timestamp"] == str(int(NOW.timestamp()))
    signed = request.headers["Dartboard-Timestamp"].encode() + b"." + request.body
    code = hmac.new(b"dbw_secret", signed, hashlib.sha256).hexdigest()
    assert request.headers["Dartboard-Signature"] == f"v1={code}"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundreds_are_good(status: int) -> None:
    with receiving() as receiver:
        receiver.answer = lambda _: (status, {})
        assert send(receiver.url) == Outcome(status)


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_others_are_not(status: int) -> None:
    with receiving() as receiver:
        receiver.answer = lambda _: (status, {})
        assert send(receiver.url) == Outcome(status, f"It answered with status {status}.")


def test_redirects_are_not_followed() -> None:
    with receiving() as other, receiving() as receiver:
        receiver.answer = lambda _: (307, {"Location": other.url})
        outcome = send(receiver.url)
        assert outcome == Outcome(307, "It answered with status 307; redirects are not followed.")
        assert other.received == []


@pytest.mark.parametrize(
    ("status", "given", "meant"),
    [
        (503, "120", timedelta(seconds=120)),
        (429, "0", timedelta(0)),
        (429, "9" * 30, timedelta(seconds=10**8)),
        (503, format_datetime(NOW + timedelta(hours=1), usegmt=True), timedelta(hours=1)),
        (503, format_datetime(NOW - timedelta(hours=1), usegmt=True), -timedelta(hours=1)),
        (503, "soon", None),
        (503, "Mon, 01 Jan 99999999999999 00:00:00 GMT", None),
        (503, "-1", None),
        (503, "", None),
        (500, "120", None),
    ],
)
def test_retry_after_is_read(status: int, given: str, meant: timedelta | None) -> None:
    with receiving() as receiver:
        receiver.answer = lambda _: (status, {"Retry-After": given})
        assert send(receiver.url).retry_after == meant


def test_no_cookie_of_one_receiver_goes_to_another() -> None:
    with receiving() as one, receiving() as other:
        one.answer = lambda _: (204, {"Set-Cookie": "known=1; Path=/"})

        async def send_to_both() -> None:
            async with Sender(allow_private=True) as sender:
                for url in (one.url, other.url, one.url):
                    assert (await sender.send(message(url))).status == 204

        asyncio.run(send_to_both())
        for request in (*one.received, *other.received):
            assert "Cookie" not in request.headers


def test_what_nobody_foresaw_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("a defect")

    monkeypatch.setattr(sending, "encode", fail)
    with receiving() as receiver:
        assert send(receiver.url) == Outcome(None, "It could not be sent (RuntimeError).")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = send(f"http://127.0.0.1:{port}/")
    assert outcome.status is None
    assert outcome.error.startswith("Nobody took it (ConnectError: ")


def test_silence_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert send(url, seconds=0.3) == Outcome(None, "No answer within 0.3 s.")


def test_an_answer_that_trickles_is_given_up() -> None:
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not stop.wait(0.05):
                connection.sendall(b"X-More: x\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        outcome = send(f"http://127.0.0.1:{listener.getsockname()[1]}/", seconds=0.5)
        stop.set()
        thread.join()
    assert outcome == Outcome(None, "No answer within 0.5 s.")


def test_the_body_of_an_answer_is_not_waited_for() -> None:
    done = threading.Event()

    def endless(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
            done.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=endless, args=(listener,))
        thread.start()
        assert send(f"http://127.0.0.1:{listener.getsockname()[1]}/", seconds=5) == Outcome(200)
        done.set()
        thread.join()


def test_what_is_no_http_is_told() -> None:
    def babble(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            received = b""
            # To its end: what is left unread when the connection is closed resets it.
            while not received.endswith(b"}"):
                received += connection.recv(65_536)
            connection.sendall(b"220 smtp.example.com ready\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=babble, args=(listener,))
        thread.start()
        outcome = send(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert outcome.error.startswith("Nobody took it (RemoteProtocolError: ")


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert send(receiver.url) == Outcome(204)
        assert proxy.received == []


def test_the_certificate_is_checked_for_the_name(
    names: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked: list[str | None] = []
    server, client = _contexts(tmp_path, "hooks.test")
    server.sni_callback = lambda _, name, __: asked.append(name)
    with receiving(context=server) as receiver:
        url = f"https://hooks.test:{receiver.port}/"
        names("hooks.test", ["127.0.0.1"], ["127.0.0.1"])
        assert send(url, verify=client) == Outcome(204)
        assert receiver.received[0].headers["Host"] == f"hooks.test:{receiver.port}"
        assert asked == ["hooks.test"]
        # Not one that the system trusts.
        assert "CERTIFICATE_VERIFY_FAILED" in send(url).error
        names("other.test", ["127.0.0.1"])
        other = send(f"https://other.test:{receiver.port}/", verify=client)
        assert "not valid for 'other.test'" in other.error
        assert len(receiver.received) == 1


def _contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's with a certificate for a name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    client = ssl.create_default_context(cadata=pem.decode())
    return server, client
