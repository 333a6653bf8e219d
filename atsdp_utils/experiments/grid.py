"""Run lists of tasks in parallel, once each: result cache, resume, progress, plan.

Every finished task is one file, written atomically and named by the hash of everything it depends on. So a run can be
killed at any moment, resumed, spread over machines and merged by copying files; a changed setting or module recomputes
only what it touches. Tasks are independent and single-threaded: the results are the same for any number of workers and
for either backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from atsdp_utils.data import datasets
from atsdp_utils.experiments import protocols
from atsdp_utils.experiments.protocols import Result, Task
from atsdp_utils.foundation import cache, config, paths, runtime

ARRAYS = ("row", "y", "p", "fold")
SCALARS = ("seconds", "parameters", "chosen")
#: Environment variable with the address of a dask scheduler; without it ``BACKEND=dask`` starts a local cluster.
SCHEDULER = "ATSDP_DASK_SCHEDULER"
#: What a training's time depends on most.
KIND = ("protocol", "model", "dataset", "profile")
#: A pool that lost workers is started again this often without any task finishing in between.
MAX_RESTARTS = 3


def result_path(key: str):
    """File of a result."""
    return paths.RESULTS / key[:2] / f"{key}.npz"


def save(result: Result, key: str) -> None:
    """Write a result atomically."""
    about = {"task": dataclasses.asdict(result.task)} | {k: getattr(result, k) for k in SCALARS}

    def write(temporary: str) -> None:
        with open(temporary, "wb") as handle:
            np.savez(handle, about=json.dumps(about), **{f: getattr(result, f) for f in ARRAYS})

    cache.write_atomically(result_path(key), write)


def load(task: Task, key: str) -> Result | None:
    """A cached result, or None; an unreadable file counts as absent and is removed, so that it is made again."""
    path = result_path(key)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as z:
            about = json.loads(str(z["about"]))
            arrays = {f: z[f] for f in ARRAYS}
    except Exception as error:
        warnings.warn(f"{path}: unreadable ({error}); computing it again", stacklevel=2)
        path.unlink(missing_ok=True)
        return None
    scalars = {k: about[k] for k in SCALARS}
    return Result(task, **arrays, **scalars | {"chosen": tuple(scalars["chosen"])})


def _work(task: Task, key: str) -> None:
    """Body of a worker: run one task and store it, unless it is there already."""
    runtime.one_thread()
    import torch

    torch.set_num_threads(1)
    if not result_path(key).exists():
        save(protocols.run_task(task), key)


def _prepare_bulk(task: Task) -> None:
    """Body of a worker: the bulk stage of a task, into the cache."""
    runtime.one_thread()
    import torch

    torch.set_num_threads(1)
    protocols.build(task, protocols.spec_of(task)).fit_bulk(protocols.bulk_side(task))


def gene_space(task: Task) -> str:
    """Name of the genes that a task's bulk stage sees: a null twin has those of its twin."""
    return task.dataset.replace("-null", "")


def bulk_stages(tasks: Iterable[Task]) -> list[Task]:
    """One task for each distinct bulk stage among `tasks`: computed first, so that no two workers train the same."""
    stages: dict[tuple, Task] = {}
    for task in tasks:
        if task.model in (protocols.ATSDP, protocols.BULK_ONLY) and task.protocol != "P":
            spec, profile = protocols.spec_of(task), config.profile(task.profile)
            how = task.options.get("balance") if task.protocol in "UB" else None
            sizes = protocols.architecture(spec, task.options)
            cfg = protocols.training(spec, profile, task.options, bulk_balance=how)
            stages.setdefault((gene_space(task), spec.drug, task.seed, sizes, cfg.noise, cfg.balance), task)
    return list(stages.values())


def run(tasks: Sequence[Task], *, jobs: int = 1, backend: str = "loky", label: str = "grid") -> list[Result]:
    """Results of `tasks`, in their order; what is in the cache is read, the rest is computed and stored.

    Parameters
    ----------
    jobs
        Worker processes; 1 runs in this process.
    backend
        ``loky`` (joblib) or ``dask`` (extra ``[cluster]``; the address of a scheduler in ``ATSDP_DASK_SCHEDULER``).
    label
        Name of the progress bar.

    Raises
    ------
    RuntimeError
        If workers keep dying (for example, memory runs out); what was finished is kept.
    """
    names = sorted({t.dataset for t in tasks if t.protocol not in "BP"})
    unprepared = [(name,) for name in names if not datasets.is_prepared(name)]
    _all_done(datasets.prepare, unprepared, jobs, backend, f"{label}: data sets")
    for name in names:
        datasets.prepare(name)  # reads it; a damaged one is made again
    keys = [protocols.key(t) for t in tasks]
    missing = {k for k, t in zip(keys, tasks, strict=True) if load(t, k) is None}
    if missing:
        todo = {k: t for k, t in zip(keys, tasks, strict=True) if k in missing}
        stages = bulk_stages(todo.values())
        _all_done(_prepare_bulk, [(t,) for t in stages], jobs, backend, f"{label}: bulk stage")
        _all_done(_work, [(t, k) for k, t in todo.items()], jobs, backend, label)
    results = [load(t, k) for t, k in zip(tasks, keys, strict=True)]
    lost = [t for t, r in zip(tasks, results, strict=True) if r is None]
    if lost:
        raise RuntimeError(f"{len(lost)} results vanished from {paths.RESULTS}, first {lost[0]}; run again")
    return results


def _all_done(function, arguments: list[tuple], jobs: int, backend: str, label: str) -> None:
    if not arguments:
        return
    with (
        _log() as log,
        tqdm(
            total=len(arguments), desc=label, unit="task", mininterval=_seconds_between(log), file=log, ncols=78
        ) as bar,
    ):
        if backend == "dask":
            finished: Iterator[int] = _dask(function, arguments, jobs)
        elif backend == "loky":
            finished = _loky(function, arguments, jobs) if jobs > 1 else _here(function, arguments)
        else:
            raise ValueError(f"BACKEND: got {backend!r}, expected 'loky' or 'dask'")
        for _ in finished:
            bar.update()


@contextlib.contextmanager
def _log() -> Iterator[TextIO]:
    """Where progress goes: the file ``ATSDP_LOG`` of a notebook's run (Make shows it), else the screen."""
    if name := os.environ.get("ATSDP_LOG"):
        with open(name, "a", encoding="utf-8", buffering=1) as log:
            yield log
    else:
        yield sys.stderr


def _seconds_between(log: TextIO) -> int:
    """How often the bar moves: a screen that keeps every line (a pipe, CI) gets fewer of them."""
    return 20 if log is sys.stderr and not log.isatty() else 2


def _here(function, arguments: list[tuple]) -> Iterator[int]:
    for i, a in enumerate(arguments):
        function(*a)
        yield i


def _indexed(function, index: int, arguments: tuple) -> int:
    function(*arguments)
    return index


def pool(jobs: int, **options):
    """Worker processes that end with this one; `options` go to :class:`joblib.Parallel`, which it is."""
    from joblib import Parallel

    return Parallel(jobs, initializer=_live_with, initargs=(os.getpid(),), **options)


def _live_with(parent: int) -> None:
    """First act of a worker: end when `parent` does. After a SIGKILL of it nobody else would tell the worker."""
    from joblib.externals.loky import process_executor

    # loky ends a worker that grows by 300 MB, which is what importing torch and reading a data set does.
    process_executor._MAX_MEMORY_LEAK_SIZE = float("inf")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _loky(function, arguments: list[tuple], jobs: int) -> Iterator[int]:
    """Unordered results of a pool; a killed worker costs what was running, and the pool starts again."""
    from joblib import delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left, restarts = dict(enumerate(arguments)), 0
    while left:
        try:
            calls = (delayed(_indexed)(function, i, a) for i, a in list(left.items()))
            for i in pool(jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")(calls):
                del left[i]
                restarts = 0
                yield i
        except TerminatedWorkerError as error:
            restarts += 1
            if restarts > MAX_RESTARTS:
                raise RuntimeError(
                    f"workers died {restarts} times in a row with {len(left)} tasks left (out of memory? try a smaller "
                    "JOBS); finished tasks are kept, run again to continue"
                ) from error
            with _log() as log:
                print(f"a worker was killed; starting again with {len(left)} tasks left", file=log)


def _dask(function, arguments: list[tuple], jobs: int) -> Iterator[int]:
    """The same on a dask cluster; dask itself runs the tasks of a lost worker again."""
    from distributed import Client, LocalCluster, as_completed

    address = os.environ.get(SCHEDULER)
    cluster = None if address else LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    try:
        with Client(address or cluster) as client:
            futures = [client.submit(_indexed, function, i, a, pure=False) for i, a in enumerate(arguments)]
            for future in as_completed(futures):
                yield future.result()
    finally:
        if cluster is not None:
            cluster.close()


def plan(tables: dict[str, list[Task]], benchmark: pd.DataFrame | None = None) -> pd.DataFrame:
    """What a run would do: per table its trainings, how many are done and left, and the projected hours on one worker.

    A training that an earlier table needs too is counted there, and is `shared` here.

    The projection takes the median seconds of finished results of the same protocol, model and profile, on the same
    data set where there are any. A kind that was only measured under another profile is scaled by how much longer this
    profile took where both were measured, in finished results or in the rows of `benchmark` (columns ``protocol, model,
    dataset, profile, seconds``); without any such pair it is NaN. `measured` is the share of the tasks left whose kind
    was measured on its own data set.
    """
    finished = _timings()
    medians, pairs = _medians(finished), _medians(pd.concat([finished, benchmark]))
    rows, counted = [], set()
    for table, tasks in tables.items():
        for name in {t.dataset for t in tasks if t.protocol not in "BP"}:
            datasets.prepare(name)
        own = {k: t for k, t in ((protocols.key(t), t) for t in tasks) if k not in counted}
        counted |= own.keys()
        left = [t for k, t in own.items() if not result_path(k).exists()]
        guesses = [_guess(t, medians, pairs) for t in left]
        seconds = np.array([g[0] for g in guesses], float)
        exact = float(np.mean([g[1] for g in guesses])) if guesses else 1.0
        trainings = sum(max(1, t.folds) for t in tasks)
        counts = len(tasks), trainings, len(tasks) - len(own), len(own) - len(left), len(left)
        rows.append((table, *counts, seconds.sum() / 3600, exact))
    columns = ["table", "tasks", "trainings", "shared", "done", "left", "hours_one_worker", "measured"]
    return pd.DataFrame(rows, columns=columns)


def _timings() -> pd.DataFrame:
    rows = []
    for path in paths.RESULTS.glob("*/*.npz"):
        try:
            with np.load(path, allow_pickle=False) as z:
                about = json.loads(str(z["about"]))
        except Exception:
            continue
        task = about["task"]
        rows.append({k: task[k] for k in KIND}
                    | {"seconds": about["seconds"] / max(1, task["folds"])})  # fmt: skip
    return pd.DataFrame(rows, columns=[*KIND, "seconds"])


def _medians(timings: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of a training: rows are protocol, model and data set, columns profiles."""
    return timings.groupby(list(KIND)).seconds.median().unstack("profile")


def _guess(task: Task, medians: pd.DataFrame, pairs: pd.DataFrame) -> tuple[float, bool]:
    """Projected seconds of a task, and whether its kind was measured on its own data set under its own profile.

    `medians` holds what was measured, `pairs` what tells how much longer one profile takes than another.
    """
    trainings, profile = max(1, task.folds), task.profile
    same = _of(medians, task.protocol, task.model)
    if profile in same and len(here := same[profile].dropna().droplevel(["protocol", "model"])):
        return float(here.get(task.dataset, here.median())) * trainings, task.dataset in here
    if profile not in pairs:
        return float("nan"), False
    ratios = pairs.rdiv(pairs[profile], axis=0)  # times longer than under each of the other profiles
    alike = _of(ratios, task.protocol, task.model).median(), _of(ratios, task.protocol).median(), ratios.median()
    guesses = same.mul(alike[0].fillna(alike[1]).fillna(alike[2])).stack()
    return float(guesses.median()) * trainings, False


def _of(table: pd.DataFrame, protocol: str, model: str | None = None) -> pd.DataFrame:
    """Rows of a protocol, and of a model."""
    level = table.index.get_level_values
    return table[(level("protocol") == protocol) & ((level("model") == model) | (model is None))]
