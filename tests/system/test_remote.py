"""A daemon that is spoken to from elsewhere: over TCP, encrypted, and over `ssh`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from queuectld.server.tokens import digest_of
from queuectld.service.owner import user_name
from tests.certificates import Authority
from tests.system.gate import Gate
from tests.system.installation import Installation
from tests.system.livedaemon import CLI, LiveDaemon
from tests.system.waiting import wait_for

TOKEN = "a-token-of-more-than-16-characters"
OTHER = "another-token-of-enough-characters"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def secret(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class Remote:
    """A daemon with TLS on a port, and the environment of a client that may speak with it."""

    def __init__(self, new_daemon: Callable[..., LiveDaemon], home: Path) -> None:
        self.authority = Authority(home)
        self.tokens = secret(home / "tokens", f"{TOKEN}\n")
        pair = self.authority.sign("server")
        self.port = free_port()
        self.config = {
            "tcp": f"127.0.0.1:{self.port}",
            "token_file": self.tokens,
            "tls_cert": pair.cert,
            "tls_key": pair.key,
        }
        self.daemon = new_daemon(**self.config)
        self.env = {
            "QUEUECTL_HOST": f"tls://localhost:{self.port}",
            "QUEUECTL_TLS_CA": str(self.authority.pair.cert),
            "QUEUECTL_TOKEN_FILE": str(secret(home / "mine", f"{TOKEN}\n")),
        }

    def cli(self, *words: str, **env: str):
        return self.daemon.cli(*words, env=self.env | env)


@pytest.fixture
def remote(new_daemon: Callable[..., LiveDaemon], home: Path) -> Remote:
    return Remote(new_daemon, home)


def test_jobs_are_added_run_and_read_over_tls(remote: Remote) -> None:
    remote.daemon.start()

    ran = remote.cli("run", "echo ${SECRET:-none}; seq 100000 | tail -n 1; exit 3", SECRET="of the client")
    listed = remote.cli("list", "-q")
    unknown = remote.cli("ping", QUEUECTL_TLS_CA="")

    assert (ran.code, ran.out) == (3, "none\n100000\n"), ran
    assert len(listed.out.split()) == 1, listed
    assert (unknown.code, "vouched for by nobody" in unknown.err) == (69, True), unknown


def test_a_wrong_token_is_refused_and_logged_with_where_it_came_from(remote: Remote, home: Path) -> None:
    remote.daemon.start()
    wrong = str(secret(home / "wrong", "not-the-token-of-the-daemon"))

    codes = []
    # On a busy machine the first pauses are over before the next attempt.
    while 75 not in codes and len(codes) < 15:
        codes.append(remote.cli("ping", QUEUECTL_TOKEN_FILE=wrong).code)

    refused = [line for line in remote.daemon.log_lines() if line["event"] == "client.refused"]
    assert codes == [77] * (len(codes) - 1) + [75]
    assert len(codes) > 5
    assert {(line["level"], line["address"]) for line in refused} == {("warning", "127.0.0.1")}
    assert len(refused) == len(codes)
    assert "not-the-token" not in remote.daemon.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon runs jobs as others")
def test_a_token_names_the_user_whose_jobs_one_may_see_and_as_whom_they_run(remote: Remote, home: Path) -> None:
    remote.tokens.write_text(f"{TOKEN}\n{OTHER} nobody\nsha256:{digest_of('o' * 32).hex()} nobody observer\n")
    remote.daemon.start()
    user, observer = ({"QUEUECTL_TOKEN_FILE": str(secret(home / text[0], text))} for text in (OTHER, "o" * 32))

    roots = remote.cli("run", "--id", "of-root", "id -un")
    theirs = remote.cli("run", "id -un", **user)
    shown = remote.cli("show", "of-root", **user)
    listed = remote.cli("list", "-q", **observer)
    added = remote.cli("enqueue", "true", **observer)

    assert (roots.out, theirs.out) == ("root\n", "nobody\n"), f"{roots}\n{theirs}"
    assert (shown.code, "is not yours" in shown.err) == (77, True), shown
    assert (listed.code, len(listed.out.split())) == (0, 2), listed
    assert added.code == 77, added


def test_tokens_and_certificates_are_read_again_at_a_reload_and_bad_ones_change_nothing(
    remote: Remote, home: Path
) -> None:
    daemon = remote.daemon.start()
    other = str(secret(home / "other", OTHER))

    def reload(event: str) -> None:
        before = len(daemon.log_lines())
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: any(line["event"] == event for line in daemon.log_lines()[before:]), event)

    assert remote.cli("ping", QUEUECTL_TOKEN_FILE=other).code == 77
    remote.tokens.write_text(f"{TOKEN}\n{OTHER} root\n")
    reload("config.loaded")
    assert remote.cli("ping", QUEUECTL_TOKEN_FILE=other).code == 0

    remote.tokens.write_text(f"{TOKEN}\n{OTHER} no-such-user\n")
    reload("config.rejected")
    assert remote.cli("ping", QUEUECTL_TOKEN_FILE=other).code == 0
    assert "line 2: there is no user 'no-such-user'" in daemon.log_tail()

    remote.tokens.write_text(f"{OTHER}\n")
    renewed = remote.authority.sign("renewed", names="DNS:elsewhere")
    daemon.configure(**remote.config | {"tls_cert": renewed.cert, "tls_key": renewed.key})
    reload("config.loaded")
    assert "is for another name" in remote.cli("ping").err
    fingerprint = f"sha256:{renewed.fingerprint}"
    pinned = {"QUEUECTL_TLS_CA": "", "QUEUECTL_TLS_FINGERPRINT": fingerprint}
    assert remote.cli("ping", **pinned).code == 77
    assert remote.cli("ping", **pinned, QUEUECTL_TOKEN_FILE=other).code == 0


def test_config_set_takes_no_file_that_is_not_right(daemon: LiveDaemon, home: Path) -> None:
    secret(home / "short", "short\n")

    refused = daemon.cli("config", "set", "token-file", str(home / "short"))

    assert (refused.code, "at least 16 characters" in refused.err) == (78, True), refused
    assert daemon.cli("config", "get", "token-file").out.split()[-1] != str(home / "short")


@pytest.mark.parametrize("tcp", ["0.0.0.0", "[::]"])
def test_a_port_that_others_reach_without_tls_is_refused_at_the_start(
    new_daemon: Callable[..., LiveDaemon], home: Path, tcp: str
) -> None:
    daemon = new_daemon(tcp=f"{tcp}:{free_port()}", token_file=secret(home / "tokens", TOKEN))

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    assert "without TLS" in daemon.log_tail()
    assert "`tls_cert` and `tls_key`" in daemon.log_tail()


def test_a_token_from_a_service_manager_needs_no_key(new_daemon: Callable[..., LiveDaemon], home: Path) -> None:
    port = free_port()
    (home / "credentials").mkdir()
    token = secret(home / "credentials" / "tcp-token", TOKEN)
    daemon = new_daemon(tcp=f"127.0.0.1:{port}")
    daemon.launch(env={"CREDENTIALS_DIRECTORY": str(home / "credentials")})
    wait_for(daemon.answers, "the daemon answers")

    assert daemon.cli("-H", f"tcp://127.0.0.1:{port}", "--token-file", str(token), "ping").code == 0


def test_the_encrypted_port_stays_open_while_the_program_is_replaced(remote: Remote, gate: Gate) -> None:
    daemon = remote.daemon
    Installation(daemon)
    daemon.start()
    waiting = daemon.spawn_cli(
        *("-H", remote.env["QUEUECTL_HOST"], "--tls-ca", remote.env["QUEUECTL_TLS_CA"]),
        *("--token-file", remote.env["QUEUECTL_TOKEN_FILE"], "run", f"{gate.wait()}; exit 4"),
    )
    with waiting:
        wait_for(lambda: daemon.counts() == {"processing": 1}, "the job runs")

        replaced = remote.cli("daemon", "reexec")
        gate.open()
        _, err = waiting.communicate(timeout=60)

        assert replaced.code == 0, replaced
        assert waiting.returncode == 4, err
    assert remote.cli("ping").code == 0


README = (Path(__file__).parents[2] / "README.md").read_text()


def test_what_the_readme_says_of_other_hosts_works(daemon: LiveDaemon, home: Path) -> None:
    found = re.search(r"<!-- remote -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found
    # The one host that a test has.
    script = found[1].replace("queue.example.org", "localhost").replace("0.0.0.0:7420", f"127.0.0.1:{free_port()}")
    port = re.search(r"127\.0\.0\.1:(\d+)", script)
    assert port
    script = script.replace(":7420", f":{port[1]}")

    ran = daemon.run(["bash", "-euc", script])

    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout.decode().splitlines()[-1] == f"hello from {socket.gethostname()}"


def test_doctor_looks_at_a_daemon_elsewhere_and_at_the_token(remote: Remote, home: Path) -> None:
    remote.daemon.start()
    open_to_all = secret(home / "open", TOKEN)
    open_to_all.chmod(0o604)

    fine = remote.cli("doctor")
    warned = remote.cli("doctor", QUEUECTL_TOKEN_FILE=str(open_to_all))
    strange = remote.cli("doctor", QUEUECTL_TLS_CA="")

    assert (fine.code, "token" in fine.out) == (0, False), fine
    # Those of tests last for two days.
    assert re.search(r"warn +certificate +the daemon's certificate is valid until .* GMT", fine.out), fine
    assert (warned.code, f"chmod o= {open_to_all}" in warned.out) == (0, True), warned
    assert (strange.code, "vouched for by nobody" in strange.out) == (1, True), strange


# Over ssh.


def fake_ssh(place: Path) -> Path:
    """Put a program `ssh` and one `queuectl` into a directory: the first runs here what it should run elsewhere."""
    place.mkdir()
    for name, script in {
        "ssh": 'while [ "$1" != -- ]; do shift; done; shift 2; exec sh -c "$*"',
        "queuectl": f'exec {" ".join(CLI)} "$@"',
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    return place


@pytest.fixture
def over_ssh(daemon: LiveDaemon, home: Path) -> Callable[..., list[str]]:
    daemon.env["PATH"] = f"{fake_ssh(home / 'bin')}:{daemon.env['PATH']}"
    return lambda *words: ["-H", "ssh://example.org", *words]


def test_jobs_are_added_run_and_read_over_ssh(daemon: LiveDaemon, over_ssh) -> None:
    ran = daemon.cli(*over_ssh("run", "echo ${SECRET:-none}; seq 100000 | tail -n 1; exit 3"), env={"SECRET": "here"})
    many = daemon.cli(*over_ssh("enqueue", "-"), stdin='{"command":"true","env":{"A":"%s"}}\n' % ("x" * 9000) * 400)

    assert (ran.code, ran.out) == (3, "none\n100000\n"), ran
    assert many.code == 0, many
    assert sum(daemon.counts().values()) == 401


def test_who_waits_over_ssh_waits_on_while_the_daemon_is_restarted(daemon: LiveDaemon, over_ssh, gate: Gate) -> None:
    with daemon.spawn_cli(*over_ssh("run", f"{gate.wait()}; exit 3")) as waiting:
        wait_for(lambda: daemon.counts() == {"processing": 1}, "the job runs")

        daemon.again()
        gate.open()
        _, err = waiting.communicate(timeout=60)

        assert waiting.returncode == 3, err


def test_the_interrupt_of_a_person_goes_to_the_job_and_not_to_the_connection(daemon: LiveDaemon, over_ssh) -> None:
    script = "trap 'echo ended; exit 7' INT; echo begun; while :; do sleep 0.05; done"
    with daemon.spawn_cli(*over_ssh("run", script), start_new_session=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"begun\n"

        # As a terminal does: to all that run in the foreground.
        os.killpg(waiting.pid, signal.SIGINT)
        out, err = waiting.communicate(timeout=60)

        assert (out, waiting.returncode) == (b"ended\n", 7), err


class Sshd:
    """A real `sshd` of this user on a port of the loopback, with keys of its own."""

    def __init__(self, place: Path, user: str, daemon: LiveDaemon) -> None:
        place.mkdir(mode=0o700)
        self.port = free_port()
        for name in ("host", "mine"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
        shutil.copy(place / "mine.pub", place / "authorized")
        fake_ssh(place / "there")
        environment = f'PATH={place / "there"}:/usr/bin:/bin" "QUEUECTL_STATE_DIR={daemon.state}'
        (place / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {place / 'authorized'}\nPasswordAuthentication no\nStrictModes no\n"
            f'PermitRootLogin prohibit-password\nSetEnv "{environment}"\n'
        )
        # The configuration of the client is what a user would have in ~/.ssh/config.
        (place / "bin").mkdir()
        (place / "bin" / "ssh").write_text(
            f"#!/bin/sh\nexec /usr/bin/ssh -F none -i {place / 'mine'} -o UserKnownHostsFile={place / 'known'} "
            f'-o StrictHostKeyChecking=accept-new "$@"\n'
        )
        (place / "bin" / "ssh").chmod(0o755)
        self.url = f"ssh://{user}@127.0.0.1:{self.port}"
        self.path = str(place / "bin")
        self.log = place / "log"
        self.process = subprocess.Popen(
            [
                shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd",
                "-D",
                "-f",
                place / "sshd_config",
                "-E",
                self.log,
            ]
        )
        wait_for(self._listens, "sshd listens")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), timeout=5)):
            return True
        return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def sshd(daemon: LiveDaemon, home: Path) -> Iterator[Sshd]:
    if shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("there is no sshd to log in to")
    if os.geteuid() == 0:
        # Where the service of the distribution has not made it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as stack:
        server = Sshd(home / "ssh", user_name(os.geteuid()), daemon)
        stack.callback(server.close)
        yield server


def test_a_real_ssh_takes_a_client_to_the_daemon(daemon: LiveDaemon, sshd: Sshd) -> None:
    env = {"PATH": f"{sshd.path}:{daemon.env['PATH']}"}

    ran = daemon.cli("-H", sshd.url, "run", "echo hello; exit 3", env=env)
    nobody = daemon.cli("-H", sshd.url.replace("ssh://", "ssh://not-"), "ping", env=env)
    nowhere = daemon.cli("-H", f"{sshd.url}{daemon.home}/none.sock", "ping", env=env)
    missing = daemon.cli("-H", sshd.url, "ping", env=env | {"QUEUECTL_SSH_QUEUECTL": "no-such-program"})

    assert (ran.code, ran.out) == (3, "hello\n"), f"{ran}\n{sshd.log.read_text()}"
    assert (nobody.code, "Permission denied" in nobody.err) == (69, True), nobody
    assert (nowhere.code, "there is no such socket" in nowhere.err) == (69, True), nowhere
    assert (missing.code, "there is no queuectl" in missing.err) == (69, True), missing
