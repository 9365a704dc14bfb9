"""The worker's connection, against a daemon that does not read or is gone."""

from __future__ import annotations

import pytest

from queuectld.protocol import codec
from queuectld.protocol.worker_messages import Beat, Ended, Exit, Outcome, OutputGrown, Reason, decode_from_worker
from queuectld.worker import procfs
from queuectld.worker.link import DaemonLink

ENDED = [
    Ended(token, Outcome(reason=Reason.EXITED, ended_at=1.0, exit_code=0, message="x" * 1000)) for token in range(2000)
]


@pytest.fixture
def ends(tmp_path):
    """A link and the daemon's end of it."""
    with procfs.bind_unix(str(tmp_path), "worker.sock") as listener:
        link = DaemonLink(str(tmp_path))
        daemon, _ = listener.accept()
        with daemon:
            yield link, daemon
        link.close()


def read_all(link, daemon, lines):
    """Read what the link has to say until it has said it all."""
    daemon.setblocking(False)
    messages = []
    while True:
        link.flush()
        try:
            messages += [decode_from_worker(line) for line in lines.feed(daemon.recv(65536))]
        except BlockingIOError:
            return messages


def test_what_the_daemon_does_not_read_waits(ends):
    link, daemon = ends

    for message in ENDED:
        link.send(message)

    assert link.wants_to_write
    assert read_all(link, daemon, codec.LineBuffer(1 << 20)) == ENDED
    assert not link.wants_to_write


def test_signs_of_life_do_not_pile_up(ends):
    link, daemon = ends
    for message in ENDED:
        link.send(message)

    link.send(Beat(1))
    link.send(OutputGrown(1, 5))

    assert read_all(link, daemon, codec.LineBuffer(1 << 20)) == ENDED
    link.send(Beat(1))
    assert decode_from_worker(daemon.recv(100).strip()) == Beat(1)


def test_the_last_words_of_a_daemon_are_read_although_it_cannot_be_written_to(ends):
    link, daemon = ends
    daemon.sendall(codec.encode(Exit()))
    daemon.close()

    link.send(Beat(None))

    assert link.receive() == ([Exit()], True)
    assert link.receive() == ([], False)


def test_long_paths_are_no_obstacle(tmp_path):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)

    with procfs.bind_unix(str(deep), "worker.sock"):
        DaemonLink(str(deep)).close()

    assert (deep / "worker.sock").stat().st_mode & 0o777 == 0o600


def test_nobody_listening_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        DaemonLink(str(tmp_path))
    procfs.bind_unix(str(tmp_path), "worker.sock").close()
    with pytest.raises(ConnectionRefusedError):
        DaemonLink(str(tmp_path))
