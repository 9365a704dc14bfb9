from __future__ import annotations

from queuectld.server.lobby import Lobby


def test_as_many_as_there_is_room_for_stay():
    lobby = Lobby(3)

    assert [lobby.enter(guest) for guest in "abc"] == [None] * 3
    assert list(lobby) == ["a", "b", "c"]


def test_for_one_too_many_whoever_waits_longest_goes():
    lobby = Lobby(2)
    lobby.enter("a")
    lobby.enter("b")

    assert lobby.enter("c") == "a"
    assert lobby.enter("d") == "b"
    assert list(lobby) == ["c", "d"]
    assert len(lobby) == 2


def test_who_has_gone_makes_room_and_may_go_twice():
    lobby = Lobby(2)
    lobby.enter("a")
    lobby.enter("b")

    lobby.leave("a")
    lobby.leave("a")

    assert lobby.enter("c") is None
    assert lobby.enter("d") == "b"
    lobby.leave("b")
    assert list(lobby) == ["c", "d"]
