"""The grid: the same results for any number of workers and either backend; resume after kills and damage."""

import dataclasses
import inspect
import os
import re
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import datasets
from atsdp_utils.experiments import cluster_study, grid, inputs, keys, pseudo, tables
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, Task
from atsdp_utils.foundation import paths, pool
from atsdp_utils.own_cells import held_out
from book import train
from tests.bench import plan

# Workers cannot import this file by name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAME = "SCC47-afatinib"
TASKS = [
    Task(NAME, "U", ATSDP, "smoke"),
    Task(NAME, "U", ATSDP, "smoke", seed=1),
    Task(NAME, "S", "Logistic", "smoke", folds=2),
    Task(NAME, "U", ATSDP, "smoke", (("omega", 0.0),)),
    Task(NAME, "U", "Logistic", "smoke"),
]


@pytest.fixture
def folders(run_folders, monkeypatch):
    """Temporary caches, also for worker processes."""
    monkeypatch.setenv("ATSDP_BUILD", str(paths.BUILD))
    monkeypatch.delenv("ATSDP_LOG", raising=False)
    for cached in (inputs.cells_of, inputs.source_of, datasets.load_prepared):
        cached.cache_clear()
    yield paths.RESULTS
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
    for cached in (inputs.cells_of, inputs.source_of, datasets.load_prepared):
        cached.cache_clear()


def test_all_trainings_of_the_notebooks_that_are_there_run_once(monkeypatch):
    asked = []
    monkeypatch.setattr(grid, "run", lambda tasks, **options: asked.append((list(tasks), options)))
    train.train("embedded", "smoke", "3", "dask", "04_transfer", "05_cv_evaluation", "08_ibet")
    ((tasks, options),) = asked
    wanted = {t for name in ("table1", "table3") for t in getattr(tables, name)("embedded", "smoke")}
    assert wanted < set(tasks) and len(set(tasks)) == len(tasks)
    assert not {t.model for t in tasks} & {"ResNet18", "ATSDP-NET+"}  # lists of notebooks that are not there
    assert options == {"jobs": 3, "backend": "dask", "label": "trainings"}


def test_simple_models_of_held_out_clusters_are_fitted_in_the_pool_of_all_trainings(monkeypatch):
    asked = []
    monkeypatch.setattr(grid, "run", lambda tasks, **options: None)
    monkeypatch.setattr(pool, "call_all", lambda *call, **options: asked.append((*call, options)))
    train.train("embedded", "smoke", "2", "loky", "04_transfer")
    assert not asked
    train.train("embedded", "smoke", "2", "loky", "15_lines_as_cells", "16_held_out_clusters")
    assert [function for function, *_ in asked] == [cluster_study.held_out_values, held_out.held_out_rows]
    assert all((options["jobs"], options["backend"]) == (2, "loky") for *_, options in asked)
    (parts,) = {tuple(parts) for _, parts, _ in asked}
    assert [*parts] == sorted({(k, "smoke") for _, k in pseudo.held_out_tasks("smoke")}) and len(parts) > 1


def test_every_list_names_the_notebook_that_shows_it():
    public = {name: f for name, f in vars(tables).items() if not name.startswith("_") and inspect.isfunction(f)}
    lists = {name for name, f in public.items() if f.__annotations__.get("return") == list[Task]}
    assert {f.__name__ for of in tables.LISTS.values() for f in of} == lists
    for number, of in tables.LISTS.items():
        (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
        for name in (f.__name__ for f in of):
            assert re.search(rf"tables\.{name}\b", path.read_text()), name
    # A chapter that shows a whole list, and is run alone, trains it in one pool as well.
    for path in paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        whole = re.findall(r"\btasks = tables\.(\w+)\(DATA, PROFILE\)", path.read_text())
        assert set(whole) <= {f.__name__ for f in tables.LISTS.get(path.stem[:2], ())}, path.stem


def wipe():
    for folder in (paths.RESULTS, paths.PRETRAINED, paths.SPLITS):
        for path in folder.rglob("*.*"):
            if path.is_file():
                path.unlink()


@pytest.mark.slow
def test_results_do_not_depend_on_jobs_or_backend(folders):
    reference = grid.run(TASKS, jobs=1)
    for jobs, backend in ((2, "loky"), (4, "loky"), (2, "dask")):
        wipe()
        for a, b in zip(reference, grid.run(TASKS, jobs=jobs, backend=backend), strict=True):
            assert a.task == b.task
            for field in ("row", "y", "p", "fold"):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=f"{jobs} {backend}")


def test_a_second_run_computes_nothing_and_a_changed_list_only_what_is_new(folders, monkeypatch):
    tasks = [t for t in TASKS if t.model == "Logistic"]
    grid.run(tasks)
    ran = []
    monkeypatch.setattr(grid, "_work", lambda task, key: ran.append(task))
    grid.run(tasks)
    assert ran == []
    new = Task(NAME, "S", "Logistic", "smoke", (("C", 0.1),), folds=2)
    with pytest.raises(RuntimeError, match="1 results vanished"):
        grid.run([*tasks, new])
    assert ran == [new]


def test_a_damaged_result_is_computed_again(folders):
    task = TASKS[2]
    (first,) = grid.run([task])
    path = grid.result_path(keys.key(task))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(UserWarning, match="unreadable"):
        (again,) = grid.run([task])
    np.testing.assert_array_equal(first.p, again.p)


def test_nothing_partial_is_left_when_a_task_fails(folders, monkeypatch):
    monkeypatch.setattr(grid.np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        grid.run([TASKS[2]])
    assert [p for p in folders.rglob("*") if p.is_file()] == []


def _count_and_maybe_die(folder: str, index: int) -> None:
    """Note each start; task 3 kills its own worker at its first start."""
    Path(folder, f"{index}-{time.monotonic_ns()}").touch()
    if index == 3 and not Path(folder, "died").exists():
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_worker_costs_only_what_was_running(tmp_path, folders):
    counts = tmp_path / "counts"
    counts.mkdir()
    finished = list(pool.by_loky(_count_and_maybe_die, [(str(counts), i) for i in range(12)], jobs=2))
    assert sorted(finished) == list(range(12))
    starts = [sum(p.name.startswith(f"{i}-") for p in counts.iterdir()) for i in range(12)]
    assert starts[3] == 2
    # beside task 3 only what the other worker held, or had finished without its answer being read, runs again
    assert sum(starts) <= 12 + 4


def _always_die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_pool_that_keeps_dying_ends_with_a_way_out(folders, monkeypatch):
    monkeypatch.setattr(pool, "MAX_RESTARTS", 1)
    with pytest.raises(RuntimeError, match="workers died 2 times in a row with 2 tasks left .*smaller JOBS"):
        list(pool.by_loky(_always_die, [(), ()], jobs=2))


def test_unknown_backend_is_named(folders):
    with pytest.raises(ValueError, match="BACKEND: got 'ray', expected 'loky' or 'dask'"):
        grid.run([TASKS[2]], backend="ray")


def test_plan_counts_what_is_left_and_projects_from_what_was_measured(folders):
    tables = {"one": [TASKS[2], TASKS[4]], "two": [TASKS[2]]}
    datasets.prepare(NAME)
    todo = plan.projection(tables).set_index("table")
    assert todo.loc["one", ["tasks", "trainings", "shared", "done", "left"]].tolist() == [2, 3, 0, 0, 2]
    assert todo.loc["two", ["shared", "done", "left"]].tolist() == [1, 0, 0]  # the same training is counted once
    grid.run([TASKS[2]])
    todo = plan.projection(tables).set_index("table")
    assert todo.loc["one", ["done", "left"]].tolist() == [1, 1]
    more = Task(NAME, "S", "Logistic", "smoke", folds=2, repeat=1)
    assert plan.projection({"more": [more]}).hours_one_worker.item() > 0


def test_a_profile_is_projected_from_another_by_what_was_measured_under_both():
    measured = {
        ("S", "Logistic", "A", "quick"): 2.0, ("S", "Logistic", "A", "paper"): 6.0,
        ("S", "kNN", "A", "quick"): 1.0, ("U", "kNN", "A", "quick"): 1.0,
    }  # fmt: skip
    medians = pd.Series(measured).rename_axis(plan.TIMED_BY).unstack("profile")
    assert plan.projected(Task("A", "S", "Logistic", "paper", folds=10), medians, medians) == (60.0, True)
    assert plan.projected(Task("B", "S", "Logistic", "paper", folds=10), medians, medians) == (60.0, False)
    assert plan.projected(Task("A", "S", "kNN", "paper", folds=10), medians, medians) == (30.0, False)  # 3 times longer
    assert plan.projected(Task("A", "U", "kNN", "paper"), medians, medians) == (3.0, False)
    assert np.isnan(plan.projected(Task("A", "S", "kNN", "smoke", folds=2), medians, medians)[0])
    assert np.isnan(plan.projected(Task("A", "S", "SA", "paper", folds=2), medians, medians)[0])


def test_a_benchmark_tells_how_much_longer_a_profile_takes_that_was_never_run():
    rows = [("S", "kNN", "A", "quick", 1.0), ("U", "kNN", "A", "quick", 2.0), ("S", "SA", "A", "quick", 1.0)]
    finished = pd.DataFrame(rows, columns=["protocol", "model", "dataset", "profile", "seconds"])
    timed = pd.DataFrame(
        {"section": ["models, quick profile"] * 3 + ["models, paper profile"] * 3, "measure": "cpu_seconds",
         "case": ["kNN (S)", "PCA+SVM (S)", "data"] * 2, "value": ["2", "1", "5", "10", "3", "9"]},
    )  # fmt: skip
    timed["unit"] = "s"
    both = pd.concat([finished, plan.benchmark_timings(timed).dropna()])
    medians, pairs = plan.medians(finished), plan.medians(both)
    assert np.isnan(plan.projected(Task("A", "S", "kNN", "paper", folds=2), medians, medians)[0])
    assert plan.projected(Task("A", "S", "kNN", "paper", folds=2), medians, pairs) == (10.0, False)  # its own ratio
    assert plan.projected(Task("A", "S", "SA", "paper"), medians, pairs) == (4.0, False)  # the median of 5 and 3
    assert plan.projected(Task("A", "U", "kNN", "paper"), medians, pairs) == (8.0, False)


def test_a_bulk_stage_is_one_for_all_trainings_that_start_from_it_and_another_where_it_differs():
    places = [((("kind", f"lines:{k}"),), seed) for k in (1, 2) for seed in (0, 1)]
    of_clusters = [Task("CISPLATIN", "P", model, "smoke", setting, seed)
                for setting, seed in places for model in (BULK_ONLY, FURTHER, ATSDP, "Logistic")]  # fmt: skip
    assert len(grid.bulk_stages(of_clusters)) == 4
    later = [(("omega", 0.0),), (("epochs_cells", 0),), (("align", "coral"),), ()]
    own = [(("stopping", "last epoch"),), (("epochs_dae", 0),), (("balance", "none"),), (("heads", 0),),
           (("permute_lines", True),)]  # fmt: skip
    on_cells = [Task("A375-PLX4720", "U", ATSDP, "smoke", s) for s in (*later, *own)]
    assert len(grid.bulk_stages(on_cells)) == 1 + len(own)


def test_bulk_stages_share_autoencoders_in_the_projection(monkeypatch):
    rows = [("bulk", "paper profile", f"{stage} cpu_seconds", value, "s")
            for stage, value in (("autoencoder", "60"), ("predictor", "6"))]  # fmt: skip
    monkeypatch.setattr(plan, "read", lambda path: pd.DataFrame(rows, columns=plan.COLUMNS))
    setting = (("heads", 4),)
    tasks = [Task("DATA1-sim", "U", ATSDP, "paper", s, seed=i) for i in (0, 1) for s in ((), setting)]
    tasks += [Task("DATA1-null-sim", "U", ATSDP, "paper"), Task("DATA1-sim", "U", "Logistic", "paper")]
    stages, autoencoders, hours = plan.bulk_hours(tasks)
    assert (stages, autoencoders, round(3600 * hours)) == (4, 2, 2 * 60 + 4 * 6)
    assert np.isnan(plan.bulk_hours([dataclasses.replace(t, profile="quick") for t in tasks])[2])
    of_drugs = [Task(drug, "P", ATSDP, "quick", (("kind", "lines:3"),)) for drug in ("CISPLATIN", "DOCETAXEL")]
    assert plan.bulk_hours(of_drugs)[:2] == (2, 1)
