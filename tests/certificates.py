"""Authorities and certificates that last for a test, made by `openssl`."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
LOCAL = "DNS:localhost,IP:127.0.0.1,IP:::1"


class Pair(NamedTuple):
    """A certificate and its private key, in files."""

    cert: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.cert.read_text())).hexdigest()


class Authority:
    """Signs certificates; its own is in `pair`."""

    def __init__(self, place: Path, name: str = "ca") -> None:
        self._place = place
        self.pair = self.sign_itself(name)

    def sign_itself(self, name: str, names: str = LOCAL) -> Pair:
        pair = self._pair(name)
        alternatives = ("-addext", f"subjectAltName={names}")
        _openssl("req", "-x509", *_KEY, *_files(pair), "-days", "2", "-subj", f"/CN={name}", *alternatives)
        return pair

    def sign(self, name: str, *, names: str = LOCAL, days: int = 2) -> Pair:
        """Return a certificate for these names; with less than no days it has expired."""
        pair = self._pair(name)
        request = self._place / f"{name}.csr"
        alternatives = ("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE")
        _openssl("req", *_KEY, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}", *alternatives)
        by = ("-CA", self.pair.cert, "-CAkey", self.pair.key, "-copy_extensions", "copyall")
        _openssl("x509", "-req", "-in", request, *by, "-days", str(days), "-out", pair.cert)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._place / f"{name}.pem", self._place / f"{name}.key")


def _files(pair: Pair) -> tuple[str | Path, ...]:
    return ("-keyout", pair.key, "-out", pair.cert)


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
