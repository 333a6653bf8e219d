"""The protocols, each from rows to predictions: what is trained on what, and what is scored.

Everything fitted (scaler, sampler, early stopping) sees training rows only. Nothing here knows of files of
results or parallel workers; that is :mod:`atsdp_utils.experiments.grid`.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from atsdp_utils.baselines import tune
from atsdp_utils.data import preprocess
from atsdp_utils.experiments import inputs, keys, pseudo
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, PLUS, Result, Task, build, searched
from atsdp_utils.foundation import cache, paths

#: Rows that are scored, their labels, P(sensitive) and folds, and the models of the folds.
Scored = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list]


def run_task(task: Task) -> Result:
    """Train and predict as the protocol of a task says; one entry of the grid.

    Parameters
    ----------
    task : Task
        What to train, on a data set that is prepared.

    Raises
    ------
    ValueError
        If the protocol is unknown, if the setting lacks ``k`` under F or ``kind`` under P or asks for what the protocol
        or the model has no way to do.
    """
    started = time.perf_counter()
    run = globals()[task.function]
    needed = {"F": "k", "P": "kind"}.get(task.protocol)
    if needed and needed not in task.options:
        raise ValueError(f"setting: got {task.setting!r}, expected a pair {needed!r} under protocol {task.protocol}")
    if task.options.get("permute_lines") and (task.protocol != "U" or task.model == PLUS or task.options.get("tune")):
        wanted = f"protocol U, a model of one drug and no search, got {task.protocol}, {task.model}, {task.setting!r}"
        raise ValueError(f"setting: permute_lines needs {wanted}")
    if task.protocol == "F" and task.model == PLUS:
        raise ValueError(f"model: {PLUS} has no training under F; plus_study.joined makes its result from one under U")
    row, y, p, fold, models = run(task)
    parameters = int(getattr(models[-1], "n_parameters", 0) or 0)
    chosen = tuple(m.chosen_ for m in models if hasattr(m, "chosen_"))
    seconds = time.perf_counter() - started
    return Result(task, row, y, p, fold, seconds, parameters, chosen, **getattr(models[-1], "held_", {}))


# --- S: labelled cells, cross-validated -------------------------------------------------------------------------------


def supervised(task: Task) -> Scored:
    """S: the cells of each fold are scored by a model trained on the labelled cells of the others."""
    source, y = inputs.bulk_side(task), inputs.labels(task)
    X, p, fold, models = inputs.features(task, source), np.full(len(y), np.nan), np.full(len(y), -1), []
    for i, test, train in inputs.folds_of(task, y):
        p[test], model = fit_fold(task, X, y, train, test, source)
        fold[test] = i
        models.append(model)
    rows = np.flatnonzero(fold >= 0)
    return rows, y[rows], p[rows], fold[rows], models


def fit_fold(task: Task, X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, source: preprocess.Source):
    """Fit on the rows `train`: P(sensitive) of the rows `test`, and the model. All that touches a fold is here.

    Parameters
    ----------
    task : Task
        Names the model, how training rows are balanced, and whether its settings are searched on inner training rows.
    X : (cells, columns)
        Cells, not standardised: that is fitted on the training rows.
    y : (cells,)
        1 sensitive, 0 resistant; read on training rows alone.
    train, test : indices
        Training rows, which have a label, and rows to score.
    source : Source
        The bulk side, for models that use it.
    """
    scaler = preprocess.Standardizer().fit(X[train])
    x_train = scaler.transform(X[train])
    model = tuned(task, x_train, y[train], source) if task.options.get("tune") else build(task)
    model.fit(x_train, y[train], balance=task.balance, source=source)
    return model.predict_proba(scaler.transform(X[test])), model


def tuned(task: Task, X: np.ndarray, y: np.ndarray, source: preprocess.Source):
    """A model with the setting that inner rows of these training rows chose (``chosen_``), unfitted.

    The choice is kept on disk under the key of the model itself, where its variants find it.
    """
    entry = searched(task)
    path = paths.SEARCHES / f"{cache.key(keys.key(replace(task, model=entry.name)), X, y)}.json"

    def search(temporary: str) -> None:
        how = {"balance": task.balance, "seed": task.seed, "most": task.sizes.searched}
        found = tune(entry, X, y, source=source, **how)
        Path(temporary).write_text(json.dumps(found))

    best = cache.kept(path, lambda file: json.loads(file.read_text()), search)
    model = build(task.changed(**best))
    model.chosen_ = best
    return model


# --- U, F, P: cells without labels, or with few -----------------------------------------------------------------------


def unsupervised(task: Task) -> Scored:
    """U: bulk labels and cells without labels; all labelled cells are scored."""
    source, y = inputs.learnt_from(task), inputs.labels(task)
    model = searched_on_lines(task) if task.options.get("tune") else build(task)
    X = inputs.unlabelled(task, source)
    if task.model == ATSDP and not task.setting and not task.spec.null:
        model.fit_transfer(X, source, keep=True)  # few-shot learning starts from this network
    else:
        _fit_transfer(task, model, X, source)
    return _scored(model, X, y, np.flatnonzero(y >= 0))


def searched_on_lines(task: Task):
    """A baseline with the setting that held rows of the training lines chose (``chosen_``), unfitted.

    No cell is read. The lines are those of seed 0 for every seed, so that a model has one setting on a set.
    """
    first = replace(task, seed=0)
    source = inputs.learnt_from(first)
    rows = source.fit_rows
    chosen = tuned(first, source.X[rows], source.y[rows], source).chosen_
    model = build(task.changed(**chosen))
    model.chosen_ = chosen
    return model


def few_shot(task: Task) -> Scored:
    """F: k labelled cells a class, drawn by the seed; all other labelled cells are scored."""
    source, y, model = inputs.bulk_side(task), inputs.labels(task), build(task)
    X, k = inputs.unlabelled(task, source), int(task.options["k"])
    rng = np.random.default_rng([task.seed, 79])
    few = np.concatenate([rng.choice(np.flatnonzero(y == label), k, replace=False) for label in (0, 1)])
    if task.model == ATSDP:
        model.fit_few(X, X[few], y[few], source=source)
    else:
        model.fit(X[few], y[few], source=source)
    return _scored(model, X, y, np.setdiff1d(np.flatnonzero(y >= 0), few))


def pseudo_transfer(task: Task) -> Scored:
    """P: as U, but the cells are lines or simulated; recipes of ATSDP-NET+ are compared on it."""
    target, model = target_of(task), build(task)
    _fit_transfer(task, model, target.X, target.source)
    return _scored(model, target.X, target.y, np.flatnonzero(target.y >= 0))


def target_of(task: Task) -> pseudo.Target:
    """What a task of P transfers to, with the lines that are left to learn from."""
    genes = task.options.get("max_genes", task.sizes.max_genes)
    return pseudo.make(task.dataset, task.options["kind"], task.seed, genes)


def _fit_transfer(task: Task, model, X: np.ndarray, source: preprocess.Source) -> None:
    if task.model in (ATSDP, FURTHER, PLUS):
        model.fit_transfer(X, source)
    else:
        _fit_lines(task, model, source)


# --- B: held-out lines ------------------------------------------------------------------------------------------------


def held_out_lines(task: Task) -> Scored:
    """B: lines alone, on genes of the bulk matrix; held-out lines are scored (notebook 03)."""
    source, model = inputs.bulk_side(task), build(task)
    _fit_lines(task, model, source)
    return _scored(model, source.X, source.y, source.test_rows)


def _fit_lines(task: Task, model, source: preprocess.Source) -> None:
    """Fit on the labelled training lines."""
    if task.model in (ATSDP, BULK_ONLY):
        model.fit_bulk(source)
    else:
        rows = source.fit_rows
        model.fit(source.X[rows], source.y[rows], balance=task.balance, source=source)


def _scored(model, X: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Scored:
    return rows, y[rows], model.predict_proba(X[rows]), np.zeros(len(rows), int), [model]
