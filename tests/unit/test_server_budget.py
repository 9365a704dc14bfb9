"""Who goes when connections hold too much."""

from __future__ import annotations

from queuectld.server.budget import Budget, Share

ANN, BOB = 1000, 1001


def test_nobody_goes_while_there_is_room():
    budget = Budget(Share(user=10, everybody=15))

    budget.note(ANN, "a", 10)
    budget.note(BOB, "b", 5)

    assert budget.greediest(ANN) is None
    assert budget.greediest(BOB) is None


def test_of_a_user_with_too_much_the_connection_goes_that_holds_most():
    budget = Budget(Share(user=10, everybody=100))
    budget.note(ANN, "much", 8)
    budget.note(BOB, "other", 9)

    budget.note(ANN, "little", 3)

    assert budget.greediest(ANN) == "much"
    assert budget.greediest(BOB) is None


def test_of_all_users_the_greediest_pays_and_not_the_one_who_came_last():
    budget = Budget(Share(user=10, everybody=15))
    budget.note(ANN, "a", 10)

    budget.note(BOB, "b", 6)

    assert budget.greediest(BOB) == "a"


def test_of_equals_the_one_goes_that_came_last():
    budget = Budget(Share(user=10, everybody=100))

    for name in ("first", "second", "third"):
        budget.note(ANN, name, 4)

    assert budget.greediest(ANN) == "third"


def test_what_is_held_no_more_makes_room():
    budget = Budget(Share(user=10, everybody=15))
    budget.note(ANN, "a", 10)
    assert not budget.fits(ANN, 1)

    budget.note(ANN, "a", 4)

    assert budget.fits(ANN, 6)
    assert not budget.fits(ANN, 7)
    assert not budget.fits(BOB, 12)
    budget.note(ANN, "a", 0)
    assert budget.total == 0
    assert budget.fits(BOB, 10)
