"""The choice among recipes of ATSDP-NET+ on the transfer tasks of :mod:`atsdp_utils.experiments.pseudo`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from atsdp_utils.evaluation import metrics
from atsdp_utils.experiments.task import Result, Task
from atsdp_utils.foundation import config, paths

#: Evidence of the run that chose the shipped recipe.
EVIDENCE = paths.DATA / "plus_selection.csv"


def evidence(tasks: Sequence[Task], results: Sequence[Result]) -> pd.DataFrame:
    """AUC of every candidate (and reference) on every task: ``place, kind, seed, candidate, n, sensitive, auc``."""
    rows = [
        (t.dataset, t.options["kind"], t.seed, t.options.get("recipe", t.model), len(r.y), int(r.y.sum()),
         metrics.classification_metrics(r.y, r.p)["auc"])
        for t, r in zip(tasks, results, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["place", "kind", "seed", "candidate", "n", "sensitive", "auc"])


def _over_kinds(values: pd.Series) -> tuple[float, float]:
    """Mean over kinds of the mean over tasks, and its standard error over tasks; `values` is indexed by kind."""
    kinds = values.groupby(level="kind")
    error = kinds.var(ddof=1).fillna(0) / kinds.count()
    return float(kinds.mean().mean()), float(np.sqrt(error.sum()) / len(error))


def choose(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Name of the recipe that the rule of ``data/plus_rule.md`` takes, and a row for each candidate.

    ``score`` has limits ``ci_low`` and ``ci_high`` (normal, over tasks); ``behind`` the best has a standard error.
    """
    wide = table.pivot_table(index=["kind", "place", "seed"], columns="candidate", values="auc")
    if wide.isna().any().any():
        gaps = ", ".join(wide.columns[wide.isna().any()])
        raise ValueError(f"table: every candidate needs every task, missing for {gaps}")
    eligible = [name for name in config.RECIPES if name in wide]
    score = {name: _over_kinds(wide[name]) for name in wide}
    best = max(eligible, key=lambda name: score[name][0])
    rows = []
    for name in [*eligible, *(c for c in wide if c not in eligible)]:
        mean, error = score[name]
        behind, behind_se = _over_kinds(wide[best] - wide[name])
        by_kind = wide[name].groupby(level="kind").mean().to_dict()
        rows.append({"candidate": name, **by_kind, "score": mean, "ci_low": mean - 1.96 * error,
                     "ci_high": mean + 1.96 * error, "behind": behind, "behind_se": behind_se,
                     "tied": name in eligible and behind <= behind_se, "eligible": name in eligible,
                     "changed": config.RECIPES[name].changed if name in eligible else "simple reference",
                     "tier": "bulk and simulated"})  # fmt: skip
    summary = pd.DataFrame(rows)
    return str(summary.candidate[summary.tied].iloc[0]), summary
