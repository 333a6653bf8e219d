"""All trainings of a run in one pool, before its notebooks: ``make reproduce`` starts it."""

from __future__ import annotations

import sys

from atsdp_utils.experiments import grid
from atsdp_utils.experiments.tables import all_tables


def train(data: str, profile: str, jobs: str, backend: str, *notebooks: str) -> None:
    """Run the trainings of all lists that `notebooks` show, each once; no notebook then waits for one.

    Tasks of a data set follow each other, so that a worker reads it once.
    """
    lists = all_tables(data, profile, [name[:2] for name in notebooks]).values()
    once = dict.fromkeys(task for tasks in lists for task in tasks)
    grid.run(sorted(once, key=lambda t: t.dataset), jobs=int(jobs), backend=backend, label="trainings")


if __name__ == "__main__":
    train(*sys.argv[1:])
