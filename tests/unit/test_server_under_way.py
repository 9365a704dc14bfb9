"""Requests that are carried out take up no more than they may; the others wait, and all get their turn."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from queuectld.server.budget import Share
from queuectld.server.under_way import UnderWay

ANN, BOB = 1000, 1001
LARGE = 10_000


class Asker:
    """Begins its requests one after the other, as a connection does."""

    def __init__(self, under_way, user, sizes=()):
        self.under_way, self.user, self.sizes = under_way, user, deque(sizes)
        self.ends = deque()
        self.begun = 0

    def ask(self):
        while self.sizes:
            over = self.under_way.begin(self.user, self.sizes[0], self.ask)
            if over is None:
                return
            self.ends.append((self.sizes.popleft(), over))
            self.begun += 1

    def end(self):
        _, over = self.ends.popleft()
        over()

    @property
    def size(self):
        return sum(size for size, _ in self.ends)


class Immediate(Asker):
    """Its requests are answered as they begin, as those to stage something are."""

    def ask(self):
        while self.sizes and (over := self.under_way.begin(self.user, self.sizes[0], self.ask)) is not None:
            self.sizes.popleft()
            over()


def test_what_is_too_much_waits_until_something_is_over():
    asker = Asker(UnderWay(Share(user=2 * LARGE, everybody=4 * LARGE)), ANN, [LARGE] * 3)

    asker.ask()
    assert asker.begun == 2

    asker.end()
    assert asker.begun == 3


def test_a_user_with_much_under_way_keeps_no_other_from_beginning():
    under_way = UnderWay(Share(user=2 * LARGE, everybody=4 * LARGE))
    ann, bob = Asker(under_way, ANN, [LARGE] * 9), Asker(under_way, BOB, [LARGE])

    ann.ask()
    bob.ask()

    assert (ann.begun, bob.begun) == (2, 1)


def test_short_requests_always_begin():
    under_way = UnderWay(Share(user=LARGE, everybody=LARGE))
    Asker(under_way, ANN, [LARGE]).ask()
    short = Asker(under_way, ANN, [1000] * 100)

    short.ask()

    assert short.begun == 100


def test_any_number_that_wait_may_begin_with_what_is_over_at_once():
    under_way = UnderWay(Share(user=LARGE, everybody=LARGE))
    first = Asker(under_way, ANN, [LARGE])
    first.ask()
    others = [Immediate(under_way, ANN, [LARGE] * 2) for _ in range(1000)]
    for other in others:
        other.ask()

    first.end()

    assert not any(other.sizes for other in others)


@given(
    st.lists(st.tuples(st.sampled_from([ANN, BOB, 7]), st.lists(st.integers(1, 40_000), max_size=8)), max_size=8),
    st.data(),
)
def test_all_get_their_turn_and_never_is_more_under_way_than_may_be(wanted, data):
    share = Share(user=50_000, everybody=90_000)
    under_way = UnderWay(share)
    askers = [Asker(under_way, user, sizes) for user, sizes in wanted]
    for asker in askers:
        asker.ask()

    while busy := [asker for asker in askers if asker.ends]:
        for user in (ANN, BOB, 7):
            large = [size for asker in askers if asker.user == user for size, _ in asker.ends if size > 1024]
            assert sum(large) <= share.user
        assert sum(size for asker in askers for size, _ in asker.ends if size > 1024) <= share.everybody
        data.draw(st.sampled_from(busy)).end()

    assert not any(asker.sizes for asker in askers)
