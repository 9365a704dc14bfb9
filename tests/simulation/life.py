"""Lives through the world of a seed."""

from __future__ import annotations

from tests.simulation.figures import Figures
from tests.simulation.quiet import quiet
from tests.simulation.world import World


class SeedFailedError(AssertionError):
    """A world went wrong: tells its seed, and what happened last."""


def live_through(seed: int) -> Figures:
    """Run the world of this seed; return what was exercised. Raises `SeedFailedError`."""
    world = World(seed)

    def heard(event: str, fields: dict[str, object]) -> None:
        world.tell(f"log: {event} { {name: value for name, value in fields.items() if name != 'event_name'} }")
        world.checker.logged(event, fields)

    with quiet(heard):
        try:
            world.run()
        except Exception as error:
            trace = "\n".join(world.trace)
            what = f"{trace}\n\nseed {seed} fails at step {world.scheduler.steps}: {type(error).__name__}: {error}"
            raise SeedFailedError(what) from error
    return world.figures
