"""TLS to an engine: certificates, and what is wrong with them in words. The standard library only."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from pool.clock import LoopClock
from pool.engine.access.address import EngineAddress
from pool.engine.access.docker_context import BadAddress

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
REFUSED_BY_ENGINE = ("ALERT", "CERTIFICATE_REQUIRED")
"""Parts of OpenSSL's reasons that say: the other end has ended the connection with an alert."""
DISCONNECTED = ("ServerDisconnectedError", "RemoteDisconnected")
"""Names of the errors of HTTP clients for a connection that ends in place of an answer."""
SILENT = (
    "the engine closed the connection without an answer; if it does so each time, it refuses our certificate: "
    "cert.pem in {folder} must be signed by the authority that the engine trusts (its --tlscacert), "
    "and must not have expired"
)
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""OpenSSL's reasons for an answer that is not TLS."""


def client_tls(address: EngineAddress) -> ssl.SSLContext | None:
    """Return the TLS settings that ca.pem, cert.pem and key.pem in the address's folder hold; None without TLS.

    Raises `BadAddress` if one is missing, cannot be read, or has expired.
    """
    folder = address.certificates
    if folder is None:
        return None
    try:
        if address.verify:
            context = ssl.create_default_context(cafile=str(folder / CA))
        else:  # the context says so: `docker context create --docker skip-tls-verify=true`
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(str(folder / CERTIFICATE), str(folder / KEY))
    except ssl.SSLError as error:
        raise BadAddress(
            f"{CA}, {CERTIFICATE} or {KEY} in {folder} cannot be used: {error.reason or error}; "
            f"they must be PEM files, and {KEY} without a password must belong to {CERTIFICATE}"
        ) from error
    except OSError as error:
        raise BadAddress(
            f"{address.text} asks for TLS, but {_unreadable(address)} cannot be read from {folder}: "
            f"{error.strerror}; set DOCKER_CERT_PATH to the folder that has {CA}, {CERTIFICATE} and {KEY}"
        ) from error
    for name in (CA, CERTIFICATE) if address.verify else (CERTIFICATE,):
        raise_if_expired(folder / name)
    return context


def _unreadable(address: EngineAddress) -> str:
    """Return the name of the first file that is missing, or all of them if each can be read."""
    assert address.certificates is not None
    for name in (CA, CERTIFICATE, KEY) if address.verify else (CERTIFICATE, KEY):
        try:
            (address.certificates / name).read_bytes()
        except OSError:
            return name
    return f"{CA}, {CERTIFICATE} and {KEY}"


def raise_if_expired(file: Path) -> None:
    """Raise `BadAddress` if the first certificate in a file does not hold today."""
    decoder = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decoder is None:
        return  # the engine will tell
    try:
        facts: dict[str, Any] = decoder(str(file))
        first, last = (ssl.cert_time_to_seconds(facts[key]) for key in ("notBefore", "notAfter"))
    except (OSError, ValueError, LookupError):
        return
    now = LoopClock().wall()
    if now > last:
        raise BadAddress(f"the certificate {file} has expired on {facts['notAfter']}; renew it")
    if now < first:
        raise BadAddress(
            f"the certificate {file} is valid from {facts['notBefore']}; check the clock of this machine"
        )


def tls_fault(error: BaseException | None, address: EngineAddress) -> str | None:
    """Return what is wrong with the certificates, and whose they are, or None if the error is another one."""
    fault, folder = _ssl_error(error), address.certificates
    if folder is None:
        return None
    if fault is None:
        return SILENT.format(folder=folder) if type(error).__name__ in DISCONNECTED else None
    if isinstance(fault, ssl.SSLCertVerificationError):
        return (
            f"the engine's certificate is refused: {fault.verify_message.rstrip('.')}; "
            f"{CA} in {folder} must be of the authority that has signed it, for the host {address.host}"
        )
    reason = fault.reason or ""
    if any(part in reason for part in REFUSED_BY_ENGINE):
        words = reason.replace("_", " ").lower()
        return (
            f"the engine refuses our certificate ({words}); {CERTIFICATE} in {folder} must be signed by the "
            "authority that the engine trusts (its --tlscacert), and must not have expired"
        )
    if reason in NO_TLS:
        return (
            "the engine does not speak TLS there; unset DOCKER_TLS_VERIFY, or give the port with TLS (2376)"
        )
    return None


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS that has caused an error, or None."""
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):  # aiohttp's have none
            return error
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1
    return None
