"""What encrypts connections over TCP: a certificate, its key, and who may be at the other end."""

from __future__ import annotations

import os
import ssl
import stat
from typing import Final

from queuectld.errors import BadConfigError
from queuectld.keys import Config

_MISMATCH: Final = "KEY_VALUES_MISMATCH"


def server_context(config: Config) -> ssl.SSLContext | None:
    """Return what new connections are encrypted with; None: they are not. Raises `BadConfigError`."""
    cert, key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    if cert is None or key is None:
        return None
    _look(cert, "tls_cert")
    if _look(key, "tls_key") & 0o007:
        raise BadConfigError(f"{key} can be read by everybody; chmod o= it", path="tls_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Whoever closes without having read a ticket would cut off what it has just sent.
    context.num_tickets = 0
    _load_pair(context, cert, key)
    if client_ca is not None:
        _look(client_ca, "tls_client_ca")
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise BadConfigError(f"there is no PEM certificate in {client_ca}", path="tls_client_ca") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        # Without this OpenSSL would ask on a terminal.
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except _PassphraseError:
        raise BadConfigError(
            f"{key} has a passphrase, which nobody can type in here; remove it: openssl pkey -in {key}", path="tls_key"
        ) from None
    except ssl.SSLError as error:
        if error.reason == _MISMATCH:
            raise BadConfigError(f"the key in {key} is not that of the certificate in {cert}", path="tls_key") from None
        why = (error.reason or str(error)).lower().replace("_", " ")
        raise BadConfigError(
            f"{cert} and {key} are not a certificate and its key in PEM ({why})", path="tls_cert"
        ) from None


class _PassphraseError(Exception):
    pass


def _no_passphrase() -> str:
    raise _PassphraseError


def _look(path: str, name: str) -> int:
    """Return the mode of a file that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
    except OSError as error:
        raise BadConfigError(f"cannot read {path}: {error.strerror}", path=name) from None
    if not stat.S_ISREG(mode):
        raise BadConfigError(f"{path} is not a file", path=name)
    return mode
