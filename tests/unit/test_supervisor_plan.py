"""The planner of the pool: pictures in, actions out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queuectld.supervisor.link import Phase
from queuectld.supervisor.plan import Kill, Picture, PoolLimits, Retire, Spawn, Vitals, plan

LIMITS = PoolLimits(bound=4, asked=0, demand=0, heartbeat=15, idle=600, memory=100, descriptors=50)
GOOD = Vitals("S", 10, 10, 0.0)


def idle(name, **changes):
    return Picture(name=name, phase=Phase.IDLE, vitals=GOOD)._replace(**changes)


def busy(name, **changes):
    return Picture(name=name, phase=Phase.RUNNING, vitals=GOOD)._replace(**changes)


def test_one_worker_is_kept_warm():
    assert plan([], LIMITS) == [Spawn()]


def test_workers_start_when_jobs_have_none():
    assert plan([busy("w1")], LIMITS._replace(demand=2)) == [Spawn(), Spawn()]


def test_free_workers_are_used_before_new_ones_start():
    assert plan([busy("w1"), idle("w2")], LIMITS._replace(demand=1)) == []


def test_no_more_start_than_the_bound_allows():
    assert plan([busy("w1"), busy("w2"), busy("w3")], LIMITS._replace(demand=100)) == [Spawn()]


def test_a_bound_of_zero_starts_nobody():
    assert plan([], LIMITS._replace(bound=0, demand=5)) == []


def test_asked_for_workers_start_without_jobs():
    assert plan([idle("w1")], LIMITS._replace(asked=3)) == [Spawn(), Spawn()]


def test_a_lower_bound_retires_the_idle_before_the_busy():
    actions = plan([busy("w1"), idle("w2"), busy("w3")], LIMITS._replace(bound=2))

    assert [action.name for action in actions] == ["w2"]


def test_retiring_workers_count_until_they_are_gone():
    workers = [busy(f"w{n}", retiring=True) for n in range(4)]

    assert plan(workers, LIMITS._replace(demand=3)) == []


def test_a_worker_that_died_is_replaced_while_its_attempt_is_still_being_ended():
    workers = [busy("w1"), busy("w2", dead=True)]

    assert plan(workers, LIMITS._replace(bound=2, demand=1)) == [Spawn()]


def test_the_long_idle_retire_but_for_one():
    workers = [idle("w1", idle_for=700), idle("w2", idle_for=800), idle("w3", idle_for=10)]

    actions = plan(workers, LIMITS)

    assert all(isinstance(action, Retire) for action in actions)
    assert {action.name for action in actions} == {"w1", "w2"}


def test_a_stopped_worker_is_killed_and_replaced():
    actions = plan([busy("w1", vitals=Vitals("T", 10, 10, 0.0))], LIMITS._replace(demand=1))

    assert [type(action) for action in actions] == [Kill, Spawn]


def test_a_silent_worker_is_killed():
    [kill, *_] = plan([busy("w1", silent_for=16)], LIMITS)

    assert isinstance(kill, Kill)


def test_silence_is_not_judged_after_a_stall_of_the_loop():
    assert plan([busy("w1", silent_for=16)], LIMITS._replace(judge_silence=False)) == []


def test_silence_without_a_connection_is_the_business_of_the_adoption_timeout():
    assert plan([busy("w1", silent_for=16, connected=False)], LIMITS) == []


def test_a_moment_in_the_kernel_is_no_sickness_but_three_readings_are():
    assert plan([busy("w1", vitals=GOOD._replace(state="D", stuck_for=2))], LIMITS) == []
    assert isinstance(plan([busy("w1", vitals=GOOD._replace(state="D", stuck_for=3))], LIMITS)[0], Kill)


def test_a_bloated_worker_retires_after_its_job_and_another_starts():
    actions = plan([busy("w1", vitals=GOOD._replace(memory=101))], LIMITS._replace(demand=1))

    assert [type(action) for action in actions] == [Retire, Spawn]


def test_too_many_open_files_are_bloat_too():
    [retire, *_] = plan([busy("w1", vitals=GOOD._replace(descriptors=51))], LIMITS)

    assert isinstance(retire, Retire)


PICTURES = st.builds(
    Picture,
    name=st.uuids().map(str),
    phase=st.sampled_from(list(Phase)),
    connected=st.booleans(),
    retiring=st.booleans(),
    idle_for=st.floats(0, 2000),
    silent_for=st.floats(0, 60),
    vitals=st.none()
    | st.builds(
        Vitals, st.sampled_from("RSDTZ"), st.integers(0, 200), st.integers(0, 99), st.just(0.0), st.integers(0, 4)
    ),
)


@given(
    st.lists(PICTURES, max_size=12, unique_by=lambda p: p.name), st.integers(0, 8), st.integers(0, 8), st.integers(0, 9)
)
def test_no_plan_exceeds_the_bound_or_names_anybody_twice(workers, bound, asked, demand):
    actions = plan(workers, LIMITS._replace(bound=bound, asked=asked, demand=demand))

    named = [action.name for action in actions if not isinstance(action, Spawn)]
    assert len(named) == len(set(named))
    killed = {action.name for action in actions if isinstance(action, Kill)}
    occupied = sum(
        worker.phase is not Phase.GONE and not worker.dead and worker.name not in killed for worker in workers
    )
    spawned = actions.count(Spawn())
    assert spawned == 0 or occupied + spawned <= bound
