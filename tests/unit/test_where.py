from __future__ import annotations

from queuectld.protocol.where import places

HOME = {"HOME": "/home/alice"}


def where(env=HOME, uid=1000, scope=None, directories=()):
    return places(env, uid, scope, lambda path: path in directories)


def test_a_users_queue_is_where_the_desktop_standard_says():
    here = where(directories=("/run/user/1000",))

    assert here.scope == "user"
    assert here.state == "/home/alice/.local/state/queuectl"
    assert here.config == "/home/alice/.config/queuectl/queuectld.toml"
    assert here.socket == "/run/user/1000/queuectl/queuectl.sock"


def test_the_standards_variables_are_followed():
    env = HOME | {"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}

    here = where(env, directories=("/r",))

    assert (here.state, here.config) == ("/s/queuectl", "/c/queuectl/queuectld.toml")
    assert here.socket == "/r/queuectl/queuectl.sock"


def test_without_a_runtime_directory_the_socket_is_in_the_state_directory():
    assert where().socket == "/home/alice/.local/state/queuectl/queuectl.sock"


def test_the_queue_of_root_is_the_systems():
    here = where({}, uid=0)

    assert (here.scope, here.state, here.socket) == ("system", "/var/lib/queuectl", "/run/queuectl/queuectl.sock")
    assert where(uid=0, scope="user").state == "/home/alice/.local/state/queuectl"
    assert where(uid=1000, scope="system").state == "/var/lib/queuectl"


def test_a_state_directory_of_ones_own_sets_a_queue_apart():
    here = where({"QUEUECTL_STATE_DIR": "/tmp/q"}, uid=0)

    assert here == ("private", "/tmp/q", "/tmp/q/queuectld.toml", "/tmp/q/queuectl.sock")


def test_a_scope_that_was_asked_for_wins_over_the_variable():
    assert where(HOME | {"QUEUECTL_STATE_DIR": "/tmp/q"}, scope="system").scope == "system"


def test_the_configuration_file_can_be_named():
    for scope in (None, "user", "system"):
        assert where(HOME | {"QUEUECTL_CONFIG": "/etc/q.toml"}, scope=scope).config == "/etc/q.toml"
