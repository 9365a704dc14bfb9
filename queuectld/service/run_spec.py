"""What a worker is told to run: the job's wishes, completed by the configuration and the account."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from queuectld.config import Config
from queuectld.domain.job import Job
from queuectld.protocol.worker_messages import RunSpec
from queuectld.service.attempts import Claimed

# What an account's own environment takes over from the daemon's.
_KEPT = ("LANG", "LANGUAGE", "TZ", "PATH")
_USUAL_UMASK = 0o022
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Account(NamedTuple):
    """Whose rights jobs run with, and the environment and directory that they begin with."""

    name: str
    home: str
    environment: Mapping[str, str]


def account(uid: int, environ: Mapping[str, str]) -> Account:
    """Look up a user; one without an entry, or whose home cannot be entered, still gets what it takes to run."""
    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
    except KeyError:
        name, home, shell = str(uid), "/", "/bin/sh"
    kept = {key: environ[key] for key in environ if key in _KEPT or key.startswith("LC_")}
    own = {"PATH": _USUAL_PATH, "HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell or "/bin/sh"}
    # The accounts of services name homes that do not exist; their jobs begin where a login would.
    return Account(name, home if os.access(home, os.X_OK) else "/", own | kept)


class InputFiles(NamedTuple):
    """Where the blobs of an attempt were written, for its worker to open."""

    stdin: str | None = None
    script: str | None = None


def run_spec(
    claimed: Claimed,
    *,
    config: Config,
    account: Account,
    store: str,
    output: str,
    files: InputFiles,
    cgroup: str | None,
) -> RunSpec:
    """Put together the command of a claimed job; `output` is the base of its output files, `cgroup` may be its own."""
    job, attempt = claimed.job, claimed.attempt
    spec = job.spec
    added = {
        "QUEUECTL_JOB_ID": job.id,
        "QUEUECTL_ATTEMPT": str(attempt.number),
        "QUEUECTL_ATTEMPT_TOKEN": f"{store}/{attempt.token}",
        "QUEUECTL_QUEUE": job.queue,
        "QUEUECTL_WORKER": attempt.worker,
    }
    base = claimed.environment if claimed.environment is not None else msgspec.json.encode(account.environment)
    # Python programs are the ones whose output would otherwise arrive in blocks; whoever sets it himself is obeyed.
    unbuffered = {} if b'"PYTHONUNBUFFERED"' in base else {"PYTHONUNBUFFERED": "1"}
    limits = spec.limits
    return RunSpec(
        job=job.id,
        argv=command_line(job, config.shell, files.script),
        cwd=spec.cwd or account.home,
        env=msgspec.Raw(base),
        extra_env=unbuffered | spec.env | added,
        # The daemon keeps its own files to itself; what commands make is made as a login shell would.
        umask=_USUAL_UMASK if spec.umask is None else spec.umask,
        nice=spec.nice,
        stdin=files.stdin,
        output=output,
        output_limit=config.output_limit if limits.output is None else limits.output,
        output_end=limits.output_action == "end",
        timeout=config.timeout if spec.timeout is None else float(spec.timeout),
        silent_timeout=_seconds(spec.silent_timeout),
        memory=limits.memory,
        cpu=_seconds(limits.cpu),
        files=limits.files,
        kill_after=config.kill_after if spec.kill_after is None else float(spec.kill_after),
        keep_leftovers=spec.leftovers == "keep",
        cgroup=cgroup,
    )


def _seconds(duration: float | None) -> float | None:
    # The type of the specification is none that messages to workers know.
    return None if duration is None else float(duration)


def command_line(job: Job, shell: str, script: str | None) -> tuple[str, ...]:
    """Return the words to execute."""
    if job.spec.argv is not None:
        return job.spec.argv
    if script is not None:
        return (job.spec.shell or shell, script)
    return (job.spec.shell or shell, "-c", job.spec.command or "")
