"""The guess at how many jobs wait for a worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.job import State
from queuectld.store.base import Entry
from queuectld.supervisor.demand import Demand


def arrival(run_at=None, event="job.enqueued", state=State.PENDING):
    return Entry(at=0.0, event=event, state=state, run_at=run_at)


def test_arrivals_make_demand():
    demand = Demand()

    demand.hear([arrival(), arrival(5.0)], now=5.0)

    assert int(demand) == 2


def test_what_is_due_later_sets_the_alarm_instead():
    demand = Demand()

    assert demand.hear([arrival(9.0), arrival(7.0)], now=5.0) == 7.0
    assert not demand


def test_other_news_make_no_demand():
    demand = Demand()

    demand.hear(
        [arrival(event="job.completed", state=State.COMPLETED), arrival(event="job.dead", state=State.DEAD)], 5.0
    )

    assert not demand


def test_a_claim_that_leaves_nothing_proves_that_nothing_is_left():
    demand = Demand()
    demand.expect(5)

    demand.served(more=False, got=1, ticket=demand.ticket())

    assert not demand


def test_news_behind_a_claims_back_are_not_forgotten():
    demand = Demand()
    ticket = demand.ticket()
    demand.hear([arrival()], now=1.0)

    demand.served(more=False, got=0, ticket=ticket)

    assert demand


def test_a_claim_that_finds_more_than_was_known_of_asks_again():
    demand = Demand()

    demand.served_one(found=True, ticket=demand.ticket())

    assert int(demand) == 1


def test_a_claim_that_leaves_some_keeps_the_demand():
    demand = Demand()
    demand.expect(1)

    demand.served(more=True, got=1, ticket=demand.ticket())

    assert demand


def test_what_a_look_left_is_not_used_up_by_a_worker_that_takes_one_of_it():
    demand = Demand()
    # Three have become due, which is no news.
    demand.served(more=True, got=0, ticket=demand.ticket())

    demand.served_one(found=True, ticket=demand.ticket())

    assert demand


@given(st.lists(st.tuples(st.sampled_from(["arrive", "due", "send", "send one", "answer"]), st.integers(1, 4))))
def test_a_waiting_job_is_never_left_without_demand_or_a_claim_on_its_way(steps):
    demand, waiting, news = Demand(), 0, []
    for step, count in steps:
        match step:
            case "arrive":
                waiting += count
                news += [("news", count)]
            case "due":
                # Nobody tells of it but the look that ripens them.
                waiting += count
                news.append(("claim", (True, 0, demand.ticket())))
            case "send":
                got = min(count, waiting)
                waiting -= got
                news.append(("claim", (waiting > 0, got, demand.ticket())))
            case "send one":
                got = min(1, waiting)
                waiting -= got
                news.append(("one", (got == 1, demand.ticket())))
            case "answer" if news:
                kind, what = news.pop(0)
                if kind == "news":
                    demand.hear([arrival()] * what, now=1.0)
                elif kind == "claim":
                    more, got, ticket = what
                    demand.served(more=more, got=got, ticket=ticket)
                else:
                    found, ticket = what
                    demand.served_one(found=found, ticket=ticket)
        if waiting:
            assert demand or news
