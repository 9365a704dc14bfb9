"""A connection to a daemon that is encrypted: whom to believe, and what to say where that is nobody."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any, Final

from queuectl_cli.errors import CliError, UnreachableError, UsageError
from queuectl_cli.target import Target, Trust

# What OpenSSL says of a certificate: expired, not valid yet, of itself, of nobody we know, for another name.
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_UNKNOWN: Final = frozenset({18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
# What it says to bytes that are no TLS, by version.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")


def encrypt(connection: socket.socket, target: Target, patience: float) -> socket.socket:
    """Return the connection, encrypted, if the one at the other end is who it should be. Raises `CliError`."""
    try:
        context = _context(target.trust)
        connection.settimeout(patience)
        encrypted = context.wrap_socket(connection, server_hostname=target.host)
    except CliError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise _explain(error, target) from None
    try:
        _check_fingerprint(encrypted, target)
    except CliError:
        encrypted.close()
        raise
    return encrypted


class _Encrypted(ssl.SSLSocket):
    """Waits as sockets do that are not encrypted, as far as `Client` asks them to."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive; an empty answer is the end."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(0, _words(error)) from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of it."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise ConnectionError(0, _words(error)) from None


def _context(trust: Trust) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Encrypted
    # Whose certificate is named is believed, be it no authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if trust.ca is not None:
        try:
            context.load_verify_locations(trust.ca)
        except OSError as error:
            raise UsageError(f"there is no certificate in {trust.ca}: {_reason(error)}") from None
    elif trust.fingerprint is not None:
        # What is known is the certificate itself: it may vouch for itself, and for any name.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs()
    if trust.cert is not None:
        _show(context, trust.cert, trust.key)
    return context


def _show(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise UsageError(
            f"your certificate in {cert} cannot be shown: {_reason(error)}",
            "QUEUECTL_TLS_CERT names it, QUEUECTL_TLS_KEY its private key; both in PEM.",
        ) from None


def _check_fingerprint(encrypted: ssl.SSLSocket, target: Target) -> None:
    if target.trust.fingerprint is None:
        return
    expected = target.trust.fingerprint.lower().removeprefix("sha256:").replace(":", "")
    if len(expected) != 64 or set(expected) - set("0123456789abcdef"):
        raise UsageError(
            f"{target.trust.fingerprint!r} is no fingerprint: that is sha256: and 64 hexadecimal digits",
            "At the daemon:  openssl x509 -in CERTIFICATE -noout -fingerprint -sha256",
        )
    found = hashlib.sha256(encrypted.getpeercert(binary_form=True) or b"").hexdigest()
    if found != expected:
        raise UnreachableError(
            f"what answers at {target.name} is not the daemon with the fingerprint that was given",
            f"It has sha256:{found}.",
            "Either its certificate was renewed, or somebody is in between.",
            code="tls",
        )


def _explain(error: OSError, target: Target) -> UnreachableError:
    what = f"cannot reach queuectld at {target.name}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableError(*_of_certificate(error, target), code="tls")
    if isinstance(error, ssl.SSLError) and any(word in str(error) for word in _NO_TLS):
        return UnreachableError(
            f"{what} (it does not speak TLS)", "On the loopback:  -H tcp://HOST:PORT", code="tls", status=76
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(
            f"{what} (no TLS within the time)", "It is stopped, stuck, or does not speak TLS.", code="timeout"
        )
    # A daemon that ends may break off right here.
    return UnreachableError(f"{what} (it broke off the TLS handshake: {_reason(error)})", code="connection_lost")


def _of_certificate(error: ssl.SSLCertVerificationError, target: Target) -> tuple[str, ...]:
    """Return what is wrong with a certificate, and what to do about it."""
    whose = f"the certificate of {target.name}"
    if error.verify_code in {_EXPIRED, _NOT_YET}:
        when = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return f"{whose} {when}", "Renew it at the daemon, then:  queuectl daemon reload", "Or the clock here is wrong."
    if error.verify_code in _OTHER_NAME:
        return (
            f"{whose} is for another name",
            "Use a name in it:  openssl x509 -in CERTIFICATE -noout -ext subjectAltName",
        )
    if error.verify_code in _UNKNOWN:
        return (
            f"{whose} is vouched for by nobody who is known here",
            "Name the file with its authority, or with itself:  --tls-ca FILE  or  QUEUECTL_TLS_CA",
            "Or know it by its fingerprint:  --tls-fingerprint sha256:…",
        )
    return (f"{whose} is not accepted: {error.verify_message}",)


def _reason(error: OSError) -> str:
    return _words(error) if isinstance(error, ssl.SSLError) else error.strerror or str(error) or "it went away"


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
