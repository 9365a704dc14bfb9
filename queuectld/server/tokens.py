"""The tokens that clients over TCP show: one a line of a file, with whom each stands for.

::

    3f0c…                          the daemon's user, who may do everything
    7ab1… alice                    a user of this host
    sha256:9f86…0a08 bob observer  the same without the secret, and with another role
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from queuectld.errors import BadConfigError
from queuectld.server.who import Role
from queuectld.service.owner import user_name

# The fewest characters that a token may have; nobody guesses 16 random ones.
SHORTEST: Final = 16
# So that comparing with all of them takes far less than a millisecond.
MOST: Final = 1000
# Bytes of a file.
_LARGEST: Final = 1024 * 1024
_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ROLES: Final = {role.value: role for role in (Role.ADMIN, Role.USER, Role.OBSERVER)}

FindUser = Callable[[str], int]


class Token(NamedTuple):
    """Whom a token stands for. `digest` is its SHA-256: the token itself is not kept."""

    digest: bytes
    uid: int
    user: str
    role: Role


def digest_of(token: str) -> bytes:
    """Return what a token is known by."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def holder_of(tokens: Sequence[Token], digest: bytes) -> Token | None:
    """Return the token of that digest. Takes the same time for any: it looks at all, and at every byte of each."""
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def read_tokens(path: str, daemon_uid: int) -> tuple[Token, ...]:
    """Return the tokens of a file. Raises `BadConfigError` unless it is secret and all of it is right."""
    tokens = parse_tokens(_read(path), path, daemon_uid, _uid_of)
    # Two names may share a number, and a name may look like the number of another.
    return tuple(token._replace(user=user_name(token.uid)) for token in tokens)


def parse_tokens(text: str, path: str, daemon_uid: int, find_user: FindUser) -> tuple[Token, ...]:
    """Return the tokens in the text of a file. `find_user` raises `KeyError` for a user who is not there.

    Raises `BadConfigError`, which names the line and shows no token.
    """
    tokens: dict[bytes, Token] = {}
    for number, words in _lines(text):
        try:
            token = _token(words, daemon_uid, find_user)
        except ValueError as error:
            raise _refusal(path, number, str(error)) from None
        if token.digest in tokens:
            raise _refusal(path, number, "this token stands above already")
        tokens[token.digest] = token
    if not tokens:
        raise BadConfigError(f"there is no token in {path}", path="token_file")
    if len(tokens) > MOST:
        raise BadConfigError(f"there are more than {MOST:,} tokens in {path}", path="token_file")
    return tuple(tokens.values())


def _refusal(path: str, number: int, why: str) -> BadConfigError:
    return BadConfigError(f"{path}, line {number}: {why}", path="token_file")


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
        if words[:comment]:
            yield number, words[:comment]


def _token(words: list[str], daemon_uid: int, find_user: FindUser) -> Token:
    if len(words) > 3:
        raise ValueError("it takes a token without spaces, a user and a role, and no more")
    digest = _digest(words[0])
    if len(words) == 1:
        return Token(digest, daemon_uid, user_name(daemon_uid), Role.ADMIN)
    user = words[1]
    try:
        uid = find_user(user)
    except KeyError:
        raise ValueError(f"there is no user {user[:64]!r} on this host") from None
    if len(words) == 2:
        return Token(digest, uid, user, Role.ADMIN if uid in {0, daemon_uid} else Role.USER)
    role = _ROLES.get(words[2])
    if role is None:
        raise ValueError(f"there is no role {words[2][:64]!r}; it is one of {', '.join(_ROLES)}")
    return Token(digest, uid, user, role)


def _digest(word: str) -> bytes:
    if written := _DIGEST.fullmatch(word):
        return bytes.fromhex(written[1])
    if word.startswith("sha256:"):
        raise ValueError("after sha256: come the 64 hexadecimal digits of the token's SHA-256")
    if len(word) < SHORTEST:
        raise ValueError(f"a token has at least {SHORTEST} characters; `openssl rand -hex 32` makes a good one")
    return digest_of(word)


def _uid_of(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def _read(path: str) -> str:
    try:
        # Without waiting for whoever writes, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  (of a descriptor)
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BadConfigError(f"{path} is not a file", path="token_file")
            if found.st_mode & 0o007:
                raise BadConfigError(f"{path} can be read by everybody; chmod o= it", path="token_file")
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise BadConfigError(f"{path} is larger than {_LARGEST:,} bytes", path="token_file")
        return data.decode()
    except OSError as error:
        raise BadConfigError(f"cannot read the tokens: {path}: {error.strerror}", path="token_file") from None
    except UnicodeDecodeError:
        raise BadConfigError(f"cannot read the tokens: {path} is not text in UTF-8", path="token_file") from None
