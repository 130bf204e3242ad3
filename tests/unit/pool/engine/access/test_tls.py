"""Wrong, expired and missing certificates are told apart, with the file to mend."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pool.engine.access.address import BadAddress, EngineAddress
from pool.engine.access.tls import client_tls
from pool.engine.base import EngineUnreachable
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def client(authority: Authority, tmp_path: Path) -> Iterator[Path]:
    yield authority.issue(tmp_path / "client", "clientAuth")


def settings_of(folder: Path) -> ssl.SSLContext | None:
    return client_tls(EngineAddress("tcp://far", host="far", port=1, certificates=folder))


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_a_missing_file_is_named(client: Path, name: str) -> None:
    (client / name).unlink()
    with pytest.raises(BadAddress, match=f"but {name} cannot be read from {client}: No such file"):
        settings_of(client)


def test_a_key_of_another_certificate_is_refused(client: Path, authority: Authority, tmp_path: Path) -> None:
    other = authority.issue(tmp_path / "other", "clientAuth")
    (client / "key.pem").write_bytes((other / "key.pem").read_bytes())
    with pytest.raises(BadAddress, match=r"cannot be used: KEY_VALUES_MISMATCH.*must belong to cert\.pem"):
        settings_of(client)


def test_a_file_that_is_no_certificate_is_refused(client: Path) -> None:
    (client / "cert.pem").write_text("nothing of the kind")
    with pytest.raises(BadAddress, match="they must be PEM files"):
        settings_of(client)


def test_an_expired_certificate_of_ours_says_when(authority: Authority, tmp_path: Path) -> None:
    old = authority.issue(tmp_path / "old", "clientAuth", expired=True)
    with pytest.raises(BadAddress, match=r"cert\.pem has expired on Jan  2 00:00:00 2020 GMT; renew it"):
        settings_of(old)


@asynccontextmanager
async def server(folder: Path, trusted: Path):  # type: ignore[no-untyped-def]
    """A server with TLS that asks clients for a certificate, as an engine with --tlsverify."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
    context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"ApiVersion":"1.41"}')
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def fault_of(port: int, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return why an engine cannot be pinged, or an empty string."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    engine = DockerEngine(f"tcp://127.0.0.1:{port}", Metrics())
    try:
        await engine.ping()
    except EngineUnreachable as error:
        return str(error)
    finally:
        await engine.close()
    return ""


async def test_good_certificates_need_no_words(
    authority: Authority, client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue(tmp_path / "engine", "serverAuth", "IP:127.0.0.1")
    async with server(own, authority.ca) as port:
        assert await fault_of(port, client, monkeypatch) == ""


async def test_an_engine_of_another_authority_is_refused(
    authority: Authority, client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Authority(tmp_path / "stranger", "stranger")
    own = stranger.issue(tmp_path / "engine", "serverAuth", "IP:127.0.0.1")
    async with server(own, authority.ca) as port:
        told = await fault_of(port, client, monkeypatch)
    assert "the engine's certificate is refused: " in told and f"ca.pem in {client}" in told


async def test_an_expired_certificate_of_the_engine_is_refused(
    authority: Authority, client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue(tmp_path / "engine", "serverAuth", "IP:127.0.0.1", expired=True)
    async with server(own, authority.ca) as port:
        told = await fault_of(port, client, monkeypatch)
    assert "the engine's certificate is refused: certificate has expired" in told


async def test_an_engine_under_another_name_is_refused(
    authority: Authority, client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue(tmp_path / "engine", "serverAuth", "DNS:elsewhere")
    async with server(own, authority.ca) as port:
        told = await fault_of(port, client, monkeypatch)
    assert "IP address mismatch" in told and "for the host 127.0.0.1" in told


async def test_an_engine_that_refuses_us_is_told_apart(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue(tmp_path / "engine", "serverAuth", "IP:127.0.0.1")
    stranger = Authority(tmp_path / "stranger", "stranger").issue(tmp_path / "client", "clientAuth")
    (stranger / "ca.pem").write_bytes(authority.ca.read_bytes())
    async with server(own, authority.ca) as port:
        told = await fault_of(port, stranger, monkeypatch)
    assert "refuses our certificate" in told and f"cert.pem in {stranger}" in told


async def test_a_port_without_tls_is_told_apart(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    told = await fault_of(listening.sockets[0].getsockname()[1], client, monkeypatch)
    listening.close()
    assert "the engine does not speak TLS there; unset DOCKER_TLS_VERIFY" in told
