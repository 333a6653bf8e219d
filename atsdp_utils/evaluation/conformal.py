"""Whether calibration and conformal sets of held-out cell lines hold for lines and for cells (notebook 12)."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import pandas as pd

from atsdp_utils.data import preprocess
from atsdp_utils.evaluation import metrics
from atsdp_utils.experiments import inputs, tables
from atsdp_utils.experiments.task import PLUS, Task, build
from atsdp_utils.foundation import config, runtime
from atsdp_utils.models.calibration import Calibration

BY_CLASS = ["coverage_resistant", "coverage_sensitive"]


def tasks(data: str, profile: str, seeds: int) -> list[Task]:
    """ATSDP-NET+ on the real sets, the first seeds."""
    plus = [t for t in tables.plus_score(data, profile) if t.model == PLUS and t.seed < seeds]
    return [t for t in plus if config.DATASETS[t.dataset].tier == "real"]


#: Logits and labels of held-out lines and of labelled cells, by one model of one task.
Scores = namedtuple("Scores", "dataset seed lines y_lines cells y_cells")


def scores(task: Task) -> Scores:
    """Train ATSDP-NET+ as protocol U does and score the held-out lines beside the cells."""
    runtime.one_thread()
    source = inputs.source_of(task.dataset, task.profile, task.seed)
    cells = inputs.cells_of(task.dataset, task.profile)
    X = preprocess.standardised(cells, source)
    model = build(task).fit_transfer(X, source)
    held, labelled = source.test_rows, cells.labelled
    z = model.line_logits(source.X[held])
    return Scores(task.dataset, task.seed, z, source.y[held], model.logits(X[labelled]), cells.y[labelled])


def coverage(asked: Sequence[Scores], alpha: float) -> pd.DataFrame:
    """Coverage of conformal sets, also by class, shares of sets with both labels or none, and calibration error.

    Two rows a task: ``asked`` = ``lines`` (means over random halves: one calibrates, the other is asked) and ``cells``.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    rows = []
    for s in asked:
        about = {"dataset": s.dataset, "tier": config.DATASETS[s.dataset].tier, "seed": s.seed}
        splits = StratifiedShuffleSplit(20, test_size=0.5, random_state=s.seed).split(s.lines[:, None], s.y_lines)
        lines = [_asked(s.lines[a], s.y_lines[a], s.lines[b], s.y_lines[b], alpha) for a, b in splits]
        rows.append(about | {"asked": "lines"} | {k: float(np.mean([row[k] for row in lines])) for k in lines[0]})
        rows.append(about | {"asked": "cells"} | _asked(s.lines, s.y_lines, s.cells, s.y_cells, alpha))
    return pd.DataFrame(rows)


def _asked(z: np.ndarray, y: np.ndarray, z_new: np.ndarray, y_new: np.ndarray, alpha: float) -> dict[str, float]:
    fit = Calibration(z, y)
    sets = fit.sets(z_new, alpha)
    held, size = sets[np.arange(len(y_new)), y_new.astype(int)], sets.sum(1)
    return {
        "coverage": held.mean(), "coverage_sensitive": held[y_new == 1].mean(),
        "coverage_resistant": held[y_new == 0].mean(),
        "both_labels": (size == 2).mean(), "no_label": (size == 0).mean(),
        "ece_raw": metrics.calibration_error(y_new, 1 / (1 + np.exp(-z_new))),
        "ece_calibrated": metrics.calibration_error(y_new, fit.proba(z_new)),
    }  # fmt: skip
