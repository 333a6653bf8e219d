"""The trainings of a run and how long they will take on this machine: ``make plan``.

Seconds are those of finished results and of ``figures/bench.csv``.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.experiments import grid, keys
from atsdp_utils.experiments.tables import all_tables
from atsdp_utils.experiments.task import Task
from atsdp_utils.foundation import config, paths

#: Columns of ``figures/bench.csv``, and the data set whose trainings it times.
COLUMNS = ["section", "case", "measure", "value", "unit"]
TIMED = "DATA1-sim"
#: What a training's time depends on most.
TIMED_BY = ["protocol", "model", "dataset", "profile"]


def read(path: Path) -> pd.DataFrame:
    """Rows of an earlier benchmark; an empty table if there is none."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype={"case": str, "value": str}, keep_default_na=False)


def benchmark_timings(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds of a training, ``TIMED_BY``, from the rows of a benchmark; what a projection scales by."""
    rows = table[table.section.str.startswith("models, ") & (table.measure == "cpu_seconds")]
    found = rows.case.str.extract(r"^(?P<model>.*) \((?P<protocol>\w)\)$")
    profile = rows.section.str.extract(r"^models, (\w+) profile$")[0]
    found = found.assign(profile=profile, dataset=TIMED, seconds=rows.value.astype(float))
    rows = table[(table.section == "cached results") & (table.unit == "s")]
    of_any = rows.case.str.extract(r"^(?P<model>.*) \((?P<protocol>\w), (?P<profile>\w+)\)$")
    return pd.concat([found, of_any.assign(dataset="any", seconds=rows.value.astype(float))])


def finished_timings() -> pd.DataFrame:
    """Seconds of a training, ``TIMED_BY``, of every finished result."""
    rows = []
    for path in paths.RESULTS.glob("*/*.npz"):
        # A damaged one is made again by the next run.
        with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as result:
            found = grid.about(result)
            task = found["task"]
            rows.append({k: task[k] for k in TIMED_BY} | {"seconds": found["seconds"] / max(1, task["folds"])})
    return pd.DataFrame(rows, columns=[*TIMED_BY, "seconds"])


def medians(timings: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of a training: rows are protocol, model and data set, columns profiles."""
    return timings.groupby(TIMED_BY).seconds.median().unstack("profile")


def projected(task: Task, measured: pd.DataFrame, pairs: pd.DataFrame) -> tuple[float, bool]:
    """Projected seconds of a task, and whether its kind was measured on its own data set under its own profile.

    Both tables are :func:`medians`: `measured` of what was measured here, `pairs` of what tells how much longer one
    profile takes than another.
    """
    trainings, profile = max(1, task.folds), task.profile
    kind, alike = "protocol == @task.protocol and model == @task.model", "protocol == @task.protocol"
    same = measured.query(kind)
    if same.empty and measured is not pairs:
        return projected(task, pairs, pairs)[0], False
    if profile in same and len(here := same[profile].dropna().droplevel(["protocol", "model"])):
        return float(here.get(task.dataset, here.median())) * trainings, task.dataset in here
    if profile not in pairs:
        return float("nan"), False
    ratios = pairs.rdiv(pairs[profile], axis=0)  # times longer than under each of the other profiles
    longer = ratios.query(kind).median().fillna(ratios.query(alike).median()).fillna(ratios.median())
    return float(same.mul(longer).stack().median()) * trainings, False


def projection(tables: dict[str, list[Task]], benchmark: pd.DataFrame | None = None) -> pd.DataFrame:
    """What a run would do: per table its trainings, how many are done and left, and the projected hours on one worker.

    A training that an earlier table needs too is counted there, and is `shared` here.

    The projection takes the median seconds of finished results of the same protocol, model and profile, on the same
    data set where there are any. A kind that was only measured under another profile is scaled by how much longer this
    profile took where both were measured, in finished results or in `benchmark` (:func:`benchmark_timings`). One
    without a finished result takes the seconds of the benchmark, and is NaN without those. `measured` is the share of
    the tasks left whose kind was measured on its own data set.
    """
    finished = finished_timings()
    timings = [t for t in (finished, benchmark) if t is not None and len(t)] or [finished]
    measured, pairs = medians(finished), medians(pd.concat(timings))
    rows, counted = [], set()
    for table, tasks in tables.items():
        grid.prepare(tasks)
        own = {k: t for k, t in ((keys.key(t), t) for t in tasks) if k not in counted}
        counted |= own.keys()
        left = [projected(t, measured, pairs) for k, t in own.items() if not grid.result_path(k).exists()]
        rows.append({
            "table": table, "tasks": len(tasks), "trainings": sum(max(1, t.folds) for t in tasks),
            "shared": len(tasks) - len(own), "done": len(own) - len(left), "left": len(left),
            "hours_one_worker": sum(seconds for seconds, _ in left) / 3600,
            "measured": np.mean([exact for _, exact in left]) if left else 1.0,
        })  # fmt: skip
    return pd.DataFrame(rows)


def bulk_hours(tasks: list[Task]) -> tuple[int, int, float]:
    """Bulk stages, their autoencoders, and the hours of one worker for both, from ``figures/bench.csv``.

    An autoencoder is shared by predictors with the same lines, genes, seed, sizes and training, whatever their drug.
    All count as if they had the most genes of the profile; hours are NaN where the benchmark does not time it.
    """
    stages, profile = grid.bulk_stages(tasks), tasks[0].profile
    autoencoders = set()
    for t in stages:
        if t.training.epochs_dae:
            seeds, sizes = (t.seed_of("lines"), t.seed_of("weights")), replace(t.architecture, heads=8)
            autoencoders.add((grid.gene_space(t), *seeds, sizes, t.training.learning_rate))
    rows = read(paths.FIGURES / "bench.csv")
    rows = rows[rows.case == f"{profile} profile"].set_index("measure").value
    if rows.empty:
        return len(stages), len(autoencoders), float("nan")
    cost = {stage: float(rows[f"{stage} cpu_seconds"]) for stage in ("autoencoder", "predictor")}
    seconds = len(autoencoders) * cost["autoencoder"] + len(stages) * cost["predictor"]
    seconds *= config.profile(profile).max_genes / len(gdsc.load_bulk().genes)
    return len(stages), len(autoencoders), seconds / 3600


def show(data: str, profile: str, jobs: int) -> None:
    """Print what a run would do, and how long on this machine."""
    tables = all_tables(data, profile)
    plan = projection(tables, benchmark_timings(read(paths.FIGURES / "bench.csv")))
    plan["hours"] = plan.pop("hours_one_worker") / jobs
    print(plan.to_string(index=False, float_format=lambda v: f"{v:.2f}"))
    total, known = plan["hours"].sum(min_count=1), plan["hours"].notna().all()
    note = "" if known else "; what was never measured is not counted: run PROFILE=quick once"
    print(f"\n{plan.tasks.sum()} tasks, {plan.left.sum()} left, about {total:.2f} h with JOBS={jobs}{note}")
    stages, shared, hours = bulk_hours([t for tasks in tables.values() for t in tasks])
    print(f"At first: {stages} bulk stages on {shared} autoencoders, about {hours / jobs:.2f} h by figures/bench.csv")
    if total > 0:
        longest = plan.loc[plan["hours"].idxmax()]
        print(f"The longest table: {longest.table}, {longest.hours:.2f} h")


if __name__ == "__main__":
    show(sys.argv[1], sys.argv[2], int(sys.argv[3]))
