"""Checks of the paper's reported numbers, from the files of ``data/paper`` alone: no data set, no training.

:func:`averaging_search` asks which printed rows are the scores of one confusion matrix, and how they were averaged over
the classes; :func:`averaging_nulls` asks how often that happens by luck. Checks of single rows are data in
``checks.csv``. Tolerances allow for four decimals, rounded or cut off.
"""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import bisect

from atsdp_utils.foundation import checksums, config

UNIT = 1e-4  # of the last printed decimal
STEP = UNIT + 1e-9  # and room for binary fractions
#: Sensitive and resistant cells. Labelled cells count the drug-holiday cells of DATA1 and DATA2 as sensitive (ambiguity
#: 20). DATA4 has 4 control and 15 empty wells without a label; all of them as sensitive make the paper's 1,419.
CLASS_SIZES = {
    (r.dataset, r.counting): (r.sensitive, r.resistant) for r in checksums.table("paper/class_sizes.csv").itertuples()
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


@cache
def reported() -> pd.DataFrame:
    """Every value the paper prints, long: ``where, dataset, model, metric, value, std``."""
    one = checksums.table("paper/table1.csv").melt(["dataset", "sampling"], var_name="metric")
    one = one.assign(where="Table 1", model="ATSDP-NET, " + one.pop("sampling"))
    three = checksums.table("paper/table3.csv").rename(columns={"mean": "value"})
    three = three.assign(where="Table 3", model="ATSDP-NET")
    four = checksums.table("paper/table4.csv").assign(where="Table 4")
    quoted = checksums.table("paper/quoted_values.csv").assign(model="ATSDP-NET")
    quoted["where"] = quoted["where"].str.replace("fig", "Figure ").str.replace("_best_heads=.*", "", regex=True)
    together = pd.concat([one, three, four, quoted], ignore_index=True)
    return together[["where", "dataset", "model", "metric", "value", "std"]]


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

    Parameters
    ----------
    printed : DataFrame
        One row for each printed row: ``dataset, precision, recall, f1, auc`` (:func:`printed_rows`).
    farthest : float
        How far precision, recall and F1 may be off, in units of the last decimal (1e-4). The AUC, read as balanced
        accuracy, may be further.

    Returns
    -------
    DataFrame
        ``row`` is the index in `printed`, ``counting`` a position in :data:`CLASS_SIZES`, with its ``sensitive`` and
        ``resistant`` cells; ``precision_averaging``, … are positions in :data:`AVERAGES`; ``sensitive_right`` and
        ``resistant_right`` are the matrix; ``off_precision`` to ``off_auc`` are its scores less the printed ones, in
        units.
    """
    found, limit = [], farthest + SLACK
    for counting, ((dataset, _), sizes) in enumerate(CLASS_SIZES.items()):
        right, averaged, balanced = confusion_scores(*sizes)
        for r in printed[printed["dataset"] == dataset].itertuples():
            scores = np.array([r.precision, r.recall, r.f1])
            near = np.flatnonzero((np.abs(averaged[0] - r.precision) <= limit * UNIT).any(axis=0))
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
    """Which candidates print as the row does.

    Parameters
    ----------
    found : DataFrame
        The table of :func:`candidates`.
    auc : str
        One of :data:`AUC_READINGS`. Where the AUC is that of a score, it need not fit.
    error_model : str
        A key of :data:`ERROR_MODELS`, which says how far every score may be off.
    """
    (low, high), off = ERROR_MODELS[error_model], _errors(found, auc)
    return ((off >= low - SLACK) & (off <= high + SLACK)).all(axis=1)


@cache
def averaging_search() -> pd.DataFrame:
    """The nearest confusion matrix of every printed row, once with the AUC as its balanced accuracy, once without it.

    Returns
    -------
    DataFrame
        Two rows for each printed row, by ``auc`` of :data:`AUC_READINGS`: counting, averagings and matrix as in
        :func:`candidates`, in words, empty where none comes within :data:`FARTHEST`; ``largest_error`` (of the three
        scores, or of four with the AUC); whether any matrix fits, in a column for each of :data:`ERROR_MODELS`;
        ``matrices``, how many candidates do to one unit.
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


def averaging_nulls() -> pd.DataFrame:
    """How many printed rows of Table 4, and of rows shifted at random from them, find a matrix, with the same freedom.

    ``models`` tells those with a hard-label AUC from others; ``averagings`` is any for each score or one for all.
    """
    printed = printed_rows().query("where == 'Table 4'").reset_index(drop=True)
    printed["models"] = np.where(printed["model"].isin(hard_label_models()), "hard-label AUC", "others")
    shifted = printed.loc[printed.index.repeat(COPIES)].reset_index(drop=True)
    scores, rng = [*SCORES, "auc"], np.random.default_rng(0)
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


# --- checks of single rows, ``checks.csv`` ----------------------------------------------------------------------------


@cache
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

    size = bisect(lambda log_lambda: before(log_lambda).mean() - (1 - auc), -20, 20)
    return float((u / (u + rho * before(size))).mean()), float(1 - rho * np.log((1 + rho) / (auc + rho)))


def ranked_rows() -> pd.DataFrame:
    """Printed rows whose AUC may be a ranking's: not those of models with a row whose AUC is that of hard labels."""
    rows = printed_rows()
    return rows[~rows["model"].isin(hard_label_models())]


ROWS = {"printed": printed_rows, "ranked": ranked_rows, "reported": reported}


def _beside(rows: pd.DataFrame) -> pd.DataFrame:
    """Printed rows with what checks hold them against: cells, ends of :func:`ap_range`, Table 3, best heads."""
    n1, n0 = np.array([CLASS_SIZES[name, "labelled cells"] for name in rows["dataset"]]).T
    rows = rows.assign(sensitive=n1, resistant=n0, cells=n1 + n0, share=n1 / (n1 + n0))
    if "metric" not in rows:
        ends = [ap_range(r.auc, r.share) for r in rows.itertuples()]
        return rows.assign(least=[low for low, _ in ends], most=[high for _, high in ends])
    ours, by = reported().query("model == 'ATSDP-NET'"), ["dataset", "metric"]
    for where, suffix in (("Table 3", "_mean"), ("Figure 3", "_heads")):
        values = ours.loc[ours["where"] == where, [*by, "value", "std"]]
        rows = rows.merge(values, "left", by, suffixes=("", suffix))
    return rows


def checked(check: str, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """What a check finds in each of its printed rows.

    Parameters
    ----------
    check : str
        Name of a check in ``checks.csv``.
    rows : DataFrame, optional
        Rows to check in place of those that the check names, with the same columns.

    Returns
    -------
    DataFrame
        ``check, where, dataset, model, metric``; the value, ``reported``; what it is held against, ``expected``; the
        verdict, ``flagged``; and ``finding``, in words.
    """
    rule = checks().loc[check]
    rows = ROWS[rule["rows"]]().query(rule["query"] or "index == index") if rows is None else rows
    found = _beside(rows.reset_index(drop=True)).assign(check=check)
    found = found.assign(metric=rule["metric"]) if rule["metric"] else found
    for column in ("reported", "number", "expected", "flagged"):
        found[column] = found.eval(rule[column], local_dict={"step": STEP}) if rule[column] else np.nan
    found["off"] = found["reported"] - found["expected"]
    exact = (found["off"].abs() <= 2 * STEP) & bool(rule["exactly"])
    texts = np.where(exact, rule["exactly"], rule["finding"])
    found["finding"] = [text.format(**r) for text, r in zip(texts, found.to_dict("records"), strict=True)]
    return found[["check", "where", "dataset", "model", "metric", "reported", "expected", "flagged", "finding"]]


@cache
def checks() -> pd.DataFrame:
    """All checks by name (``checks.csv``)."""
    return checksums.table("paper/checks.csv", keep_default_na=False, dtype=str).set_index("check")


def run() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All checks: one row a check (``check, title, examined, flagged, explanation``), and every flagged row."""
    every = pd.concat(map(checked, checks().index), ignore_index=True)
    counts = every.groupby("check")["flagged"].agg(examined="size", flagged="sum")
    overview = checks().drop(columns="flagged").join(counts).reset_index()
    overview = overview[["check", "title", "examined", "flagged", "explanation"]]
    return overview, every[every["flagged"]].drop(columns="flagged").reset_index(drop=True)
