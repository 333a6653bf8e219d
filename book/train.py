"""The trainings that tables list in one pool, before the notebooks: ``make reproduce`` starts it."""

import sys

from atsdp_utils.experiments import cluster_study, grid, pseudo
from atsdp_utils.experiments.tables import all_tables
from atsdp_utils.foundation import pool
from atsdp_utils.own_cells import held_out


def train(data: str, profile: str, jobs: str, backend: str, *notebooks: str) -> None:
    """Run the trainings of all lists that `notebooks` show, each once.

    Tasks of a data set follow each other, so that a worker reads it once.
    """
    numbers = [name[:2] for name in notebooks]
    once = dict.fromkeys(task for tasks in all_tables(data, profile, numbers).values() for task in tasks)
    grid.run(sorted(once, key=lambda t: t.dataset), jobs=int(jobs), backend=backend, label="trainings")
    if "16" in numbers:  # whose simple models and rows of the command are no tasks of the grid
        parts = sorted({(cluster, profile) for _, cluster in pseudo.held_out_tasks(profile)})
        for values, label in ((cluster_study.held_out_values, "clusters"), (held_out.held_out_rows, "the command")):
            pool.call_all(values, parts, jobs=int(jobs), backend=backend, label=label)


if __name__ == "__main__":
    train(*sys.argv[1:])
