"""Who comes in over TCP: the tokens and the certificate in force, and what keeps guesses and floods small."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from queuectld.errors import BadConfigError, TooManyAttemptsError, UnauthenticatedError
from queuectld.keys import Config
from queuectld.server.listen import on_loopback
from queuectld.server.session import Session
from queuectld.server.throttle import Throttle
from queuectld.server.tls import server_context
from queuectld.server.tokens import Token, digest_of, holder_of, read_tokens
from queuectld.server.who import Peer

# Lines about those who were turned away: so many at once, then one in so many seconds that counts the others.
_LINES: Final = 20
_LINE_EVERY: Final = 10.0

log = structlog.get_logger()


# The keys that name what a door is made of.
FILES: Final = frozenset({"token_file", "tls_cert", "tls_key", "tls_client_ca"})


def check_files(config: Config, daemon_uid: int) -> None:
    """Make sure that a door could be made with the files that are named now. Raises `BadConfigError`."""
    server_context(config)
    if config.token_file is not None:
        read_tokens(config.token_file, daemon_uid)


class Door:
    """What is shown at a socket, and whom it names. Belongs to the loop's thread."""

    def __init__(
        self,
        sock: socket.socket,
        config: Config,
        *,
        daemon_uid: int,
        session: Callable[[], Session],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`session` makes one for each connection. Raises `BadConfigError`, also where TLS is needed."""
        self._sock = sock
        self._daemon_uid = daemon_uid
        self._clock = clock
        self._throttle = Throttle()
        self._refusals = Refusals()
        # Who has come in by which token.
        self._inside: dict[Session, Token] = {}
        self.session = session
        self._tokens, self.context = self._read(config)

    def _read(self, config: Config) -> tuple[tuple[Token, ...], ssl.SSLContext | None]:
        if config.token_file is None:
            raise BadConfigError("clients over TCP have to show a token, which needs `token_file`", path="token_file")
        context = server_context(config)
        if context is None and not on_loopback(self._sock):
            raise BadConfigError(
                f"{self._sock.getsockname()[0]} can be reached from elsewhere, which needs TLS: set `tls_cert` and "
                "`tls_key`, or listen on 127.0.0.1",
                path="tls_cert",
            )
        return read_tokens(config.token_file, self._daemon_uid), context

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read tokens and certificate again; return what takes them up. Raises `BadConfigError`."""
        tokens, context = self._read(config)
        return partial(self._renew, tokens, context)

    def _renew(self, tokens: tuple[Token, ...], context: ssl.SSLContext | None) -> None:
        """Go by these from now on; whoever came in by a token that is no more has to go."""
        self._tokens, self.context = tokens, context
        valid = set(tokens)
        for session in [session for session, token in self._inside.items() if token not in valid]:
            session.abort()

    def admit(self, session: Session, given: str | None) -> None:
        """Let a client in. Raises `UnauthenticatedError`, `TooManyAttemptsError`."""
        origin = session.peer.origin
        host, now = origin.rpartition(":")[0], self._clock()
        digest = digest_of(given or "")
        wait = self._throttle.wait(host, digest, now)
        if wait > 0:
            self.refused("too many wrong tokens came from there", host)
            raise TooManyAttemptsError(
                f"too many wrong tokens came from {host} lately; the next one is looked at in {max(1, round(wait))} s",
                path="$.token",
            )
        token = holder_of(self._tokens, digest)
        if token is None:
            self._throttle.failed(host, now)
            self.refused("it showed a wrong token", host)
            raise UnauthenticatedError("the token is not valid", path="$.token")
        self._throttle.succeeded(host, digest, now)
        self._inside[session] = token
        session.authenticated(Peer(token.uid, token.user, token.role, origin))

    def left(self, session: Session) -> None:
        """Forget a client, if it came in here."""
        self._inside.pop(session, None)

    def refused(self, why: str, host: str) -> None:
        """Tell the log who was turned away, as far as it is not full of that."""
        count = self._refusals.told(self._clock())
        if count:
            log.warning(
                "A client was turned away", event_name="client.refused", reason=why, address=host or None, count=count
            )


class Refusals:
    """How many lines tell of those who are turned away. Decides only."""

    def __init__(self) -> None:
        self._lines = float(_LINES)
        self._at = 0.0
        self._untold = 0

    def told(self, now: float) -> int:
        """Take down one more; return how many to tell of now: none, or all since the last time."""
        self._lines = min(_LINES, self._lines + (now - self._at) / _LINE_EVERY)
        self._at = now
        self._untold += 1
        if self._lines < 1:
            return 0
        self._lines -= 1
        count, self._untold = self._untold, 0
        return count
