"""Run by the fault tests: enqueue jobs one by one into the database given, and say what became of each."""

from __future__ import annotations

import sys
from pathlib import Path

from queuectld.errors import DiskFullError, QueueCTLError
from queuectld.store.sqlite import open_store
from queuectld.store.thread import Batcher, FatalError, Submission

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.store.driving import draft


def main(path: Path, count: int) -> int:
    try:
        batcher = Batcher(open_store(path))
        for index in range(count):
            job = draft(f"j{index}", command="x" * 3000)
            (answer,) = batcher.run([Submission(lambda store, job=job: store.add([job])[0], print, sheds=True)])
            print("full" if isinstance(answer, DiskFullError) else answer.id, flush=True)
            if index % 5 == 4:
                batcher.checkpoint()
        batcher.close()
    except DiskFullError:
        return 28
    except (FatalError, QueueCTLError):
        return 74
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
