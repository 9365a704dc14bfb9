"""What a worker is told to run: the job's wishes, completed by the configuration and the account."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from queuectld.config import Config
from queuectld.domain.job import Job
from queuectld.protocol.worker_messages import RunSpec
from queuectld.service.account import Account
from queuectld.service.attempts import Claimed

_USUAL_UMASK = 0o022
# Where a login begins whose home cannot be entered: the accounts of services name homes that do not exist.
_ANYWHERE = "/"


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
        identity=account.identity,
        cwd=spec.cwd or account.home,
        elsewhere=_ANYWHERE if spec.cwd is None else None,
        env=msgspec.Raw(base),
        extra_env=unbuffered | spec.env | added,
        # The daemon keeps its own files to itself; what commands make is made as a login shell would.
        umask=_USUAL_UMASK if spec.umask is None else spec.umask,
        nice=spec.nice,
        stdin=files.stdin,
        script=files.script,
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
