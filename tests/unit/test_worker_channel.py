"""The worker's end of the channel: each rule by itself, then all of them under any order of events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    Beat,
    Ended,
    Exit,
    Follow,
    Hello,
    Holding,
    Idle,
    Outcome,
    OutputGrown,
    Reason,
    Recorded,
    Run,
    Running,
    RunSpec,
    Signal,
    Stale,
    Started,
    Stop,
    Welcome,
)
from queuectld.worker.actions import (
    Connect,
    Decline,
    Disconnect,
    EndTree,
    PassSignal,
    Quit,
    Save,
    Send,
    Spawn,
)
from queuectld.worker.channel import (
    BEAT_INTERVAL,
    FIRST_RETRY,
    GROWTH_INTERVAL,
    LAST_RETRY,
    SAVE_RETRY,
    Channel,
    Identity,
)

ME = Identity(store="s", name="w1", pid=10, pid_start=20)
ORPHAN = 60.0
SPEC = RunSpec(job="j", argv=("true",), cwd="/", env=msgspec.Raw(b"{}"), output="/o", output_limit=10)
DONE = Outcome(reason=Reason.EXITED, ended_at=1.0, exit_code=0)
WELCOME = Welcome(protocol=CHANNEL_VERSION, store="s")


@pytest.fixture
def channel():
    """Connected and idle, at time 0."""
    channel = Channel(ME, ORPHAN, now=0.0)
    channel.tick(0.0)
    channel.connected(0.0)
    channel.received(WELCOME, 0.0)
    return channel


@pytest.fixture
def running(channel):
    """The same, running the attempt 7."""
    channel.received(Run(7, SPEC), 0.0)
    channel.started(100, 200)
    return channel


@pytest.fixture
def holding(running):
    """The same, with the outcome of 7 told and unconfirmed."""
    running.ended(DONE)
    return running


def hello(channel, now=0.0):
    """What it says of itself on a new connection."""
    [send] = channel.connected(now)
    assert isinstance(send.message, Hello)
    return send.message


# Connecting.


def test_a_new_worker_connects_at_once():
    assert Channel(ME, ORPHAN, now=5.0).tick(5.0) == [Connect()]


def test_its_first_words_say_who_it_is():
    channel = Channel(ME, ORPHAN, now=0.0)
    channel.tick(0.0)

    said = hello(channel)

    who = {"protocol": CHANNEL_VERSION, "store": "s", "name": "w1", "pid": 10, "pid_start": 20}
    assert said == Hello(**who, state=Idle(), connection=1)


def test_it_reconnects_every_50_ms_slowing_to_a_second(channel):
    now = 0.0
    channel.lost(now)
    delays = []
    for _ in range(20):
        due = channel.due()
        delays.append(due - now)
        now = due
        assert channel.tick(now) == [Connect()]
        channel.lost(now)

    assert delays[0] == pytest.approx(FIRST_RETRY)
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(LAST_RETRY)


def test_a_welcome_makes_the_next_reconnect_fast_again(channel):
    for n in range(20):
        channel.lost(float(n))
        channel.tick(n + LAST_RETRY)
    channel.connected(30.0)
    channel.received(WELCOME, 30.0)

    channel.lost(31.0)

    assert channel.due() == pytest.approx(31.0 + FIRST_RETRY)


def test_it_does_not_connect_twice_at_once(channel):
    channel.lost(0.0)
    channel.tick(1.0)

    assert channel.tick(1.0) == []


def test_it_beats_every_5_seconds(channel):
    assert channel.due() == BEAT_INTERVAL
    assert channel.tick(BEAT_INTERVAL - 0.1) == []
    assert channel.tick(BEAT_INTERVAL) == [Send(Beat(None))]
    assert channel.due() == 2 * BEAT_INTERVAL


def test_a_beat_names_the_attempt(running):
    assert running.tick(BEAT_INTERVAL) == [Send(Beat(7))]


# Running.


def test_a_run_is_spawned_and_said_to_have_started(channel):
    assert channel.received(Run(7, SPEC), 0.0) == [Spawn(7, SPEC)]
    assert channel.started(100, 200) == [Send(Started(7, 100, 200))]


def test_an_end_is_told(running):
    assert running.ended(DONE) == [Send(Ended(7, DONE))]


def test_what_could_not_be_started_is_told_as_an_end(channel):
    channel.received(Run(7, SPEC), 0.0)

    assert channel.ended(DONE) == [Send(Ended(7, DONE))]


def test_recorded_makes_it_idle(holding):
    assert holding.received(Recorded(7), 0.0) == []
    assert hello(holding).state == Idle()


def test_recorded_may_carry_the_next_run(holding):
    assert holding.received(Recorded(7, Run(8, SPEC)), 0.0) == [Spawn(8, SPEC)]


def test_recorded_of_an_older_attempt_changes_nothing(holding):
    holding.received(Recorded(6), 0.0)

    assert hello(holding).state == Holding(7, DONE)


def test_recorded_while_it_still_runs_changes_nothing(running):
    running.received(Recorded(7), 0.0)

    assert hello(running).state == Running(7, 100, 200)


def test_it_takes_no_run_while_it_holds_an_outcome(holding):
    actions = holding.received(Run(8, SPEC), 0.0)

    assert Disconnect() in actions
    assert not any(isinstance(action, Spawn) for action in actions)


def test_it_takes_no_second_run(running):
    actions = running.received(Run(8, SPEC), 0.0)

    assert actions == [Disconnect()]
    assert hello(running).state == Running(7, 100, 200)


def test_the_same_run_again_changes_nothing(running):
    assert running.received(Run(7, SPEC), 0.0) == []


def test_an_old_token_is_never_run(holding):
    holding.received(Recorded(7), 0.0)

    assert holding.received(Run(7, SPEC), 0.0) == [Disconnect()]


@pytest.mark.parametrize("message", [Stop(token=7, reason=Reason.CANCELLED), Signal(7, 1), Follow(7, on=True)])
def test_nothing_is_done_to_a_command_that_is_over(holding, message):
    assert holding.received(message, 0.0) == []


@pytest.mark.parametrize(
    "message", [Stop(token=6, reason=Reason.CANCELLED), Signal(6, 1), Follow(6, on=True), Stale(6), Recorded(6)]
)
def test_an_older_token_changes_nothing(running, message):
    running.grown(5, 0.0)

    assert running.received(message, 0.0) == []
    assert hello(running).state == Running(7, 100, 200)


def test_a_stop_ends_the_tree_and_is_remembered(running):
    stop = Stop(token=7, reason=Reason.INTERRUPTED, grace=30.0, kill_after=2.0)

    assert running.received(stop, 0.0) == [EndTree(Reason.INTERRUPTED, 30.0, 2.0)]
    assert hello(running).state == Running(7, 100, 200, stopping=True)


def test_a_signal_is_passed_on(running):
    assert running.received(Signal(7, 10), 0.0) == [PassSignal(10)]


# Following.


def test_output_is_told_only_while_followed(running):
    assert running.grown(5, 0.0) == []
    assert running.received(Follow(7, on=True), 0.0) == [Send(OutputGrown(7, 5))]
    running.received(Follow(7, on=False), 0.0)
    assert running.grown(6, 9.0) == []


def test_growth_is_told_at_most_every_20_ms_and_nothing_is_forgotten(running):
    running.received(Follow(7, on=True), 0.0)

    assert running.grown(5, 1.0) == [Send(OutputGrown(7, 5))]
    assert running.grown(6, 1.001) == []
    assert running.due() == pytest.approx(1.0 + GROWTH_INTERVAL)
    assert running.tick(1.0 + GROWTH_INTERVAL) == [Send(OutputGrown(7, 6))]


def test_the_last_growth_is_told_before_the_end(running):
    running.received(Follow(7, on=True), 0.0)
    running.grown(5, 1.0)
    running.grown(6, 1.001)

    assert running.ended(DONE) == [Send(OutputGrown(7, 6)), Send(Ended(7, DONE))]


def test_a_new_connection_is_not_told_of_output_until_it_asks(running):
    running.received(Follow(7, on=True), 0.0)
    running.lost(0.0)
    running.connected(0.0)

    assert running.grown(5, 1.0) == []


# Alone.


def test_a_lost_connection_is_no_death(running):
    assert running.lost(1.0) == []
    assert hello(running).state == Running(7, 100, 200)


def test_an_outcome_without_a_connection_is_stored(running):
    running.lost(0.0)

    assert running.ended(DONE) == [Save(7, DONE)]


def test_an_outcome_that_was_told_in_vain_is_stored(holding):
    assert holding.lost(0.0) == [Save(7, DONE)]


def test_a_stored_outcome_is_stored_once(holding):
    holding.lost(0.0)
    holding.saved(7, 0.0, done=True)
    holding.connected(1.0)

    assert holding.lost(2.0) == []


def test_an_outcome_on_disk_is_held_until_it_is_recorded(holding):
    holding.lost(0.0)
    holding.saved(7, 0.0, done=True)

    assert hello(holding).state == Holding(7, DONE)
    holding.received(Recorded(7), 0.0)
    assert hello(holding).state == Idle()


def test_a_full_disk_is_tried_again(holding):
    holding.lost(0.0)
    holding.saved(7, 0.0, done=False)
    holding.tick(0.5)
    holding.lost(0.5)

    assert Save(7, DONE) in holding.tick(SAVE_RETRY)


def test_it_does_not_end_with_an_outcome_that_is_nowhere(holding):
    holding.lost(0.0)
    holding.saved(7, 0.0, done=False)
    holding.terminate()

    assert Quit() not in holding.tick(10 * ORPHAN)


def test_an_orphan_ends(channel):
    channel.lost(1.0)
    channel.tick(2.0)
    channel.lost(2.0)

    assert Quit() not in channel.tick(ORPHAN + 0.9)
    channel.lost(ORPHAN + 0.9)
    assert Quit() in channel.tick(ORPHAN + 1.0)


def test_a_worker_that_never_saw_a_daemon_ends():
    channel = Channel(ME, ORPHAN, now=0.0)
    channel.tick(0.0)
    channel.lost(0.0)

    assert Quit() in channel.tick(ORPHAN)


def test_an_orphan_with_a_command_stays_and_ends_after_it(running):
    running.lost(0.0)

    assert Quit() not in running.tick(100 * ORPHAN)
    assert running.ended(DONE) == [Save(7, DONE)]
    running.saved(7, 100 * ORPHAN, done=True)
    assert Quit() in running.tick(100 * ORPHAN)


# Stale.


def test_a_stale_attempt_is_ended_at_once_and_not_reported(running):
    assert running.received(Stale(7), 0.0) == [EndTree(Reason.LOST, 0.0, 0.0)]
    assert running.ended(DONE) == [Send(Beat(None))]
    assert hello(running).state == Idle()


def test_a_stale_attempt_without_a_connection_leaves_no_file(running):
    running.received(Stale(7), 0.0)
    running.lost(0.0)

    assert running.ended(DONE) == []


def test_a_stale_outcome_is_dropped(holding):
    assert holding.received(Stale(7), 0.0) == []
    assert hello(holding).state == Idle()


# Ending.


def test_exit_ends_an_idle_worker(channel):
    assert channel.received(Exit(), 0.0) == [Quit()]


def test_exit_waits_for_the_outcome_to_be_recorded(running):
    assert running.received(Exit(), 0.0) == []
    assert running.ended(DONE) == [Send(Ended(7, DONE))]
    assert running.received(Recorded(7), 0.0) == [Quit()]


def test_terminated_without_a_daemon_it_stores_and_ends(running):
    running.lost(0.0)
    running.terminate()

    assert running.ended(DONE) == [Save(7, DONE)]
    assert running.saved(7, 0.0, done=True) == [Quit()]


def test_a_run_that_comes_too_late_is_declined_with_a_file(running):
    running.terminate()
    running.ended(DONE)

    assert running.received(Recorded(7, Run(8, SPEC)), 0.0) == [Disconnect(), Decline(8)]
    assert running.ended(DONE) == [Save(8, DONE)]
    assert running.saved(8, 0.0, done=True) == [Quit()]


def test_a_daemon_of_another_version_gets_a_file(running):
    other = Welcome(protocol=CHANNEL_VERSION + 1, store="s")

    assert running.received(other, 0.0) == [Disconnect()]
    assert running.due() == float("inf")
    assert running.ended(DONE) == [Save(7, DONE)]
    assert running.saved(7, 0.0, done=True) == [Quit()]


def test_an_attempt_of_another_store_is_ended(running):
    assert running.received(Welcome(protocol=CHANNEL_VERSION, store="t"), 0.0) == [EndTree(Reason.LOST, 0.0, 0.0)]
    assert running.ended(DONE)[-1] == Quit()


def test_an_outcome_of_another_store_is_dropped(holding):
    assert holding.received(Welcome(protocol=CHANNEL_VERSION, store="t"), 0.0) == [Quit()]


def test_an_idle_worker_leaves_another_store(channel):
    assert channel.received(Welcome(protocol=CHANNEL_VERSION, store="t"), 0.0) == [Quit()]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, the rules hold. The machine here is the loop, the disk and the commands."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.up = False
        self.asked = False
        self.token = 0
        self.running = None
        self.outcomes = {}
        self.told, self.files, self.settled = set(), set(), set()
        self.unsaved = None
        self.quit = False
        self.channel = Channel(ME, ORPHAN, now=0.0)

    def do(self, actions):
        for action in actions:
            assert not self.quit, f"{action} after the end"
            match action:
                case Connect():
                    assert not self.up
                    assert not self.asked
                    self.asked = True
                case Disconnect():
                    assert self.up
                    self.up = False
                case Send():
                    assert self.up
                    self.said(action.message)
                case Spawn() | Decline():
                    assert self.running is None
                    assert set(self.outcomes) <= self.settled | self.files
                    self.running = action.token
                    if isinstance(action, Decline):
                        self.end()
                case EndTree() | PassSignal():
                    assert self.running is not None
                case Save():
                    assert not self.up
                    assert self.outcomes[action.token] == action.outcome
                    self.unsaved = action.token
                case Quit():
                    assert self.running is None
                    assert set(self.outcomes) <= self.settled | self.files
                    self.quit = True

    def said(self, message):
        if isinstance(message, Ended):
            assert self.running is None
            assert self.outcomes[message.token] == message.outcome
            self.told.add(message.token)
        if isinstance(message, Hello):
            state = message.state
            assert isinstance(state, Running) == (self.running is not None)
            if isinstance(state, Holding):
                assert state.token not in self.settled
                self.told.add(state.token)

    def end(self):
        token, self.running = self.running, None
        outcome = Outcome(reason=Reason.EXITED, ended_at=float(token), exit_code=token)
        if token not in self.settled:
            self.outcomes[token] = outcome
        self.do(self.channel.ended(outcome))

    @precondition(lambda self: not self.quit)
    @rule(step=st.floats(0.0, 40.0))
    def time_passes(self, step):
        self.now += step
        self.do(self.channel.tick(self.now))

    @precondition(lambda self: self.asked and not self.quit)
    @rule(works=st.booleans())
    def the_connection_is_made_or_not(self, works):
        self.asked = False
        self.up = works
        self.do(self.channel.connected(self.now) if works else self.channel.lost(self.now))

    @precondition(lambda self: self.up and not self.quit)
    @rule()
    def the_connection_is_lost(self):
        self.up = False
        self.do(self.channel.lost(self.now))

    @precondition(lambda self: self.unsaved is not None and not self.quit)
    @rule(works=st.booleans())
    def the_disk_answers(self, works):
        token, self.unsaved = self.unsaved, None
        if works:
            self.files.add(token)
        self.do(self.channel.saved(token, self.now, done=works))

    @precondition(lambda self: self.up and not self.quit)
    @rule(protocol=st.sampled_from([CHANNEL_VERSION] * 3 + [CHANNEL_VERSION + 1]))
    def it_is_welcomed(self, protocol):
        self.do(self.channel.received(Welcome(protocol=protocol, store="s"), self.now))

    @precondition(lambda self: self.up and not self.quit)
    @rule(carried=st.booleans())
    def an_outcome_is_recorded(self, carried):
        for token in sorted(self.told - self.settled):
            self.settled.add(token)
            self.do(self.channel.received(Recorded(token, self.next_run() if carried else None), self.now))
            return

    def next_run(self):
        self.token += 1
        return Run(self.token, SPEC)

    @precondition(lambda self: self.up and not self.quit)
    @rule()
    def a_run_comes(self):
        self.do(self.channel.received(self.next_run(), self.now))

    @precondition(lambda self: self.up and not self.quit)
    @rule(which=st.integers(1, 30), kind=st.sampled_from(["stop", "signal", "follow", "stale"]))
    def a_message_about_some_attempt_comes(self, which, kind):
        if kind == "stale" and (which in self.outcomes or which == self.running):
            self.settled.add(which)
        self.do(
            self.channel.received(
                {
                    "stop": Stop(token=which, reason=Reason.CANCELLED),
                    "signal": Signal(which, 1),
                    "follow": Follow(which, on=True),
                    "stale": Stale(which),
                }[kind],
                self.now,
            )
        )

    @precondition(lambda self: self.running is not None and not self.quit)
    @rule(size=st.integers(0, 1000))
    def it_writes(self, size):
        self.do(self.channel.grown(size, self.now))

    @precondition(lambda self: self.running is not None and not self.quit)
    @rule()
    def it_starts(self):
        self.do(self.channel.started(5, 6))

    @precondition(lambda self: self.running is not None and not self.quit)
    @rule()
    def it_ends(self):
        self.end()

    @precondition(lambda self: self.token > 3 and not self.quit)
    @rule(by_daemon=st.booleans())
    def it_is_asked_to_end(self, by_daemon):
        if by_daemon and self.up:
            self.do(self.channel.received(Exit(), self.now))
        else:
            self.do(self.channel.terminate())

    @invariant()
    def an_outcome_is_told_or_stored_or_about_to_be(self):
        for token in set(self.outcomes) - self.settled - self.files:
            assert self.up or self.unsaved == token or self.channel.due() <= self.now + SAVE_RETRY

    @precondition(lambda self: self.quit)
    @rule()
    def nothing_happens_any_more(self):
        assert self.running is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
