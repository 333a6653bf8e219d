"""Run lists of tasks in parallel, once each.

Every finished task is one file, written atomically and named by the hash of everything it depends on. So a run can be
killed at any moment, resumed, spread over machines and merged by copying files; a changed setting or module recomputes
only what it touches. Tasks are independent and single-threaded: the results are the same for any number of workers and
for either backend.
"""

import dataclasses
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from atsdp_utils.data import datasets
from atsdp_utils.experiments import inputs, keys, protocols
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, SEEDED, Result, Task, build
from atsdp_utils.foundation import cache, paths, pool, runtime


def result_path(key: str) -> Path:
    """File of a result."""
    return paths.RESULTS / key[:2] / f"{key}.npz"


def save(result: Result, key: str) -> None:
    """Write a result atomically: its arrays, and the rest as text."""
    fields = vars(result) | {"task": dataclasses.asdict(result.task)}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    said = json.dumps({name: value for name, value in fields.items() if name not in arrays})
    cache.write_atomically(result_path(key), lambda temporary: np.savez(temporary, about=said, **arrays))


def about(archive: np.lib.npyio.NpzFile) -> dict:
    """What an open result says of itself, its arrays unread: task as a dictionary, seconds, parameters, choices."""
    return json.loads(str(archive["about"]))


def load(task: Task, key: str) -> Result | None:
    """A cached result, or None; an unreadable file counts as absent and is removed, so that it is made again."""
    path = result_path(key)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as z:
            fields = {name: z[name] for name in z.files if name != "about"} | about(z)
        return Result(**fields | {"task": task, "chosen": tuple(fields["chosen"])})
    except Exception as error:
        warnings.warn(f"{path}: unreadable ({error}); computing it again", stacklevel=2)
        path.unlink(missing_ok=True)
        return None


def _work(task: Task, key: str) -> None:
    """Body of a worker: run one task and store it, unless it is there already."""
    runtime.one_thread()
    if not result_path(key).exists():
        save(protocols.run_task(task), key)


def _prepare_bulk(task: Task) -> None:
    """Body of a worker: the bulk stage of a task, into the cache."""
    runtime.one_thread()
    source = protocols.target_of(task).source if task.protocol == "P" else inputs.learnt_from(task)
    build(task).fit_bulk(source)


def gene_space(task: Task) -> str:
    """Name of the lines and genes of a task's autoencoder, whatever the drug: a null twin has those of its twin."""
    if task.protocol in "BP":
        kind = str(task.options.get("kind", "all lines"))
        return task.dataset + kind if kind in ("lines", "pseudo-cells") or kind.startswith("twin") else kind
    return task.spec.unit.replace("-null", "")


def bulk_stages(tasks: Iterable[Task]) -> list[Task]:
    """One task for each distinct bulk stage among `tasks`: computed first, so that no two workers train the same."""
    stages: dict[tuple, Task] = {}
    for task in tasks:
        if task.model in (ATSDP, BULK_ONLY, FURTHER):
            own = (task.options.get(name) for name in ("kind", "max_genes", "permute_lines"))
            lines = gene_space(task), task.spec.drug, *own
            seeds = tuple(map(task.seed_of, SEEDED))
            stages.setdefault((*lines, seeds, task.architecture, task.training.bulk_only()), task)
    return list(stages.values())


def prepare(tasks: Iterable[Task], label: str = "data sets", **parallel) -> None:
    """Prepare the sets of `tasks` that are not there, side by side; a damaged one is made again."""
    names = sorted({t.dataset for t in tasks if t.protocol not in "BP"})
    pool.call_all(datasets.prepare, [(n,) for n in names if not datasets.is_prepared(n)], label=label, **parallel)
    for name in names:
        datasets.prepare(name)


def run(tasks: Sequence[Task], *, jobs: int = 1, backend: str = "loky", label: str = "grid") -> list[Result]:
    """Results of tasks, in their order: what is in the cache is read, the rest is computed and stored.

    Data sets are prepared and shared bulk stages trained first. What was finished is kept, whatever happens.

    Parameters
    ----------
    tasks : sequence of Task
        What to train, of any protocols and data sets.
    jobs, backend, label
        As in :func:`pool.call_all`. They change no result.

    Raises
    ------
    RuntimeError
        If a result is gone or unreadable right after it was computed.
    """
    parallel = {"jobs": jobs, "backend": backend}
    prepare(tasks, f"{label}: data sets", **parallel)
    named = [(t, keys.key(t)) for t in tasks]
    results = [load(t, key) for t, key in named]
    todo = {key: t for (t, key), r in zip(named, results, strict=True) if r is None}
    stages = [(t,) for t in bulk_stages(todo.values())]
    pool.call_all(_prepare_bulk, stages, label=f"{label}: bulk stage", **parallel)
    pool.call_all(_work, [(t, key) for key, t in todo.items()], label=label, **parallel)
    results = [load(t, key) if r is None else r for (t, key), r in zip(named, results, strict=True)]
    lost = [t for (t, _), r in zip(named, results, strict=True) if r is None]
    if lost:
        raise RuntimeError(f"{len(lost)} results vanished from {paths.RESULTS}, first {lost[0]}; run again")
    return results
