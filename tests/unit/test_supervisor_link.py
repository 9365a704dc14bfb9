"""The daemon's end of the worker channel, fact by fact."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    Ended,
    Exit,
    Hello,
    Holding,
    Idle,
    Recorded,
    Run,
    Running,
    RunSpec,
    Signal,
    Stale,
    Stop,
    Welcome,
)
from queuectld.supervisor import views
from queuectld.supervisor.actions import (
    Available,
    Await,
    GiveBack,
    Refuse,
    Remove,
    Rescue,
    Send,
    Settle,
    Unfile,
)
from queuectld.supervisor.link import Phase, WorkerLink

STORE = "5" * 32
OUTCOME = Outcome(reason=Reason.EXITED, exit_code=0, ended_at=1.0)


def hello(state=None, *, store=STORE, protocol=CHANNEL_VERSION):
    return Hello(protocol=protocol, store=store, name="w1", pid=7, pid_start=70, state=state or Idle())


def run(token=1):
    return Run(token, RunSpec(job="a", argv=("true",), cwd="/", env=b"{}", output="/o", output_limit=1))


def running(token=1):
    link = WorkerLink(STORE)
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
    assert WorkerLink(STORE).hello(hello()) == [Send(Welcome(protocol=CHANNEL_VERSION, store=STORE)), Available()]


@pytest.mark.parametrize(
    ("state", "follows"),
    [
        (Idle(), [Exit()]),
        # It runs on to its end.
        (Running(1), [Exit()]),
    ],
)
def test_a_worker_of_the_version_before_is_seen_to_its_end_and_given_nothing(state, follows):
    link = WorkerLink(STORE, token=1 if isinstance(state, Running) else None)

    actions = link.hello(hello(state, protocol=CHANNEL_VERSION - 1))

    assert sent(actions) == [Welcome(protocol=CHANNEL_VERSION - 1, store=STORE), *follows]
    assert Available() not in actions
    assert link.retiring


def test_what_a_worker_of_the_version_before_has_ended_is_recorded_and_it_goes():
    link = WorkerLink(STORE, token=1)

    assert Settle(1, OUTCOME) in link.hello(hello(Holding(1, OUTCOME), protocol=CHANNEL_VERSION - 1))
    assert link.settled(1, recorded=True) == [Unfile(1), Send(Recorded(1)), Send(Exit())]


def test_a_worker_of_an_unknown_protocol_is_refused():
    assert WorkerLink(STORE).hello(hello(protocol=99)) == [Refuse()]


def test_a_claimed_job_is_sent():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()

    link.claimed(1)
    actions = link.ready(run())

    assert actions == [Send(run())]
    assert (link.phase, link.token) == (Phase.RUNNING, 1)


def test_a_worker_that_got_no_job_is_available_again():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()

    assert link.unclaimed() == [Available()]


def test_an_end_is_recorded_before_it_is_confirmed():
    link = running()

    assert link.ended(Ended(1, OUTCOME)) == [Settle(1, OUTCOME)]
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

    assert sent(link.hello(hello(Running(1)))) == [Welcome(protocol=CHANNEL_VERSION, store=STORE)]
    assert link.phase is Phase.RUNNING


def test_a_worker_that_comes_back_is_told_again_to_stop():
    link = running()
    link.stop(Reason.CANCELLED, grace=0.0, kill_after=1.0)
    link.disconnected()

    assert Stop(token=1, reason=Reason.CANCELLED, grace=0.0, kill_after=1.0) in sent(link.hello(hello(Running(1))))


def test_a_signal_is_passed_on_to_what_runs_and_out_of_touch_once_on_return():
    link = running(1)
    assert link.signal(2) == [Send(Signal(1, 2))]
    link.disconnected()

    assert [link.signal(number) for number in (2, 15, 2)] == [[], [], []]

    assert sent(link.hello(hello(Running(1))))[1:] == [Signal(1, 2), Signal(1, 15)]
    link.disconnected()
    assert sent(link.hello(hello(Running(1))))[1:] == []


def test_a_signal_for_a_command_that_is_over_is_for_no_other():
    link = running(1)
    link.disconnected()
    link.signal(2)
    link.hello(hello(Holding(1, OUTCOME)))
    link.settled(1, recorded=True)
    assert link.signal(2) is None
    link.offered()
    claimed(link, 2)
    link.disconnected()

    assert sent(link.hello(hello(Running(2))))[1:] == []


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

    assert Settle(1, OUTCOME) in link.hello(hello(Holding(1, OUTCOME)))


def test_an_outcome_on_its_way_to_disk_is_not_recorded_twice():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.disconnected()

    actions = link.hello(hello(Holding(1, OUTCOME)))

    assert not [action for action in actions if isinstance(action, Settle)]
    assert sent(link.settled(1, recorded=True)) == [Recorded(1, None)]


def test_an_end_on_record_whose_confirmation_never_left_shows_that_the_next_job_never_arrived():
    link = WorkerLink(STORE, token=2)
    link.hello(hello(Holding(1, OUTCOME)))

    actions = link.settled(1, recorded=True)

    assert sent(actions) == [Recorded(1)]
    assert [action.token for action in actions if isinstance(action, GiveBack)] == [2]


def test_a_worker_of_another_store_ends_what_it_runs_and_goes():
    actions = WorkerLink(STORE).hello(hello(Running(9), store="6" * 32))

    assert sent(actions) == [Welcome(protocol=CHANNEL_VERSION, store=STORE), Stale(9), Exit()]


def test_an_outcome_for_another_store_is_dropped():
    link = WorkerLink(STORE)

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

    assert link.ended(Ended(1, OUTCOME)) == [Settle(1, OUTCOME)]
    assert link.disconnected() == []
    assert link.settled(1, recorded=True) == [Remove()]


def test_a_job_claimed_for_the_dead_goes_back():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()
    link.died()
    link.disconnected()

    assert [action.token for action in claimed(link, 4)] == [4]
    assert link.given_back() == [Remove()]


def test_an_idle_worker_that_dies_is_removed():
    link = WorkerLink(STORE)
    link.hello(hello())

    assert [*link.died(), *link.disconnected()] == [Remove()]


def test_a_worker_that_never_said_a_word_is_removed_when_it_dies():
    assert WorkerLink(STORE).died() == [Remove()]


def test_a_retiring_worker_ends_after_its_job():
    link = running()

    assert sent(link.retire()) == [Exit()]
    link.ended(Ended(1, OUTCOME))
    assert Available() not in link.settled(1, recorded=True)


def test_a_worker_that_retires_while_a_job_is_on_its_way_to_it_runs_that_first():
    link = WorkerLink(STORE)
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
    link = WorkerLink(STORE)
    link.hello(hello())

    assert link.stop(Reason.CANCELLED, grace=0.0, kill_after=None) == []


def test_input_that_cannot_be_written_gives_the_job_back_as_the_hosts_fault():
    link = WorkerLink(STORE)
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
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert link.stop(reason, grace=30.0, kill_after=None) == []
    assert [(type(action), action.reason) for action in link.ready(run(3))] == [(GiveBack, reason)]


def test_a_greeting_before_the_command_was_sent_changes_nothing():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert sent(link.hello(hello())) == [Welcome(protocol=CHANNEL_VERSION, store=STORE)]
    assert sent(link.ready(run(3))) == [run(3)]


def test_a_worker_that_dies_before_its_command_was_sent_has_not_lost_the_job():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()
    link.claimed(3)

    assert [*link.died(), *link.disconnected()] == []
    assert [(action.token, action.reason) for action in link.ready(run(3))] == [(3, Reason.INTERRUPTED)]
    assert link.given_back() == [Remove()]


def test_a_worker_that_comes_back_after_its_next_job_was_withdrawn_is_told_of_the_one_before():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.disconnected()
    link.settled(1, recorded=True, claimed=2)

    link.withdrawn(Reason.HOST_ERROR, "disk full")
    assert sent(link.hello(hello(Holding(1, OUTCOME)))) == [Welcome(protocol=CHANNEL_VERSION, store=STORE)]
    assert link.given_back() == [Unfile(1), Send(Recorded(1)), Available()]


@pytest.mark.parametrize("claims", [True, False])
def test_a_confirmation_that_got_lost_is_repeated_without_disturbing_a_claim(claims):
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()

    assert sent(link.hello(hello(Holding(0, OUTCOME)))) == [Welcome(protocol=CHANNEL_VERSION, store=STORE)]
    assert link.phase is Phase.CLAIMING
    assert (claimed(link, 1) if claims else link.unclaimed()) == (
        [Unfile(0), Send(Recorded(0, run(1)))] if claims else [Unfile(0), Send(Recorded(0)), Available()]
    )


def test_the_dead_are_given_no_work_even_before_they_are_read_to_the_end():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.died()

    assert Available() not in link.settled(1, recorded=True)


def test_what_was_claimed_for_the_dead_is_not_sent_even_before_they_are_read_to_the_end():
    link = WorkerLink(STORE)
    link.hello(hello())
    link.offered()
    link.died()

    assert [type(action) for action in claimed(link, 1)] == [GiveBack]


@pytest.mark.parametrize("claims", [True, False])
def test_the_file_of_an_outcome_is_removed_once_it_is_on_record_also_if_it_came_while_that_was_being_done(claims):
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.disconnected()
    link.hello(hello(Holding(1, OUTCOME)))

    assert Unfile(1) in link.settled(1, recorded=True, claimed=2 if claims else None)


def test_the_file_of_an_outcome_that_came_too_late_is_removed_with_the_next_command():
    link = running()
    link.ended(Ended(1, OUTCOME))
    link.disconnected()
    link.settled(1, recorded=True, claimed=2)
    link.hello(hello(Holding(1, OUTCOME)))

    assert link.ready(run(2)) == [Unfile(1), Send(Recorded(1, run(2)))]


def test_a_worker_of_an_unknown_protocol_is_out_of_touch_and_buried_when_it_dies():
    link = running()
    link.hello(hello(protocol=99))

    assert link.died() == [Rescue(1)]


class AnyOrder:
    """Whatever happens in whatever order, the rules hold. The machine here is a worker, the store and the supervisor.

    The worker keeps to the rules of its end, but what was said to it may be lost with a connection.
    """

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.link = WorkerLink(STORE)
        # What the worker has: the command it runs, the outcome it holds; and whether it was told to go.
        self.runs = self.holds = None
        self.told_to_go = False
        # A claim for it is on its way to the store.
        self.claiming = False
        # The connection swallows what is said, and nobody has noticed.
        self.broken = False
        self.tokens = 0
        # Attempts that have no end in the store; those whose command was said; the end or claim under way.
        self.live, self.said = set(), set()
        self.under_way = None
        # The stop that must not be forgotten, and the last one that was said on this connection.
        self.noted = self.said_stop = None

    @property
    def alive(self):
        return not self.link.dead

    def do(self, actions):
        for action in actions:
            match action:
                case Send(message=message):
                    # Out of touch, it is swallowed.
                    self.hear(message, lost=self.broken or not self.link.connected)
                case Settle(token=token) | GiveBack(token=token) | Rescue(token=token):
                    assert self.under_way is None, "two ends of one worker's attempts are on their way at once"
                    offers = isinstance(action, Settle) and not (self.link.retiring or self.link.dead)
                    self.under_way = (type(action), token, offers)
                    if isinstance(action, GiveBack):
                        assert self.runs != token, "given back while it runs"
                        assert self.holds != token, "given back although its outcome is known"
                case Unfile(token=token):
                    assert token not in self.live, "removed before it was on record"
                case Available():
                    assert self.link.token is None
                    assert not self.live
                    assert self.alive
                    assert self.holds is None or self.broken, "its outcome will never be confirmed"
                case Remove():
                    assert not self.live, "removed with an attempt that nobody ended"
        if self.noted and self.link.token != self.noted[0]:
            self.noted = None

    def hear(self, message, *, lost):
        match message:
            case Recorded(token=token, run=command):
                assert token not in self.live, "confirmed before it was on record"
                if not lost and self.holds == token:
                    self.holds = None
                if command:
                    self.hear(command, lost=lost)
            case Run(token=token):
                assert token in self.live, "a command without a claim"
                assert self.alive, "a command for the dead"
                assert self.holds is None or lost, "a command for a worker that holds an outcome"
                assert not self.told_to_go, "a command after the farewell"
                assert self.noted is None, "a command that was stopped before it began"
                self.said.add(token)
                if not lost:
                    assert self.runs is None
                    self.runs = token
            case Stale(token=token):
                if not lost and self.holds == token:
                    self.holds = None
            case Stop():
                self.said_stop = (message.token, message.reason)
            case Exit():
                assert self.link.retiring
                assert self.live <= self.said, "sent away before an attempt that is already its own"
                self.told_to_go = self.told_to_go or not lost

    def step(self):
        """Do one thing that can happen now; what ends everything soon happens seldom."""
        link, idle = self.link, self.link.phase is Phase.IDLE and self.link.connected
        often = [
            (self.it_connects, self.alive and (self.broken or not link.connected)),
            (self.its_command_ends, self.alive and self.runs),
            (self.the_connection_is_lost, link.connected and self.dice.random() < 0.5),
            (self.the_connection_breaks, link.connected and self.dice.random() < 0.5),
            (self.it_is_offered, idle and self.alive and not link.retiring),
            (self.the_claim_is_answered, self.claiming),
            (self.its_command_is_prepared_or_not, link.phase is Phase.PREPARING),
            (self.an_end_is_on_record, self.under_way),
            (self.its_attempt_is_to_end, link.token is not None),
        ]
        seldom = [(self.it_dies, self.alive), (self.it_is_to_go, True)]
        possible = [act for act, can in (seldom if self.dice.random() < 0.04 else often) if can]
        if possible:
            self.dice.choice(possible)()
        self.no_attempt_is_forgotten()
        self.something_is_on_its_way_if_and_only_if_the_phase_says_so()

    # The worker and its connection.

    def it_connects(self):
        self.broken = False
        self.said_stop = None
        state = Running(self.runs) if self.runs else Holding(self.holds, OUTCOME) if self.holds is not None else Idle()
        self.do(self.link.hello(hello(state)))
        if self.runs and self.noted:
            assert self.said_stop == self.noted, "a stop was forgotten"

    def its_command_ends(self):
        self.runs, self.holds = None, self.runs
        if self.link.connected and not self.broken:
            self.do(self.link.ended(Ended(self.holds, OUTCOME)))

    def the_connection_breaks(self):
        self.broken = True

    def the_connection_is_lost(self):
        self.broken = False
        self.do(self.link.disconnected())

    def it_dies(self):
        self.runs = self.holds = None
        self.do(self.link.died())

    # The store and the supervisor.

    def claim(self):
        self.tokens += 1
        self.live.add(self.tokens)
        return self.tokens

    def it_is_offered(self):
        self.link.offered()
        self.claiming = True

    def the_claim_is_answered(self):
        self.claiming = False
        assert self.link.phase is Phase.CLAIMING, "something else began while a claim was on its way"
        if self.dice.random() < 0.7:
            self.link.claimed(self.claim())
        else:
            self.do(self.link.unclaimed())

    def its_command_is_prepared_or_not(self):
        works = self.dice.random() < 0.7
        token, stopped = self.link.token, self.noted
        actions = self.link.ready(run(token)) if works else self.link.withdrawn(Reason.HOST_ERROR, "disk full")
        if works and stopped:
            assert [action.reason for action in actions if isinstance(action, GiveBack)] == [stopped[1]]
        self.do(actions)

    def an_end_is_on_record(self):
        next_one = self.dice.random() < 0.7
        (kind, token, offers), self.under_way = self.under_way, None
        was_live = token in self.live
        self.live.discard(token)
        if kind is GiveBack:
            actions = self.link.given_back()
        else:
            given = self.claim() if next_one and offers and was_live else None
            actions = self.link.settled(token, recorded=True, claimed=given)
        self.do(actions)

    def its_attempt_is_to_end(self):
        reason = self.dice.choice([Reason.CANCELLED, Reason.INTERRUPTED])
        token = self.link.token
        self.do(self.link.stop(reason, grace=0.0, kill_after=None))
        if token is not None and self.link.phase in {Phase.RUNNING, Phase.PREPARING}:
            kept = self.noted[1] if self.noted and reason is not Reason.CANCELLED else reason
            self.noted = (token, kept)
            assert self.link.stopping

    def it_is_to_go(self):
        self.do(self.link.retire())
        assert self.link.retiring

    def no_attempt_is_forgotten(self):
        assert len(self.live) <= 1
        assert self.link.token is None or self.link.token in self.live
        assert self.live <= {self.link.token}
        if self.link.phase is Phase.GONE:
            assert not self.live

    def something_is_on_its_way_if_and_only_if_the_phase_says_so(self):
        assert (self.link.phase is Phase.SETTLING) == (self.under_way is not None)


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_no_attempt_is_forgotten_or_given_twice_and_no_stop_is_lost(seed):
    world = AnyOrder(seed)

    for _ in range(80):
        world.step()


@pytest.mark.parametrize("phase", [Phase.CLAIMING, Phase.PREPARING, Phase.SETTLING])
def test_a_greeting_does_not_disturb_what_is_on_its_way_to_the_store(phase):
    link = WorkerLink(STORE)
    link.hello(hello())
    link.phase = phase

    assert sent(link.hello(hello())) == [Welcome(protocol=CHANNEL_VERSION, store=STORE)]
    assert link.phase is phase


def test_clients_are_told_a_word_for_every_phase():
    assert set(views._PHASES) == set(Phase)
