from __future__ import annotations

import shutil
import ssl
import subprocess

import pytest

from queuectld.errors import BadConfigError
from queuectld.keys import Config
from queuectld.server.tls import server_context
from tests.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.sign("server")


def config(pair, **others):
    return Config(**{"tls_cert": str(pair.cert), "tls_key": str(pair.key)} | others)


def refusal(config):
    with pytest.raises(BadConfigError) as caught:
        server_context(config)
    return caught.value.message, caught.value.path


def test_without_a_certificate_nothing_is_encrypted():
    assert server_context(Config()) is None


def test_nothing_older_than_1_2_is_spoken(pair):
    context = server_context(config(pair))

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_with_an_authority_clients_need_a_certificate(pair, authority):
    context = server_context(config(pair, tls_client_ca=str(authority.pair.cert)))

    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_key_that_everybody_can_read_is_refused(pair, tmp_path):
    key = shutil.copy(pair.key, tmp_path)
    (tmp_path / "server.key").chmod(0o604)

    assert refusal(config(pair, tls_key=key)) == (f"{key} can be read by everybody; chmod o= it", "tls_key")


def test_a_key_of_another_certificate_is_refused(pair, authority):
    message, path = refusal(config(pair, tls_key=str(authority.sign("another").key)))

    assert "is not that of the certificate" in message
    assert path == "tls_key"


def test_a_key_with_a_passphrase_is_refused_and_nobody_asked(pair, tmp_path):
    key = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", key], check=True, timeout=20
    )

    assert "has a passphrase" in refusal(config(pair, tls_key=str(key)))[0]


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca"])
def test_what_is_no_pem_or_not_there_is_named(pair, tmp_path, name):
    (tmp_path / "file").write_text("nothing of the kind")
    (tmp_path / "file").chmod(0o600)

    assert str(tmp_path / "file") in refusal(config(pair, **{name: str(tmp_path / "file")}))[0]
    message, path = refusal(config(pair, **{name: str(tmp_path / "none")}))
    assert (message, path) == (f"cannot read {tmp_path}/none: No such file or directory", name)
    assert refusal(config(pair, **{name: str(tmp_path)})) == (f"{tmp_path} is not a file", name)
