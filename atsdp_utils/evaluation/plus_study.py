"""Tables of notebook 12: ablation, class mixes, choice of the recipe, score, few-shot, calibration on lines."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from sklearn.model_selection import StratifiedShuffleSplit

from atsdp_utils.data import preprocess
from atsdp_utils.evaluation import evaluate, metrics, stats
from atsdp_utils.experiments import inputs, tables
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, PLUS, Result
from atsdp_utils.foundation import config
from atsdp_utils.models import plus
from atsdp_utils.models.calibration import Calibration

#: Models of the score, and their names in tables and figures.
LABEL = {
    PLUS: "ATSDP-NET+",
    ATSDP: "ATSDP-NET",
    BULK_ONLY: "bulk only",
    FURTHER: "further steps on bulk",
    "Logistic": "logistic regression",
    "RandomForest": "random forest",
    tables.PC1: "PC1, bulk sign",
}
SIMPLE = ["logistic regression", "random forest", "PC1, bulk sign"]


def ablation(results: Sequence[Result]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of every seed, and per setting their mean, spread and paired change against the method as it is."""
    start = next(iter(tables.ABLATIONS))
    frame = evaluate.scores(results)
    frame["setting"] = [tables.named(tables.ABLATIONS, r.task) for r in results]
    table = frame.groupby(["dataset", "setting"], sort=False).auc.agg(["mean", "std", "min", "max", "count"])
    change = evaluate.differences(results, list(frame["setting"]), evaluate.versus(list(tables.ABLATIONS), start))
    change = change.rename(columns={"first": "setting", "second_mean": "base"}).set_index(["dataset", "setting"])
    sign = evaluate.over_seeds(results, list(frame["setting"])).rename(columns={"model": "setting"})
    table = table.join(sign.set_index(["dataset", "setting"])[evaluate.SIGN])
    table = table.join(change[["base", "difference", "ci_low", "ci_high", "p", "p_holm"]]).reset_index()
    table["base"] = table["base"].fillna(table["mean"])
    table.insert(1, "tier", table.dataset.map(config.TIERS))
    table.insert(3, "reference", np.where(table.setting == start, "", start))
    return frame, table.assign(protocol="U", metric="auc")


def class_mix(results: Sequence[Result]) -> pd.DataFrame:
    """AUC and the share called sensitive, per way of alignment, percentage of sensitive cells and seed."""
    names = {setting: name for name, setting in tables.ALIGNED.items()}
    rows = [
        (r.task.dataset, "simulated", names[r.task.setting[1:]], int(r.task.options["kind"].partition(":")[2]),
         r.task.seed, metrics.classification_metrics(r.y, r.p)["auc"], float((r.p >= 0.5).mean()))
        for r in results
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["dataset", "tier", "setting", "percent", "seed", "auc", "called"])


def evidence(results: Sequence[Result]) -> pd.DataFrame:
    """AUC of every candidate (and reference) on every task: ``place, kind, seed, candidate, n, sensitive, auc``."""
    rows = [
        (r.task.dataset, r.task.options["kind"], r.task.seed, r.task.options.get("recipe", r.task.model), len(r.y),
         int(r.y.sum()), metrics.classification_metrics(r.y, r.p)["auc"])
        for r in results
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["place", "kind", "seed", "candidate", "n", "sensitive", "auc"])


def _over_kinds(values: pd.Series) -> tuple[float, float, float]:
    """Mean over kinds of the mean over tasks, its standard error, and the half of its 95 % interval.

    `values` is indexed by kind and place. The error is over places, twins apart: a drug is the task of two kinds, whose
    errors are no independent ones. A place that is alone adds no error, and the interval is NaN.
    """
    kinds = values.groupby(level="kind")
    own = (values - kinds.transform("mean")) / kinds.transform("count") / kinds.ngroups
    twin = own.index.get_level_values("kind") == "twin"
    groups = [own[rows].groupby(level="place").sum() for rows in (twin, ~twin) if rows.any()]
    parts = np.array([len(g) * g.var() if len(g) > 1 else np.nan for g in groups])
    half = total = parts.sum()
    if total > 0:
        df = total**2 / sum(part**2 / (len(g) - 1) for part, g in zip(parts, groups, strict=True))
        half = stdtrit(df, stats.UPPER) * np.sqrt(total)
    return float(kinds.mean().mean()), float(np.sqrt(np.nansum(parts))), float(half)


def choose(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Name of the recipe that the rule of notebook 12 takes, and a row for each candidate."""
    wide = table.pivot_table(index=["kind", "place", "seed"], columns="candidate", values="auc")
    if wide.isna().any().any():
        gaps = ", ".join(wide.columns[wide.isna().any()])
        raise ValueError(f"table: every candidate needs every task, missing for {gaps}")
    eligible = [name for name in config.RECIPES if name in wide]
    score = {name: _over_kinds(wide[name]) for name in wide}
    best = max(eligible, key=lambda name: score[name][0])
    rows = []
    for name in [*eligible, *(c for c in wide if c not in eligible)]:
        mean, _, half = score[name]
        behind, behind_se, _ = _over_kinds(wide[best] - wide[name])
        by_kind = wide[name].groupby(level="kind").mean().to_dict()
        rows.append({"candidate": name, **by_kind, "score": mean, "ci_low": mean - half,
                     "ci_high": mean + half, "behind": behind, "behind_se": behind_se,
                     "tied": name in eligible and behind <= behind_se, "eligible": name in eligible,
                     "changed": config.RECIPES[name].changed if name in eligible else "simple reference",
                     "tier": "bulk and simulated"})  # fmt: skip
    summary = pd.DataFrame(rows)
    return str(summary.candidate[summary.tied].iloc[0]), summary


def score(results: Sequence[Result]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of every seed, and of every model :func:`evaluate.over_seeds` with the range of its seeds."""
    frame = evaluate.scores(results)
    frame["model"] = frame.model.map(LABEL)
    table = evaluate.over_seeds(results, list(frame["model"])).rename(columns={"sd": "std", "seeds": "n"})
    ends = frame.groupby(["dataset", "model"]).auc.agg(["min", "max"])
    return frame, table.join(ends, on=["dataset", "model"])


def targets(table: pd.DataFrame, auc: float, sd: float) -> pd.DataFrame:
    """What ATSDP-NET+ reached of its targets on each real set: mean AUC, sd over seeds, above the best simple model."""
    real, rows = table[table.tier == "real"], []
    best = real[real.model.isin(SIMPLE)].groupby("dataset")["mean"].max()
    for ours in real[real.model == "ATSDP-NET+"].itertuples():
        simple = best[ours.dataset]
        rows += [(ours.dataset, "mean AUC", auc, ours.mean, ours.mean >= auc),
                 (ours.dataset, "sd over seeds", sd, ours.std, ours.std <= sd),
                 (ours.dataset, "above the best simple model", simple, ours.mean, ours.mean > simple)]  # fmt: skip
    return pd.DataFrame(rows, columns=["dataset", "target", "wanted", "reached", "met"])


def joined(zero: Result, other: Result) -> Result:
    """ATSDP-NET+ under protocol F from its result `zero` under U, on the labelled cells of another model's result.

    The few labels join the logit (:class:`plus.FewLabels`); all spreads are over the labelled cells.
    """
    task = zero.task
    source = inputs.source_of(task.dataset, task.profile, task.seed)
    cells = inputs.cells_of(task.dataset, task.profile)
    X = preprocess.standardised(cells, source)
    X = plus.ranks(X) if config.RECIPES[config.CHOSEN].rank else X
    scored = np.isin(zero.row, other.row)
    z, few = plus.logit(zero.p), zero.row[~scored]
    p = plus.expit(plus.FewLabels(z, X[zero.row], X[few], zero.y[~scored]).join(z[scored], X[zero.row[scored]]))
    return replace(other, task=replace(other.task, model=PLUS), p=p, seconds=0.0)


def few_shot(zero: Sequence[Result], results: Sequence[Result]) -> pd.DataFrame:
    """Means and intervals over seeds and cells against k; `zero` are the results without labelled cells."""
    ours = {(r.task.dataset, r.task.seed): r for r in zero if r.task.model == PLUS}
    simple = [r for r in results if r.task.model == tables.REFERENCES[0] and (r.task.dataset, r.task.seed) in ours]
    few = [*(joined(ours[r.task.dataset, r.task.seed], r) for r in simple), *results]
    every = [r for r in [*zero, *few] if r.task.model in LABEL]
    table = evaluate.over_seeds(every, [(LABEL[r.task.model], int(r.task.options.get("k", 0))) for r in every])
    table = table.assign(model=table.model.str[0], k=table.model.str[1]).rename(columns={"sd": "std", "seeds": "n"})
    anew = np.where(table.k == 0, "lines", "the few cells")
    table["learned_from"] = np.where(table.model.isin(SIMPLE), anew, "lines and the few cells")
    table.loc[table.model == LABEL[tables.PC1], "learned_from"] = "unlabelled cells, sign from lines"
    return table.sort_values(["dataset", "model", "k"])


# --- do calibration and conformal sets of held-out lines hold for lines and for cells? --------------------------------

BY_CLASS = ["coverage_resistant", "coverage_sensitive"]


def coverage(results: Sequence[Result], alpha: float) -> pd.DataFrame:
    """Coverage of conformal sets, also by class, shares of sets with both labels or none, and calibration error.

    `results` are of ATSDP-NET+ under U. Two rows each: ``asked`` = ``lines`` (means over random halves: one calibrates,
    the other is asked) and ``cells``. ``lines_resistant`` and ``lines_sensitive`` are how many lines calibrate. With
    one held-out line of a class there is no row of lines, without one no row.
    """
    rows = []
    for r in results:
        about = {"dataset": r.task.dataset, "tier": r.task.spec.tier, "seed": r.task.seed}
        rarer = np.bincount(r.line_y, minlength=2).min()
        if rarer > 1:
            halves = StratifiedShuffleSplit(20, test_size=0.5, random_state=r.task.seed)
            splits = halves.split(r.line_z[:, None], r.line_y)
            lines = [_asked(r.line_z[a], r.line_y[a], r.line_z[b], r.line_y[b], alpha) for a, b in splits]
            rows.append(about | {"asked": "lines"} | {k: float(np.mean([row[k] for row in lines])) for k in lines[0]})
        if rarer:
            rows.append(about | {"asked": "cells"} | _asked(r.line_z, r.line_y, plus.logit(r.p), r.y, alpha))
    return pd.DataFrame(rows)


def _asked(z: np.ndarray, y: np.ndarray, z_new: np.ndarray, y_new: np.ndarray, alpha: float) -> dict[str, float]:
    fit = Calibration(z, y)
    sets = fit.sets(z_new, alpha)
    size = sets.sum(1)
    return metrics.coverage(sets, y_new.astype(int)) | {
        "lines_resistant": (y == 0).sum(),
        "lines_sensitive": (y == 1).sum(),
        "both_labels": (size == 2).mean(),
        "no_label": (size == 0).mean(),
        "ece_raw": metrics.calibration_error(y_new, plus.expit(z_new)),
        "ece_calibrated": metrics.calibration_error(y_new, fit.proba(z_new)),
    }
