"""All trainings of a run at once, and how long they will take on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.experiments import grid, protocols
from atsdp_utils.experiments.protocols import Task
from atsdp_utils.experiments.tables import NOTEBOOK, all_tables
from atsdp_utils.foundation import config, paths

#: Columns of ``figures/bench.csv``, and the data set whose trainings it times.
COLUMNS = ["section", "case", "measure", "value", "unit"]
TIMED = "DATA1-sim"


def read(path: Path) -> pd.DataFrame:
    """Rows of an earlier benchmark; an empty table if there is none."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype={"case": str, "value": str}, keep_default_na=False)


def trainings(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Seconds of a training by protocol, model and profile, from the rows of :func:`models`; what a plan scales by."""
    rows = table[table.section.str.startswith("models, ") & (table.measure == "cpu_seconds")]
    found = rows.case.str.extract(r"^(?P<model>.*) \((?P<protocol>\w)\)$")
    profile = rows.section.str.extract(r"^models, (\w+) profile$")[0]
    return found.assign(profile=profile, dataset=dataset, seconds=rows.value.astype(float))


def bulk_hours(tasks: list[Task], profile: str) -> tuple[int, float]:
    """Bulk stages that trainings start from, and the hours of one worker for all of them, from ``figures/bench.csv``.

    An autoencoder costs in proportion to its genes and is shared by predictors with the same genes, seed and sizes.
    Hours are NaN for a profile that the benchmark does not time.
    """
    stages = grid.bulk_stages(tasks)
    sizes = {t: protocols.architecture(protocols.spec_of(t), t.options) for t in stages}
    autoencoders = {(grid.gene_space(t), t.seed, a.encoder, a.bottleneck) for t, a in sizes.items()}
    rows = read(paths.FIGURES / "bench.csv")
    rows = rows[rows.case == f"{profile} profile"].set_index("measure").value
    if rows.empty:
        return len(stages), float("nan")
    cost = {stage: float(rows[f"{stage} cpu_seconds"]) for stage in ("autoencoder", "predictor")}
    seconds = len(autoencoders) * cost["autoencoder"] + len(stages) * cost["predictor"]
    return len(stages), seconds / 3600 * config.profile(profile).max_genes / len(gdsc.load_bulk().genes)


def plan(data: str, profile: str, jobs: int) -> None:
    """Print what a run would do, and how long on this machine."""
    tables = all_tables(data, profile)
    plan = grid.plan(tables, trainings(read(paths.FIGURES / "bench.csv"), TIMED))
    plan["hours"] = plan.pop("hours_one_worker") / jobs
    print(plan.to_string(index=False, float_format=lambda v: f"{v:.2f}"))
    total, known = plan["hours"].sum(min_count=1), plan["hours"].notna().all()
    note = "" if known else "; what was never measured is not counted: run PROFILE=quick or make bench once"
    print(f"\n{plan.tasks.sum()} tasks, {plan.left.sum()} left, about {total:.2f} h with JOBS={jobs}{note}")
    stages, hours = bulk_hours([t for tasks in tables.values() for t in tasks], profile)
    print(f"Before them, at first: {stages} bulk stages, about {hours / jobs:.2f} h by figures/bench.csv")
    if total > 0:
        longest = plan.loc[plan["hours"].idxmax()]
        print(f"The longest table: {longest.table}, {longest.hours:.2f} h")


def train(data: str, profile: str, jobs: int, backend: str, notebooks: list[str]) -> None:
    """Run the trainings of all lists that `notebooks` show, each once, in one pool that never waits for a notebook.

    Tasks of a data set follow each other, so that a worker reads it once.
    """
    shown = {name[:2] for name in notebooks}
    lists = [tasks for name, tasks in all_tables(data, profile).items() if NOTEBOOK[name] in shown]
    once = dict.fromkeys(task for tasks in lists for task in tasks)
    grid.run(sorted(once, key=lambda t: t.dataset), jobs=jobs, backend=backend, label="trainings")


def main() -> None:
    """``python -m atsdp_utils.experiments.plan {plan,train} DATA PROFILE JOBS [BACKEND NOTEBOOK...]``."""
    command, data, profile, jobs, *rest = sys.argv[1:]
    if command == "plan":
        plan(data, profile, int(jobs))
    else:
        train(data, profile, int(jobs), rest[0], rest[1:])


if __name__ == "__main__":
    main()
