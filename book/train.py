"""The trainings that tables list in one pool, before the notebooks: ``make reproduce`` starts it."""

import sys

from atsdp_utils.experiments import cluster_study, grid, pseudo
from atsdp_utils.experiments.tables import all_tables
from atsdp_utils.foundation import pool


def train(data: str, profile: str, jobs: str, backend: str, *notebooks: str) -> None:
    """Run the trainings of all lists that `notebooks` show, each once.

    Tasks of a data set follow each other, so that a worker reads it once.
    """
    numbers = [name[:2] for name in notebooks]
    once = dict.fromkeys(task for tasks in all_tables(data, profile, numbers).values() for task in tasks)
    grid.run(sorted(once, key=lambda t: t.dataset), jobs=int(jobs), backend=backend, label="trainings")
    if "16" in numbers:  # whose simple models are no tasks of the grid
        parts = sorted({(cluster, profile) for _, cluster in pseudo.held_out_tasks(profile)})
        pool.call_all(cluster_study.held_out_values, parts, jobs=int(jobs), backend=backend, label="clusters")


if __name__ == "__main__":
    train(*sys.argv[1:])
