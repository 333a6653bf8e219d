"""Checks of the paper's reported numbers, from the files of ``data/paper`` alone: no data set, no training.

:func:`averaging_search` asks which printed rows are the scores of one confusion matrix, and how they were averaged over
the classes; :func:`averaging_nulls` asks how often that happens by luck. A check takes one printed row and says what it
found; ``checks.csv`` explains it to readers. Tolerances allow for four decimals, rounded or cut off.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from atsdp_utils.foundation import config, paths

UNIT = 1e-4  # of the last printed decimal
STEP = UNIT + 1e-9  # and room for binary fractions
#: Sensitive and resistant cells. Labelled cells count the drug-holiday cells of DATA1 and DATA2 as sensitive (ambiguity
#: 20). DATA4 has 4 control and 15 empty wells without a label; all of them as sensitive make the paper's 1,419.
CLASS_SIZES = {
    ("DATA1", "labelled cells"): (361, 187),
    ("DATA1", "without holiday cells"): (181, 187),
    ("DATA2", "labelled cells"): (403, 165),
    ("DATA2", "without holiday cells"): (328, 165),
    ("DATA3", "labelled cells"): (162, 162),
    ("DATA4", "labelled cells"): (715, 685),
    ("DATA4", "all 1,419 wells"): (734, 685),
    ("DATA4", "without empty wells"): (719, 685),
}

SCORES = ("precision", "recall", "f1")
AVERAGINGS = [f"{m}_averaging" for m in SCORES]
AVERAGES = ("positive", "weighted", "macro")  # of the sensitive class; of both, by their cells; of both, alike
AUC_READINGS = ("balanced accuracy", "score")  # of the matrix itself; of a ranking, which the matrix does not fix
#: Least and largest difference, value less printed value, in units of the last decimal. A value of one whole unit more
#: is not cut off to the printed one. Ten units are no way of printing; they show what comes near.
ERROR_MODELS = {"rounding": (-0.5, 0.5), "truncation": (0, 1 - 2e-5), "one_unit": (-1, 1), "ten_units": (-10, 10)}
SLACK = 1e-5  # units: room for binary fractions
FARTHEST = 100  # units: a row without a matrix this near has none in the table
SHIFT, COPIES = 0.02, 40  # of the null: largest shift of a printed score, shifted copies of each row of Table 4


class Finding(NamedTuple):
    """What a check found in one row: the value it looked at, what that was held against, and whether it breaks."""

    metric: str
    reported: float
    expected: float
    flagged: bool
    finding: str


@cache
def reported() -> pd.DataFrame:
    """Every value the paper prints, long: ``where, dataset, model, metric, value, std``."""
    one = pd.read_csv(paths.PAPER / "table1.csv").melt(["dataset", "sampling"], var_name="metric")
    one = one.assign(where="Table 1", model="ATSDP-NET, " + one.pop("sampling"))
    three = pd.read_csv(paths.PAPER / "table3.csv").rename(columns={"mean": "value"})
    three = three.assign(where="Table 3", model="ATSDP-NET")
    four = pd.read_csv(paths.PAPER / "table4.csv").assign(where="Table 4")
    quoted = pd.read_csv(paths.PAPER / "quoted_values.csv").assign(model="ATSDP-NET")
    quoted["where"] = quoted["where"].str.replace("fig", "Figure ").str.replace("_best_heads=.*", "", regex=True)
    together = pd.concat([one, three, four, quoted], ignore_index=True)
    return together[["where", "dataset", "model", "metric", "value", "std"]]


def class_sizes() -> pd.DataFrame:
    """:data:`CLASS_SIZES` as a table: ``dataset, counting, sensitive, resistant``."""
    return pd.DataFrame([(*key, *sizes) for key, sizes in CLASS_SIZES.items()],
                        columns=["dataset", "counting", "sensitive", "resistant"])  # fmt: skip


def printed_rows() -> pd.DataFrame:
    """One row a printed row of five scores: ``where, dataset, model`` and the metrics."""
    scores = reported()[reported()["metric"].isin(config.METRICS)]
    wide = scores.pivot(index=["where", "dataset", "model"], columns="metric", values="value")
    return wide[list(config.METRICS)].dropna().reset_index()


def table4() -> pd.DataFrame:
    """Table 4: one row a set and metric, one column a model."""
    four = reported().query("where == 'Table 4'")
    return four.pivot(index=["dataset", "metric"], columns="model", values="value")


# --- one confusion matrix, under any averaging ------------------------------------------------------------------------


def confusion_scores(sensitive: int, resistant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of every confusion matrix of so many sensitive and resistant cells.

    Returns
    -------
    right, averaged, balanced_accuracy
        (2, matrices) sensitive and resistant cells called right; (3, averages, matrices) precision, recall and F1 under
        :data:`AVERAGES`, without the last where classes of one size make it the second; (matrices,).
    """
    right = np.indices((sensitive + 1, resistant + 1)).reshape(2, -1)
    cells, called = np.array([[sensitive], [resistant]]), right + np.array([[resistant], [sensitive]]) - right[::-1]
    recall = right / cells
    by_class = np.stack([right / np.maximum(called, 1), recall, 2 * right / (cells + called)])  # (3, class, matrices)
    weighted = (by_class * cells).sum(axis=1) / cells.sum()
    averaged = [by_class[:, 0], weighted, by_class.mean(axis=1)][: 2 if sensitive == resistant else 3]
    return right, np.stack(averaged, axis=1), recall.mean(axis=0)


def candidates(printed: pd.DataFrame, farthest: float) -> pd.DataFrame:
    """Every counting of the cells, averaging and confusion matrix near a printed row, and how far off each score is.

    Precision, recall and F1 are within `farthest` units of the last decimal, the AUC read as balanced accuracy may be
    further. ``row`` is the index in `printed`, an averaging its position in :data:`AVERAGES`.
    """
    found, limit = [], farthest + SLACK
    for counting, ((dataset, _), sizes) in enumerate(CLASS_SIZES.items()):
        right, averaged, balanced = confusion_scores(*sizes)
        order = np.argsort(averaged[0], axis=1)
        in_order = np.take_along_axis(averaged[0], order, axis=1)
        for r in printed[printed["dataset"] == dataset].itertuples():
            scores = np.array([r.precision, r.recall, r.f1])
            ends = [np.searchsorted(values, scores[0] + np.array([-limit, limit]) * UNIT) for values in in_order]
            near = np.unique(np.concatenate([at[low:high] for at, (low, high) in zip(order, ends, strict=True)]))
            p, q, f = (averaged[:, :, near] - scores[:, None, None]) / UNIT
            off = np.stack(np.broadcast_arrays(p[:, None, None], q[None, :, None], f[None, None]))
            *averaging, at = np.nonzero((np.abs(off) <= limit).all(axis=0))
            columns = [[r.Index], [counting], [sizes[0]], [sizes[1]], *averaging, *right[:, near[at]],
                       *off[:, *averaging, at], (balanced[near[at]] - r.auc) / UNIT]  # fmt: skip
            found.append(np.stack(np.broadcast_arrays(*columns), axis=1))
    columns = ["row", "counting", "sensitive", "resistant", *AVERAGINGS, "sensitive_right", "resistant_right"]
    table = pd.DataFrame(np.concatenate(found), columns=[*columns, *(f"off_{m}" for m in (*SCORES, "auc"))])
    return table.astype(dict.fromkeys(columns, int))


def _errors(found: pd.DataFrame, auc: str) -> pd.DataFrame:
    """Differences that count: without the AUC where it is a ranking's."""
    return found[[f"off_{m}" for m in (*SCORES, "auc") if m != "auc" or auc == "balanced accuracy"]]


def fits(found: pd.DataFrame, auc: str, error_model: str) -> pd.Series:
    """Which candidates print as the row does."""
    (low, high), off = ERROR_MODELS[error_model], _errors(found, auc)
    return ((off >= low - SLACK) & (off <= high + SLACK)).all(axis=1)


@cache
def averaging_search() -> pd.DataFrame:
    """The nearest confusion matrix of every printed row, once with the AUC as its balanced accuracy, once without it.

    Beside it ``largest_error`` (of the three scores, or of four with the AUC), whether any matrix fits under each of
    :data:`ERROR_MODELS`, and ``matrices``, how many do to one unit. Empty where none comes within :data:`FARTHEST`.
    """
    printed, tables = printed_rows(), []
    found = candidates(printed, FARTHEST)
    for auc in AUC_READINGS:
        units = _errors(found, auc).abs().max(axis=1).round(6).sort_values(kind="stable")
        nearest = found.loc[units[units <= FARTHEST].index].assign(largest_error=units * UNIT)
        nearest = nearest.drop_duplicates("row").set_index("row").filter(regex="^(?!off_)")
        table = printed[["where", "dataset", "model"]].assign(auc=auc).join(nearest)
        rows = {model: found.loc[fits(found, auc, model), "row"] for model in ERROR_MODELS}
        table = table.assign(**{model: table.index.isin(fitting) for model, fitting in rows.items()})
        matrices = rows["one_unit"].value_counts().reindex(table.index, fill_value=0)
        tables.append(table.assign(matrices=matrices))
    table = pd.concat(tables, ignore_index=True)
    table["counting"] = table["counting"].map(dict(enumerate(counting for _, counting in CLASS_SIZES)))
    table[AVERAGINGS] = table[AVERAGINGS].apply(lambda a: a.map(dict(enumerate(AVERAGES))))
    return table.astype(dict.fromkeys(["sensitive", "resistant", "sensitive_right", "resistant_right"], "Int64"))


def hard_label_models() -> list[str]:
    """Models with a row of Table 4 that is one matrix, to one unit, with its balanced accuracy as the AUC."""
    rows = averaging_search().query("where == 'Table 4' and auc == 'balanced accuracy' and one_unit")
    return sorted(rows["model"].unique())


def table4_rows() -> pd.DataFrame:
    """The search's row for each row of Table 4: with the AUC as balanced accuracy where the model has a fit so."""
    rows = averaging_search().query("where == 'Table 4'")
    return rows[(rows["auc"] == "balanced accuracy") == rows["model"].isin(hard_label_models())]


def table4_said() -> str:
    """What the search finds in Table 4, as text."""
    words = {"positive": "of the sensitive class", "weighted": "weighted by class size", "macro": "mean of both"}
    said = []
    for auc, rows in table4_rows().groupby("auc"):
        for way, fitting in rows[rows["one_unit"]].groupby(AVERAGINGS):
            scores = pd.Series(["precision", "recall", "F1"]).groupby(np.array(way), sort=False).agg(", ".join)
            how = ", ".join(f"{' and '.join(names.rsplit(', ', 1))} {words[a]}" for a, names in scores.items())
            how += ", the balanced accuracy as AUC" * (auc == "balanced accuracy")
            models = ", ".join(sorted(rows["model"].unique()))
            fit = "fit one confusion matrix each, to one unit of the last decimal, with"
            said.append(f"{len(fitting)} of {len(rows)} rows of {models} {fit} {how}")
    return "; ".join(said)


def averaging_nulls(seed: int = 0) -> pd.DataFrame:
    """How many printed rows of Table 4, and of rows shifted at random from them, find a matrix, with the same freedom.

    ``models`` tells those with a hard-label AUC from others; ``averagings`` is any for each score or one for all.
    """
    printed = printed_rows().query("where == 'Table 4'").reset_index(drop=True)
    printed["models"] = np.where(printed["model"].isin(hard_label_models()), "hard-label AUC", "others")
    shifted = printed.loc[printed.index.repeat(COPIES)].reset_index(drop=True)
    scores, rng = [*SCORES, "auc"], np.random.default_rng(seed)
    shifted[scores] = (shifted[scores] + rng.uniform(-SHIFT, SHIFT, (len(shifted), 4))).round(4)
    counts = []
    for name, rows in (("printed", printed), ("shifted", shifted)):
        found = candidates(rows, max(high for _, high in ERROR_MODELS.values()))
        alike = found[AVERAGINGS].nunique(axis=1) == 1
        for auc, averagings, model in product(AUC_READINGS, ("any", "one"), ERROR_MODELS):
            hit = rows.index.isin(found.loc[fits(found, auc, model) & (alike | (averagings == "any")), "row"])
            count = rows.assign(hit=hit).groupby(["models", "dataset"])["hit"].agg(n="size", fits="sum").reset_index()
            counts.append(count.assign(rows=name, auc=auc, averagings=averagings, error_model=model))
    columns = ["rows", "models", "dataset", "auc", "averagings", "error_model", "n", "fits"]
    return pd.concat(counts, ignore_index=True)[columns]


# --- checks of one printed row, explained in checks.csv ---------------------------------------------------------------


def not_one_averaging(r) -> Finding:
    """F1 above the mean of P and R: rounding lifts the one by half a step at most and lowers the other by as much."""
    most = (r.precision + r.recall) / 2
    return Finding("f1", r.f1, most, r.f1 > most + STEP, f"{r.f1 - most:+.4f} from the mean of precision and recall")


def constant_predictor(r) -> Finding:
    """Weighted F1, or precision as well, as if every cell had been called the class whose share is the recall."""
    p = r.recall
    text = "precision and F1 follow from the recall"
    if abs(r.precision - p * p) > 2 * STEP:
        text = f"F1 follows from the recall, precision is off by {r.precision - p * p:+.4f}"
    return Finding("precision", r.precision, p * p, abs(r.f1 - 2 * p * p / (1 + p)) <= 2 * STEP, text)


def _elsewhere(r, where: str) -> pd.Series:
    """ATSDP-NET's value and std of the same data set and metric in another place of the paper."""
    ours = reported()[(reported()["where"] == where) & (reported()["model"] == "ATSDP-NET")]
    return ours.set_index(["dataset", "metric"]).loc[(r.dataset, r.metric)]


def repeats(r, where: str) -> Finding:
    """The same value in another place."""
    other = _elsewhere(r, where)["value"]
    return Finding(r.metric, r.value, other, r.value == other, f"equal to {where}")


def against_means(r) -> Finding:
    """Another value than the mean of Table 3."""
    value, std = _elsewhere(r, "Table 3")[["value", "std"]]
    text = f"{(r.value - value) / std:+.2f} standard deviations from Table 3"
    return Finding(r.metric, r.value, value, abs(r.value - value) > STEP, text)


def ap_range(auc: float, share: float) -> tuple[float, float]:
    """Bounds of the average precision of a ranking with this AUC, where a share of the cells is sensitive.

    With u the share of sensitive and v(u) that of resistant cells ranked before, AP is the integral of u / (u + rho v)
    and 1 - AUC that of v, rho = (1 - share) / share. The largest AP puts a share AUC of the sensitive cells first and
    the rest last (exact for many cells); the lower bound takes v = (sqrt(u / lambda) - u) / rho, cut to [0, 1], the
    minimum when v need not increase. The bounds are concave and convex in AUC, so they also hold for means over folds.
    """
    rho = (1 - share) / share
    u = (np.arange(4000) + 0.5) / 4000

    def before(log_lambda: float) -> np.ndarray:
        return np.clip((np.sqrt(u / np.exp(log_lambda)) - u) / rho, 0, 1)

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle).mean() > 1 - auc else (low, middle)
    return float((u / (u + rho * before(low))).mean()), float(1 - rho * np.log((1 + rho) / (auc + rho)))


def auc_and_ap(r) -> Finding:
    """An average precision within a tenth of an end of :func:`ap_range`."""
    n1, n0 = CLASS_SIZES[r.dataset, "labelled cells"]
    least, most = ap_range(r.auc, n1 / (n1 + n0))
    place = (r.ap - least) / (most - least)
    text = f"{place:.0%} of the way from {least:.4f} to {most:.4f}, where a coin toss has {n1 / (n1 + n0):.4f}"
    return Finding("ap", r.ap, np.nan, not 0.1 <= place <= 0.9, text)


def below_half(r) -> Finding:
    """An AUC more than three standard errors of a coin toss below one half."""
    n1, n0 = CLASS_SIZES[r.dataset, "labelled cells"]
    z = (r.auc - 0.5) / np.sqrt((n1 + n0 + 1) / (12 * n1 * n0))
    return Finding("auc", r.auc, 0.5, z < -3, f"{z:+.1f} standard errors")


def spread(r) -> Finding:
    """A standard deviation below the sampling error of an accuracy."""
    n = sum(CLASS_SIZES[r.dataset, "labelled cells"])
    error = np.sqrt(r.value * (1 - r.value) / n)
    return Finding("recall", r.std, error, r.std < error, f"{r.std / error:.0%} of the sampling error over {n:,} cells")


def r_or_square(r) -> Finding:
    """A correlation that is printed as r here and as its square there."""
    text = f"as r it explains {r.value**2:.3f} of the variance, as R² it would mean r = {np.sqrt(r.value):.3f}"
    return Finding(r.metric, r.value, r.value**2, True, text)


def ranked_rows() -> pd.DataFrame:
    """Printed rows whose AUC may be a ranking's: not those of models with a row whose AUC is that of hard labels."""
    rows = printed_rows()
    return rows[~rows["model"].isin(hard_label_models())]


CHECKS = {f.__name__: f for f in (not_one_averaging, constant_predictor, against_means, auc_and_ap, below_half, spread,
                                  r_or_square)}  # fmt: skip
CHECKS |= {"repeats_table3": partial(repeats, where="Table 3"), "repeats_heads": partial(repeats, where="Figure 3")}
ROWS = {"printed": printed_rows, "ranked": ranked_rows, "reported": reported}


def run() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All checks: one row a check (``check, title, examined, flagged, explanation``), and every flagged row."""
    overview, flagged = pd.read_csv(paths.PAPER / "checks.csv", keep_default_na=False), []
    for check in overview.itertuples():
        rows = ROWS[check.rows]().query(check.query or "index == index").reset_index(drop=True)
        found = pd.DataFrame([CHECKS[check.check](r) for r in rows.itertuples()])
        found.insert(0, "check", check.check)
        flagged.append(pd.concat([found[["check"]], rows[["where", "dataset", "model"]], found.iloc[:, 1:]], axis=1))
    every = pd.concat(flagged, ignore_index=True)
    counts = every.groupby("check")["flagged"].agg(examined="size", flagged="sum")
    overview = overview.join(counts, on="check")[["check", "title", "examined", "flagged", "explanation"]]
    return overview, every[every["flagged"]].drop(columns="flagged").reset_index(drop=True)
