"""How often somebody may show a wrong token. Decides only; the clock is an argument (monotonic, seconds).

Per address: the first few failures cost nothing, every further one a pause that doubles, up to a minute, in which no
token from there is even looked at. A failure is forgiven with every minute. In all: so many addresses cannot
try more than a few tokens a second together.

Who shares an address with an attacker must not be locked out for as long as the attack lasts, and the attacker always
is the first to try when a pause ends. So a token that was right from an address lately is looked at, from there, in
pauses too. The attacker gains nothing but unlimited tries at the tokens of these neighbours, each of which costs a
connection, against 16 characters or more. Only right tokens add to what is known for that, so no flood pushes it out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final, NamedTuple

FREE: Final = 5
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# Seconds after which one failure is forgiven.
FORGIVEN: Final = 60.0
# No more failures than the longest pause takes are counted: what follows them is bounded, too.
_MOST_COUNTED: Final = FREE + 7
# Of all addresses together: so many failures at once, and so many a second.
BURST: Final = 200.0
RATE: Final = 5.0
# Addresses that are remembered for failures; and those, with so many tokens each, for success, and how long.
ADDRESSES: Final = 4096
WELCOME: Final = 1024
WELCOME_TOKENS: Final = 8
WELCOME_FOR: Final = 86400.0


class _Record(NamedTuple):
    """What came from an address: failures, as of an instant, and until when nothing is looked at."""

    failures: float
    at: float
    until: float


class Throttle:
    """Who has to wait before a token is looked at."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, _Record] = OrderedDict()
        self._welcome: OrderedDict[str, OrderedDict[bytes, float]] = OrderedDict()
        self._all = BURST
        self._all_at = 0.0

    def wait(self, host: str, digest: bytes, now: float) -> float:
        """Return for how many seconds a token from a host is not looked at; 0: it may be."""
        place = place_of(host)
        if self._is_welcome(place, digest, now):
            return 0.0
        record = self._failed.get(place)
        alone = 0.0 if record is None else record.until - now
        together = (1.0 - self._left(now)) / RATE
        return max(0.0, alone, together)

    def failed(self, host: str, now: float) -> None:
        """Take down that a token from there was looked at, and wrong."""
        place = place_of(host)
        before = self._failed.pop(place, None)
        failures = 0.0 if before is None else max(0.0, before.failures - (now - before.at) / FORGIVEN)
        failures = min(_MOST_COUNTED, failures + 1)
        # A little of the others may have been forgiven by the last one.
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - FREE)) if failures > FREE - 0.5 else 0.0
        self._failed[place] = _Record(failures, now, now + pause)
        if len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)
        self._all = max(0.0, self._left(now) - 1.0)
        self._all_at = now

    def succeeded(self, host: str, digest: bytes, now: float) -> None:
        """Take down that a token from there was right. Its failures stay: it may be another one that is guessed at."""
        place = place_of(host)
        tokens = self._welcome.setdefault(place, OrderedDict())
        tokens[digest] = now
        tokens.move_to_end(digest)
        if len(tokens) > WELCOME_TOKENS:
            tokens.popitem(last=False)
        self._welcome.move_to_end(place)
        if len(self._welcome) > WELCOME:
            self._welcome.popitem(last=False)

    def _is_welcome(self, place: str, digest: bytes, now: float) -> bool:
        tokens = self._welcome.get(place)
        since = None if tokens is None else tokens.get(digest)
        return since is not None and now - since < WELCOME_FOR

    def _left(self, now: float) -> float:
        return min(BURST, self._all + (now - self._all_at) * RATE)


def place_of(host: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, since that is what one subscriber has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
