"""All attacks, in the order in which they are listed and run."""

from __future__ import annotations

from typing import Final

from tests.faults import (
    clients,
    crashpoints,
    cuts,
    fulldisk,
    hostilejobs,
    impostors,
    iofaults,
    kills,
    mutants,
    rescue,
    soak,
    stores,
    workerpoints,
)
from tests.faults.suite import Suite

SUITES: Final[dict[str, Suite]] = {
    suite.name: suite
    for suite in (
        crashpoints.SUITE,
        workerpoints.SUITE,
        cuts.SUITE,
        kills.SUITE,
        kills.DAEMON_SUITE,
        iofaults.SUITE,
        fulldisk.SUITE,
        rescue.SUITE,
        mutants.SUITE,
        clients.SUITE,
        hostilejobs.SUITE,
        impostors.SUITE,
        stores.SUITE,
        soak.SUITE,
    )
}
