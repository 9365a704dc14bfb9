"""The words of the protocol that both ends share: plain values and no imports, so that a client stays light."""

from __future__ import annotations

from typing import Final

VERSION: Final = "1.0.0"
PROTOCOL: Final = (1,)

# The states of a job that a user sees, in the order of its life.
STATES: Final = ("pending", "processing", "completed", "failed", "dead", "cancelled")
# States from which nothing happens by itself any more.
FINAL_STATES: Final = ("completed", "dead", "cancelled")

OPERATIONS: Final = (
    "hello",
    "ping",
    "enqueue",
    "stage",
    "get",
    "list",
    "count",
    "logs",
    "wait",
    "signal",
    "cancel",
    "retry",
    "discard",
    "undelete",
    "worker_list",
    "worker_start",
    "worker_stop",
    "status",
    "events",
    "config_list",
    "config_set",
    "config_unset",
    "shutdown",
    "reexec",
    "reload",
    "stop",
)

ERROR_CODES: Final = (
    "ambiguous_id",
    "bad_config",
    "bad_json",
    "bad_request",
    "check_failed",
    "disk_full",
    "draining",
    "duplicate_id",
    "duplicate_key",
    "forbidden",
    "internal",
    "line_too_long",
    "no_such_attempt",
    "no_such_job",
    "no_such_key",
    "no_such_queue",
    "no_such_stream",
    "stale",
    "store",
    "store_damaged",
    "store_locked",
    "store_too_new",
    "tls_required",
    "too_many_attempts",
    "too_many_clients",
    "too_much_held",
    "unauthenticated",
    "unknown_op",
    "unsupported",
    "wrong_state",
)

# Why an attempt, or the job itself, ended as it did.
REASONS: Final = (
    "exited",
    "signalled",
    "timeout",
    "silent",
    "cancelled",
    "not_started",
    "out_of_memory",
    "cpu_limit",
    "output_limit",
    "lost",
    "interrupted",
    "host_error",
)

# One line of a request or reply, in bytes, without its newline.
LINE_LIMIT: Final = 1024 * 1024
# Requests of one connection that may be open at once; streams count.
INFLIGHT_LIMIT: Final = 64
