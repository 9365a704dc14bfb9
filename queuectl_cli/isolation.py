"""What keeps track of the processes of a job, in the words of status and doctor."""

from __future__ import annotations

from queuectl_cli.client import Message


def in_words(isolation: Message) -> str:
    """Say which mechanism is active, and what that means for jobs."""
    if isolation["cgroup"] is None:
        return (
            f"no cgroups ({isolation['reason']}), only process groups, sessions and a subreaper: "
            "what detaches and clears its environment may outlive its job"
        )
    enforced = "the kernel" if "memory" in isolation["controllers"] else "the workers"
    return f"cgroup v2, so that what detaches still ends with its job; memory limits by {enforced}"
