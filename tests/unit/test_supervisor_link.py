"""The daemon's end of the worker channel, fact by fact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.worker_messages import (
    Ended,
    Exit,
    Hello,
    Holding,
    Idle,
    Recorded,
    Run,
    Running,
    RunSpec,
    Stale,
    Stop,
    Welcome,
)
from queuectld.supervisor import views
from queuectld.supervisor.link import (
    Available,
    Await,
    GiveBack,
    Link,
    Phase,
    Refuse,
    Remove,
    Rescue,
    Send,
    Settle,
)

STORE = "5" * 32
OUTCOME = Outcome(reason=Reason.EXITED, exit_code=0, ended_at=1.0)


def hello(state=None, *, store=STORE, protocol=1):
    return Hello(protocol=protocol, store=store, name="w1", pid=7, pid_start=70, state=state or Idle())


def run(token=1):
    return Run(token, RunSpec(job="a", argv=("true",), cwd="/", env=b"{}", output="/o", output_limit=1))


def running(token=1):
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(token)
    link.ready(run(token))
    return link


def claimed(link, token):
    link.claimed(token)
    return link.ready(run(token))


def sent(actions):
    return [action.message for action in actions if isinstance(action, Send)]


def test_a_new_worker_is_welcomed_and_available():
    assert Link(STORE).hello(hello()) == [Send(Welcome(protocol=1, store=STORE)), Available()]


def test_a_worker_of_an_unknown_protocol_is_refused():
    assert Link(STORE).hello(hello(protocol=99)) == [Refuse()]


def test_a_claimed_job_is_sent():
    link = Link(STORE)
    link.hello(hello())
    link.offered()

    link.claimed(1)
    actions = link.ready(run())

    assert actions == [Send(run())]
    assert (link.phase, link.token) == (Phase.RUNNING, 1)


def test_a_worker_that_got_no_job_is_available_again():
    link = Link(STORE)
    link.hello(hello())
    link.offered()

    assert link.unclaimed() == [Available()]


def test_an_end_is_recorded_before_it_is_confirmed():
    link = running()

    assert link.ended(Ended(1, OUTCOME)) == [Settle(1, OUTCOME, filed=False)]
    assert link.settled(1, recorded=True) == [Send(Recorded(1, None)), Available()]


def test_the_next_job_rides_on_the_confirmation():
    link = running()
    link.ended(Ended(1, OUTCOME))

    actions = [*link.settled(1, recorded=True, claimed=2), *link.ready(run(2))]

    assert actions == [Send(Recorded(1, run(2)))]
    assert (link.phase, link.token) == (Phase.RUNNING, 2)


def test_a_report_of_the_past_is_stale():
    link = running()
    link.ended(Ended(1, OUTCOME))

    assert sent(link.settled(1, recorded=False)) == [Stale(1)]


def test_a_lost_connection_is_no_death():
    link = running()

    assert link.disconnected() == [Await()]
    assert (link.phase, link.token) == (Phase.RUNNING, 1)


def test_a_worker_that_comes_back_with_its_job_goes_on():
    link = running()
    link.disconnected()

    assert sent(link.hello(hello(Running(1)))) == [Welcome(protocol=1, store=STORE)]
    assert link.phase is Phase.RUNNING


def test_a_worker_that_comes_back_is_told_again_to_stop():
    link = running()
    link.stop(Reason.CANCELLED, grace=0.0, kill_after=1.0)
    link.disconnected()

    assert Stop(token=1, reason=Reason.CANCELLED, grace=0.0, kill_after=1.0) in sent(link.hello(hello(Running(1))))


def test_a_stop_while_out_of_touch_is_said_on_return():
    link = running()
    link.disconnected()

    assert link.stop(Reason.INTERRUPTED, grace=3.0, kill_after=None) == []
    assert Stop(token=1, reason=Reason.INTERRUPTED, grace=3.0, kill_after=None) in sent(link.hello(hello(Running(1))))


def test_a_worker_that_comes_back_idle_never_got_its_job():
    link = running()
    link.disconnected()

    actions = link.hello(hello())

    assert [action.token for action in actions if isinstance(action, GiveBack)] == [1]
    assert link.given_back() == [Available()]


def test_a_worker_that_comes_back_with_an_outcome_has_it_recorded():
    link = running()
    link.disconnected()

    assert Settle(1, OUTCOME, filed=True) in link.hello(hello(Holding(1, OUTCOME)))


def test_an_outcome_on_its_way_to_disk_is_not_recorded_twice():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.disconnected()

    actions = link.hello(hello(Holding(1, OUTCOME)))

    assert not [action for action in actions if isinstance(action, Settle)]
    assert sent(link.settled(1, recorded=True)) == [Recorded(1, None)]


def test_an_end_on_record_whose_confirmation_never_left_shows_that_the_next_job_never_arrived():
    link = Link(STORE, token=2)
    link.hello(hello(Holding(1, OUTCOME)))

    actions = link.settled(1, recorded=True)

    assert sent(actions) == [Recorded(1)]
    assert [action.token for action in actions if isinstance(action, GiveBack)] == [2]


def test_a_worker_of_another_store_ends_what_it_runs_and_goes():
    actions = Link(STORE).hello(hello(Running(9), store="6" * 32))

    assert sent(actions) == [Welcome(protocol=1, store=STORE), Stale(9), Exit()]


def test_an_outcome_for_another_store_is_dropped():
    link = Link(STORE)

    assert Stale(9) in sent(link.hello(hello(Holding(9, OUTCOME), store="6" * 32)))
    assert link.phase is Phase.IDLE


def test_the_dead_are_rescued_only_when_read_to_the_end():
    link = running()

    assert link.died() == []
    assert link.disconnected() == [Rescue(1)]


def test_a_death_out_of_touch_is_rescued_at_once():
    link = running()
    link.disconnected()

    assert link.died() == [Rescue(1)]


def test_the_last_words_of_the_dead_count():
    link = running()
    link.died()

    assert link.ended(Ended(1, OUTCOME)) == [Settle(1, OUTCOME, filed=False)]
    assert link.disconnected() == []
    assert link.settled(1, recorded=True) == [Remove()]


def test_a_job_claimed_for_the_dead_goes_back():
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.died()
    link.disconnected()

    assert [action.token for action in claimed(link, 4)] == [4]
    assert link.given_back() == [Remove()]


def test_an_idle_worker_that_dies_is_removed():
    link = Link(STORE)
    link.hello(hello())

    assert [*link.died(), *link.disconnected()] == [Remove()]


def test_a_worker_that_never_said_a_word_is_removed_when_it_dies():
    assert Link(STORE).died() == [Remove()]


def test_a_retiring_worker_ends_after_its_job():
    link = running()

    assert sent(link.retire()) == [Exit()]
    link.ended(Ended(1, OUTCOME))
    assert Available() not in link.settled(1, recorded=True)


def test_a_worker_that_retires_while_a_job_is_on_its_way_to_it_runs_that_first():
    link = Link(STORE)
    link.hello(hello())
    link.offered()

    assert link.retire() == []
    assert sent(claimed(link, 1)) == [run(), Exit()]


def test_a_worker_that_retires_while_its_end_is_recorded_hears_of_it_behind_its_next_job():
    link = running()
    link.ended(Ended(1, OUTCOME))

    assert link.retire() == []
    link.settled(1, recorded=True, claimed=2)
    assert sent(link.ready(run(2))) == [Recorded(1, run(2)), Exit()]


def test_a_second_stop_shortens_and_never_lengthens():
    link = running()
    link.stop(Reason.INTERRUPTED, grace=30.0, kill_after=5.0)

    [shorter] = sent(link.stop(Reason.INTERRUPTED, grace=0.0, kill_after=60.0))

    assert (shorter.grace, shorter.kill_after) == (0.0, 5.0)


def test_a_cancel_is_not_forgotten_in_a_shutdown():
    link = running()
    link.stop(Reason.INTERRUPTED, grace=30.0, kill_after=5.0)

    [stop] = sent(link.stop(Reason.CANCELLED, grace=0.0, kill_after=None))

    assert stop.reason is Reason.CANCELLED


def test_what_does_not_run_cannot_be_stopped():
    link = Link(STORE)
    link.hello(hello())

    assert link.stop(Reason.CANCELLED, grace=0.0, kill_after=None) == []


def test_input_that_cannot_be_written_gives_the_job_back_as_the_hosts_fault():
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert link.withdrawn(Reason.HOST_ERROR, "disk full") == [GiveBack(3, Reason.HOST_ERROR, "disk full")]
    assert link.given_back() == [Available()]


def test_the_end_before_is_confirmed_also_if_the_next_job_cannot_be_started():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.settled(1, recorded=True, claimed=2)

    assert link.withdrawn(Reason.HOST_ERROR, "disk full") == [
        Send(Recorded(1)),
        GiveBack(2, Reason.HOST_ERROR, "disk full"),
    ]


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.INTERRUPTED])
def test_a_job_that_is_to_end_before_its_command_was_sent_never_starts(reason):
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert link.stop(reason, grace=30.0, kill_after=None) == []
    assert [(type(action), action.reason) for action in link.ready(run(3))] == [(GiveBack, reason)]


def test_a_greeting_before_the_command_was_sent_changes_nothing():
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert sent(link.hello(hello())) == [Welcome(protocol=1, store=STORE)]
    assert sent(link.ready(run(3))) == [run(3)]


def test_a_worker_that_dies_before_its_command_was_sent_has_not_lost_the_job():
    link = Link(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert [*link.died(), *link.disconnected()] == []
    assert [(action.token, action.reason) for action in link.ready(run(3))] == [(3, Reason.INTERRUPTED)]
    assert link.given_back() == [Remove()]


FACTS = st.sampled_from(
    [
        "idle",
        "running",
        "holding",
        "holding past",
        "offered",
        "unclaimed",
        "claimed",
        "ready",
        "withdrawn",
        "stopped",
        "ended",
        "settled",
        "next",
        "gone",
        "died",
    ]
)


@given(st.lists(FACTS, max_size=40))
def test_whatever_happens_an_attempt_is_neither_forgotten_nor_given_twice(facts):  # noqa: C901, PLR0912, PLR0915 - one branch a fact
    """Drive a link as a world may that keeps to the rules of the store; count what it lets happen to each token."""
    link, token, pending, open_tokens = Link(STORE), 0, None, set()
    for fact in facts:
        actions = []
        alive = not link.dead
        match fact:
            case "idle" if alive and link.phase is not Phase.GONE:
                actions = link.hello(hello())
            case "running" if alive and link.token:
                actions = link.hello(hello(Running(link.token)))
            case "holding" if alive and link.token:
                actions = link.hello(hello(Holding(link.token, OUTCOME)))
            case "holding past" if alive and link.phase is not Phase.GONE:
                actions = link.hello(hello(Holding(0, OUTCOME)))
            case "offered" if link.phase is Phase.IDLE and link.connected and not link.retiring:
                link.offered()
            case "unclaimed" if link.phase is Phase.CLAIMING:
                actions = link.unclaimed()
            case "claimed" if link.phase is Phase.CLAIMING:
                token += 1
                open_tokens.add(token)
                link.claimed(token)
            case "ready" if link.phase is Phase.PREPARING:
                actions = link.ready(run(token))
            case "withdrawn" if link.phase is Phase.PREPARING:
                actions = link.withdrawn(Reason.HOST_ERROR, "disk full")
            case "stopped":
                actions = link.stop(Reason.CANCELLED, grace=0.0, kill_after=None)
            case "ended" if link.connected and link.phase is Phase.RUNNING and link.token:
                actions = link.ended(Ended(link.token, OUTCOME))
            case "settled" | "next" if pending is not None:
                kind, ended = pending
                pending = None
                open_tokens.discard(ended)
                if kind is GiveBack:
                    actions = link.given_back()
                elif fact == "next" and kind is Settle:
                    token += 1
                    open_tokens.add(token)
                    actions = link.settled(ended, recorded=True, claimed=token)
                else:
                    actions = link.settled(ended, recorded=True)
            case "gone" if link.connected:
                actions = link.disconnected()
            case "died" if alive:
                actions = link.died()
        for action in actions:
            if isinstance(action, Settle | GiveBack | Rescue):
                assert pending is None, "two ends of one worker's attempts are on their way at once"
                pending = (type(action), action.token)
            if isinstance(action, Available):
                assert link.token is None
                assert not open_tokens
            if isinstance(action, Remove):
                assert not open_tokens, "removed with an attempt that nobody ended"
        assert len(open_tokens) <= 1
        assert link.token is None or link.token in open_tokens


@pytest.mark.parametrize("phase", [Phase.CLAIMING, Phase.PREPARING, Phase.SETTLING])
def test_a_greeting_does_not_disturb_what_is_on_its_way_to_the_store(phase):
    link = Link(STORE)
    link.hello(hello())
    link.phase = phase

    assert sent(link.hello(hello())) == [Welcome(protocol=1, store=STORE)]
    assert link.phase is phase


def test_clients_are_told_a_word_for_every_phase():
    assert set(views._PHASES) == set(Phase)
