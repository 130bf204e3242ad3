"""The engine that is used is the one that the docker command would use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pool.engine.access.address import DEFAULT_ADDRESS, BadAddress, engine_address, is_chosen


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def add_context(config: Path, name: str, host: str, tls: bool = False, skip: bool = False) -> Path:
    """Write a context as `docker context create` does."""
    folder = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / folder
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": skip}
    (meta / "meta.json").write_text(
        json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}})
    )
    certificates = config / "contexts" / "tls" / folder / "docker"
    if tls:
        certificates.mkdir(parents=True)
    return certificates


def test_without_any_choice_it_is_the_default_socket() -> None:
    assert engine_address().text == DEFAULT_ADDRESS
    assert not engine_address().remote
    assert not is_chosen()


def test_a_context_is_named_by_the_environment_or_by_the_configuration(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = add_context(config, "far", "tcp://10.0.0.7:2376", tls=True)
    add_context(config, "near", "unix:///run/near.sock")
    (config / "config.json").write_text(json.dumps({"currentContext": "near"}))
    assert engine_address().path == "/run/near.sock"
    assert is_chosen()
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    far = engine_address()
    assert (far.origin, far.certificates, far.verify, far.remote) == (
        "https://10.0.0.7:2376",
        certificates,
        True,
        True,
    )
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/given.sock")
    assert engine_address().path == "/run/given.sock"


def test_a_context_may_say_that_the_engine_is_not_checked(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(config, "lax", "tcp://10.0.0.7:2376", tls=True, skip=True)
    monkeypatch.setenv("DOCKER_CONTEXT", "lax")
    assert not engine_address().verify


def test_the_default_context_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine_address().text == DEFAULT_ADDRESS


def test_a_context_that_is_not_there_says_where_it_would_be(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(
        BadAddress, match=r"docker context gone cannot be read \(.*meta\.json: No such file"
    ) as told:
        engine_address()
    assert "docker context ls" in str(told.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Endpoints": {"docker": null}}', "\xff"])
def test_a_context_that_names_no_engine_is_refused(
    text: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(config, "odd", "tcp://x")
    (meta,) = config.glob("contexts/meta/*/meta.json")
    meta.write_text(text, encoding="latin-1")
    monkeypatch.setenv("DOCKER_CONTEXT", "odd")
    with pytest.raises(BadAddress, match="docker context odd names no engine"):
        engine_address()


def test_ssh_is_refused_with_the_way_that_works(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context(config, "shell", "ssh://me@far.example")
    monkeypatch.setenv("DOCKER_CONTEXT", "shell")
    with pytest.raises(
        BadAddress, match=r"docker context shell=ssh://me@far\.example cannot be used"
    ) as told:
        engine_address()
    assert "ssh -nNT -L" in str(told.value) and "HEARTH_ENGINE_FILES=apart" in str(told.value)


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(BadAddress, match="DOCKER_HOST=tcp://x:99999 cannot be used"):
        engine_address("tcp://x:99999")
