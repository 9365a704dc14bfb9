from __future__ import annotations

from queuectld.host.pulse import Pulse, Signs

IDLE = Signs(store_asked=5, store_answered=5, claims_asked=2, claims_answered=2, neglected=False)
STORE_WAITS = IDLE._replace(store_asked=6)
CLAIM_WAITS = IDLE._replace(claims_asked=3)
NEGLECT = IDLE._replace(neglected=True)
EVERY = 5.0
PATIENCE = 15.0


def beats(pulse, *signs, start=100.0):
    """Beat in time, once for each of these; return the complaints of each."""
    return [
        list(pulse.beat(one, now=start + number * EVERY, due=start + number * EVERY))
        for number, one in enumerate(signs)
    ]


def test_an_idle_daemon_has_nothing_to_complain_of():
    pulse = Pulse(PATIENCE)

    assert not any(beats(pulse, *[IDLE] * 100))
    assert (pulse.stuck, pulse.stalls, pulse.max_lag) == ((), 0, 0.0)


def test_a_store_that_does_not_answer_is_complained_of_once_after_a_while():
    pulse = Pulse(PATIENCE)

    told = beats(pulse, IDLE, *[STORE_WAITS] * 5)

    assert told == [[], [], [], [], ["the store has not answered"], []]
    assert pulse.problems(125.0) == ["the store has not answered for 20 s"]
    assert pulse.stalls == 1


def test_a_store_that_answers_slowly_gets_on():
    pulse = Pulse(PATIENCE)

    told = beats(pulse, *[STORE_WAITS._replace(store_asked=90, store_answered=count) for count in range(50)])

    assert not any(told)


def test_a_store_that_answers_in_the_end_is_forgiven():
    pulse = Pulse(PATIENCE)
    beats(pulse, *[STORE_WAITS] * 6)

    beats(pulse, STORE_WAITS._replace(store_answered=6), start=130.0)

    assert (pulse.stuck, pulse.problems(130.0), pulse.stalls) == ((), [], 1)


def test_a_claim_without_an_answer_is_complained_of_even_if_the_store_answers_others():
    pulse = Pulse(PATIENCE)

    told = beats(pulse, *[CLAIM_WAITS._replace(store_asked=count, store_answered=count) for count in range(5)])

    assert told[-2:] == [["no answer to a claim has come"], []]


def test_work_that_nobody_asks_for_is_complained_of():
    pulse = Pulse(PATIENCE)

    told = beats(pulse, *[NEGLECT] * 4)

    assert told[-1] == ["jobs could start and workers are free, but none has been claimed"]


def test_work_that_is_asked_for_between_two_looks_is_no_neglect():
    pulse = Pulse(PATIENCE)

    told = beats(pulse, *[NEGLECT._replace(claims_asked=count, claims_answered=count) for count in range(20)])

    assert not any(told)


def test_a_loop_that_stood_still_is_counted_and_mentioned_for_a_minute():
    pulse = Pulse(PATIENCE)

    pulse.beat(IDLE, now=107.5, due=105.0)
    pulse.beat(IDLE, now=110.0, due=110.0)

    assert (pulse.lag, pulse.max_lag, pulse.stalls) == (0.0, 2.5, 1)
    assert pulse.problems(112.0) == ["the daemon stood still for 2.5 s, 4 s ago"]
    assert pulse.problems(168.0) == []


def test_what_waited_behind_a_loop_that_stood_still_gets_its_time_anew():
    pulse = Pulse(PATIENCE)
    pulse.beat(STORE_WAITS, now=100.0, due=100.0)

    told = [pulse.beat(STORE_WAITS, now=160.0, due=105.0), pulse.beat(STORE_WAITS, now=165.0, due=165.0)]

    assert told == [[], []]
