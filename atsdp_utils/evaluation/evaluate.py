"""From results of the grid to tidy tables: scores a fold, summaries beside the paper's values, paired comparisons."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.experiments.task import Result
from atsdp_utils.foundation import checksums, config

KEY = ("dataset", "model", "setting", "protocol")
#: Measures of a test fold.
MEASURES = config.METRICS + config.EXTRA_METRICS
#: A model that predicts one value: to differ from it is no finding, so it is in no family of tests.
CONSTANT = "Majority"


def scores(results: Sequence[Result]) -> pd.DataFrame:
    """Score every test fold of every result.

    Parameters
    ----------
    results : sequence of Result
        Results on sets of :data:`config.DATASETS`; data sets, models and protocols may differ.

    Returns
    -------
    DataFrame
        A row for each fold: ``fold``, ``n`` (its cells) and :data:`MEASURES`; ``dataset, tier, protocol, model, seed``;
        ``repeat``, which is the seed where a task has no folds; ``seconds`` of all folds of the result together; and a
        column for each option of the tasks. ``setting`` is empty: the caller names it.
    """
    frames = []
    for r in results:
        t = r.task
        frame = metrics.per_fold(r.y, r.p, r.fold)
        about = {"dataset": t.dataset, "tier": config.DATASETS[t.dataset].tier, "protocol": t.protocol}
        about |= {"model": t.model, "setting": "", "seed": t.seed, "repeat": t.repeat if t.folds else t.seed}
        options = {k: " + ".join(v) if isinstance(v, tuple) else v for k, v in t.options.items()}
        frames.append(frame.assign(**about, seconds=r.seconds, **options))
    return pd.concat(frames, ignore_index=True)


def pooled(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, P(sensitive) and a code of repeat and fold of all predictions together."""
    code = [r.fold + 1000 * i for i, r in enumerate(results)]
    return tuple(np.concatenate(v) for v in ([r.y for r in results], [r.p for r in results], code))


def summary(frame: pd.DataFrame, names: Sequence[str] = MEASURES) -> pd.DataFrame:
    """Mean, spread and interval of scores by data set, model, setting and protocol (Tables 1, 3, 4).

    Parameters
    ----------
    frame : DataFrame
        A table of :func:`scores`, in which ``setting`` tells apart what is not to be averaged.
    names : sequence of str
        Measures, by default all.

    Returns
    -------
    DataFrame
        A row for each group and measure: ``dataset, model, setting, protocol, metric``, the columns of
        :func:`metrics.summarise`, ``tier``, and ``paper``, which is missing until :func:`with_paper` fills it in.
    """
    table = metrics.summarise(frame, KEY, names)
    return table.assign(tier=table["dataset"].map(config.TIERS), paper=np.nan)


def paper_table(name: str) -> pd.DataFrame:
    """A table of reported numbers in ``data/paper``, long: ``dataset, metric, paper`` and what else it has."""
    table = checksums.table(f"paper/{name}.csv")
    if "metric" not in table:
        keys = [c for c in table if c not in config.METRICS]
        table = table.melt(keys, var_name="metric", value_name="mean")
    return table.rename(columns={"mean": "paper", "value": "paper"})


def with_paper(table: pd.DataFrame, reported: pd.DataFrame, where: pd.Series | None = None) -> pd.DataFrame:
    """Put the paper's values beside what was measured on the paper's own cells (tier ``geo``).

    The column ``paper`` of `table` is filled in, and missing in all other rows.

    Parameters
    ----------
    table : DataFrame
        A table of :func:`summary`.
    reported : DataFrame
        A table of :func:`paper_table`. Rows are matched on all columns of both tables but ``paper`` and ``std``.
    where : Series of bool, optional
        The rows of `table` that may get a value, if not all of tier ``geo``.
    """
    on = [c for c in reported if c in table and c not in ("paper", "std")]
    values = table[on].merge(reported[[*on, "paper"]], "left", on=on)["paper"].to_numpy()
    own = table["tier"] == "geo"
    return table.assign(paper=np.where(own if where is None else own & where, values, np.nan))


def with_printed(table: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's values below a tidy table, as rows of their own (tier ``print``, no protocol).

    A printed value is the ``mean`` of its row, with the ``std`` if printed. What the paper does not say is missing, so
    ``n`` is a float.

    Parameters
    ----------
    table : DataFrame
        A table of :func:`summary`.
    reported : DataFrame
        A table of :func:`paper_table`, its columns named as in `table`. A missing ``model`` is ``ATSDP-NET``, a missing
        ``setting`` is empty.
    """
    rows = reported.rename(columns={"paper": "mean"}).assign(tier="print", protocol="")
    rows = rows.assign(**{c: v for c, v in {"model": "ATSDP-NET", "setting": ""}.items() if c not in rows})
    return pd.concat([table.astype({"n": float}), rows.reindex(columns=table.columns)], ignore_index=True)


def pools(names: Sequence[str]) -> dict[str, list[str]]:
    """Data sets that may share a mean or a count, by pool: the twins, the paper's own sets, and each other real axis.

    So no sentence joins real and simulated cells, and none counts an axis twice.
    """
    return {pool: list(of) for pool, of in pd.Series(names).groupby(list(map(_pool, names)), sort=False)}


def _pool(name: str) -> str:
    common = {"simulated": "simulated twins", "geo": "the paper's own sets"}
    return common.get(config.DATASETS[name].tier, config.DATASETS[name].unit)


def counted(members: Sequence[str], protocol: str) -> list[str]:
    """Data sets of a pool that a count or a mean speaks of.

    Under S an axis with several names counts by one of them, the first of `members`: its other name has the same labels
    with the classes exchanged. Under other protocols every set counts.
    """
    by_unit = {config.DATASETS[n].unit: n for n in reversed(members)}
    return [n for n in members if protocol != "S" or n in by_unit.values()]


def named(pool: str, members: Sequence[str], protocol: str) -> str:
    """Name of a pool, with what is counted of an axis that has several names."""
    units = {config.DATASETS[n].unit for n in members}
    if len(units) == len(members):
        return pool
    only = counted(members, protocol)
    return f"{pool} ({only[0]} only)" if len(only) < len(members) else f"{pool} (the {len(members)} names of one axis)"


def holm(table: pd.DataFrame, protocol: str, column: str = "model") -> pd.Series:
    """Holm's adjustment of ``p`` within each family: one question put to one pool (:func:`pools`) under one protocol.

    Every pair that is asked counts, but for those with a model that predicts a constant. Under S each name of an axis
    is a family of its own, as only one is counted.

    Parameters
    ----------
    table : DataFrame
        Tests of one protocol and one measure: ``dataset, p``, the column `column`, and ``second`` if models are paired.
    protocol : str
        The protocol of all rows.
    column : str
        Column with the names of what is compared.

    Returns
    -------
    Series
        Adjusted p-values on the index of `table`, missing where ``p`` is and where a model predicts a constant.
    """
    family = table["dataset"].map(_pool)
    if protocol == "S":
        family = family.where([not config.DATASETS[d].axis for d in table["dataset"]], table["dataset"])
    learns = (table[[column, "second"]] != CONSTANT).all(axis=1) if "second" in table else table[column] != CONSTANT
    return table["p"].where(learns).groupby(family).transform(stats.holm)


def one_answer(
    table: pd.DataFrame, folder: Path, asked: dict[str, tuple[str, str]], column: str = "first"
) -> pd.Series:
    """Give ``p_holm`` of a table of :func:`differences`, some of whose questions another notebook puts too.

    Such a question, on the AUC without labels (protocol U), keeps the answer that it has there. It is NaN until that
    notebook has run on the same trainings, which its ``p`` tells. :func:`holm` corrects the other AUCs under U, among
    themselves. All other rows keep their value.

    Parameters
    ----------
    table : DataFrame
        ``dataset, protocol, metric, p, p_holm`` and the column `column`.
    folder : Path
        Where tables of notebooks lie as CSV files.
    asked : dict
        For names in `column`, the table of `folder` and the setting there (:func:`tables.asked_before`).
    column : str
        Column with the names of what is compared.
    """
    p_holm, of = table["p_holm"].copy(), (table["protocol"] == "U") & (table["metric"] == "auc")
    again, made = of & table[column].isin(asked), {name: _answers(folder, name) for name, _ in asked.values()}
    for row, question in table.loc[again, column].map(asked).items():
        p, answer = made[question[0]].get((table.at[row, "dataset"], question[1]), (np.nan, np.nan))
        p_holm[row] = answer if np.isclose(p, table.at[row, "p"], rtol=1e-4, atol=0) else np.nan
    p_holm[of & ~again] = holm(table[of & ~again], "U", column)
    return p_holm


def _answers(folder: Path, name: str) -> dict[tuple[str, str], tuple[float, float]]:
    """``p, p_holm`` without labels in a table of another notebook, by data set and setting; none if it did not run."""
    if not (file := folder / f"{name}.csv").exists():
        return {}
    rows = pd.read_csv(file).query("protocol == 'U' and metric == 'auc'").set_index(["dataset", "setting"])
    return dict(zip(rows.index, rows[["p", "p_holm"]].itertuples(index=False, name=None), strict=True))


def tag(name: str) -> str:
    """Where a value comes from, as a mark for a line of text: ``(simulated)`` or ``(real)``."""
    return "(simulated)" if config.DATASETS[name].simulated else "(real)"


def readable(table: pd.DataFrame, rows: Sequence[str], columns: str = "metric") -> pd.DataFrame:
    """Mean ± std as text with three decimals, `rows` down and `columns` across, in the order of the table.

    The mean stands alone where the std is missing; a text is empty where `table` has no row.

    Parameters
    ----------
    table : DataFrame
        A tidy table with ``mean`` and ``std``, and at most one row for each combination of `rows` and `columns`.
    rows, columns : sequence of str, str
        Columns of `table` whose values become the index and the columns.
    """
    spread = table["std"].map(" ± {:.3f}".format).where(table["std"].notna(), "")
    text = table["mean"].map("{:.3f}".format) + spread
    wide = table.assign(text=text).pivot(index=list(rows), columns=columns, values="text").fillna("")
    index = pd.MultiIndex.from_frame(table[list(rows)].drop_duplicates()) if len(rows) > 1 else table[rows[0]].unique()
    return wide.reindex(index=index, columns=table[columns].unique()).rename_axis(index=list(rows))


#: Resamples of the cells behind an interval under protocol U.
RESAMPLES = 200
#: Columns of :func:`differences`.
ANSWER = ["dataset", "tier", "protocol", "metric", "first", "second", "pairs", "first_mean", "second_mean",
          "difference", "ci_low", "ci_high", "df", "p", "p_holm", "p_worse", "p_equal", "p_better"]  # fmt: skip
#: Columns of :func:`over_seeds` that say what a mean AUC hides.
SIGN = ["right", "right_low", "right_high", "strength"]


def versus(names: Sequence[str], reference: str) -> list[tuple[str, str]]:
    """Every other name beside `reference`, as pairs of :func:`differences`."""
    return [(name, reference) for name in dict.fromkeys(names) if name != reference]


def differences(
    results: Sequence[Result],
    names: Sequence[str],
    pairs: Iterable[tuple[str, str]] | dict[str, Iterable[tuple[str, str]]],
    measures: Sequence[str] = ("auc",),
    resample: Callable[..., np.ndarray] | None = None,
) -> pd.DataFrame:
    """Is A better than B? The one answer of the book: `first` minus `second`, paired, with interval and test.

    Both are compared on what both have: folds of the same repeat under S, else seeds. Test and interval are those of
    :func:`stats.mean_test`: corrected for shared training rows under S; with the error of the cells under U and F.

    Parameters
    ----------
    results, names
        Results of any data sets and protocols, and the name of the model or setting of each.
    pairs
        What to compare, also by data set; a pair of which a data set lacks one is skipped there.
    measures
        Names of :data:`MEASURES`.
    resample
        In place of :func:`on_resampled_cells`, for scores that were fitted on the cells: has to fit anew on each draw.

    Returns
    -------
    DataFrame
        A row a data set, protocol, pair and measure, with the columns :data:`ANSWER`. ``pairs`` is how many folds or
        seeds both have. ``p_holm`` is that of :func:`holm`, a measure at a time, over all `pairs` that are asked at
        once. ``p_worse, p_equal, p_better`` are :func:`stats.bayesian_ttest`'s, of `first`, and missing without folds.
    """
    groups: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for r, name in zip(results, names, strict=True):
        groups.setdefault((r.task.dataset, r.task.protocol), {}).setdefault(name, []).append(r)
    asked = pairs if isinstance(pairs, dict) else dict.fromkeys((d for d, _ in groups), list(pairs))
    rows = []
    for (dataset, protocol), by_name in groups.items():
        own = [pair for pair in asked.get(dataset, ()) if set(pair) <= by_name.keys()]
        of_pairs = dict.fromkeys(n for pair in own for n in pair)
        scored = {name: _Scored(by_name[name], measures, resample) for name in of_pairs}
        for first, second in own:
            for measure, *found in _paired(scored[first], scored[second], measures):
                rows.append((dataset, config.DATASETS[dataset].tier, protocol, measure, first, second, *found))
    table = pd.DataFrame(rows, columns=[c for c in ANSWER if c != "p_holm"])
    parts = [holm(part, key[0], "first") for key, part in table.groupby(["protocol", "metric"])]
    return table.assign(p_holm=pd.concat(parts) if parts else np.nan)[ANSWER]


class _Scored:
    """Scores of one model on one data set, a row a fold or seed; of seeds also the same on resampled cells."""

    def __init__(self, results: Sequence[Result], measures: Sequence[str], resample: Callable | None = None) -> None:
        self.folds = max(r.task.folds for r in results)
        self.scores = scores(results).set_index(["repeat", "fold"])[[*measures]]
        self.results = {(r.task.seed, 0): r for r in results} if not self.folds else {}
        self.df_cells = min(np.bincount(r.y.astype(int), minlength=2).min() for r in results) - 1
        if self.scores.index.has_duplicates:
            raise ValueError(f"results: {results[0].task} and another have one name, and the same repeat or seed")
        self.draws = cache(lambda unit, of: (resample or on_resampled_cells)(self.results[unit], measures, of))


@lru_cache(maxsize=8)
def _resampled_cells(y: tuple[int, ...]) -> np.ndarray:
    """How often each cell is drawn, (RESAMPLES, cells), as many of each class as there are."""
    labels, rng = np.array(y), np.random.default_rng(0)
    weights = np.zeros((RESAMPLES, labels.size))
    for k in (0, 1):
        rows = np.flatnonzero(labels == k)
        weights[:, rows] = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), RESAMPLES)
    return weights


#: Cells that are resampled: their rows in the set, in order, and their labels.
Population = tuple[tuple[int, ...], tuple[int, ...]]


def _population(results: Iterable[Result]) -> Population:
    """All cells that some of the results score: with a few labelled cells (F) each seed leaves out its own."""
    rows, labels = (np.concatenate(parts) for parts in zip(*((r.row, r.y) for r in results), strict=True))
    rows, first = np.unique(rows, return_index=True)
    return tuple(rows.tolist()), tuple(labels[first].tolist())


def on_resampled_cells(result: Result, measures: Sequence[str] = ("auc",), of: Population | None = None) -> np.ndarray:
    """Measures of a result on cells resampled within a class, (RESAMPLES, measures).

    They are drawn from `of`, by default the cells of the result, alike for all results that are given the same. What
    the result does not score of them counts for nothing there.
    """
    rows, y = of or _population([result])
    weights = _resampled_cells(y)[:, np.searchsorted(rows, result.row)]
    found = metrics.resampled(result.y, result.p, weights)
    return np.stack([found[m] for m in measures], axis=1)


def rank_over_cells(y: np.ndarray, scores: np.ndarray, own: int) -> stats.Interval:
    """Rank of one model by its AUC among several on the same cells, with an interval over cells.

    The rank is that on the cells given, 1 for the highest AUC; equal AUCs share the better rank. The limits are its 2.5
    % and 97.5 % quantiles on :data:`RESAMPLES` draws of cells within each class, with a fixed seed, the same for all
    models.

    Parameters
    ----------
    y : (cells,)
        1 sensitive, 0 resistant; cells without a label are to be left out.
    scores : (models, cells)
        Scores of any scale, high for sensitive.
    own : int
        Row of `scores` whose rank is asked.
    """
    weights = np.vstack([np.ones(len(y)), _resampled_cells(tuple(y.tolist()))])
    shares = (rankdata(score) / len(y) for score in scores)
    auc = np.stack([metrics.resampled(y, share, weights)["auc"] for share in shares])
    rank, *drawn = 1 + (auc > auc[own] + 1e-9).sum(axis=0)
    return stats.Interval(rank, *np.quantile(drawn, (1 - stats.UPPER, stats.UPPER)))


def _paired(a: _Scored, b: _Scored, measures: Sequence[str]) -> Iterator[tuple]:
    """Of each measure: its name, number of pairs, both means, difference, limits, df, p and the Bayesian three."""
    if a.folds != b.folds:
        raise ValueError(f"results: got {a.folds} and {b.folds} folds, expected the same partition for a paired test")
    common = a.scores.index.intersection(b.scores.index).sort_values()
    first, second = (s.scores.loc[common, list(measures)].to_numpy() for s in (a, b))
    both, draws = [] if a.folds else [(a.results[u], b.results[u]) for u in common], None
    if both and all(np.array_equal(x.row, y.row) for x, y in both):
        of = _population(x for x, _ in both)
        draws = np.stack([a.draws(u, of) - b.draws(u, of) for u in common], axis=1)
    for i, measure in enumerate(measures):
        known = np.isfinite(first[:, i] - second[:, i])
        x, y = first[known, i], second[known, i]
        of_measure = None if draws is None else draws[:, known, i]
        t = stats.mean_test(x - y, a.folds or 1, of_measure, df_cells=a.df_cells)
        repeats = common[known].get_level_values("repeat").nunique()
        bayes = stats.bayesian_ttest(x, y, repeats) if a.folds and len(x) >= 2 * repeats else (np.nan,) * 3
        means = (x.mean(), y.mean()) if len(x) else (np.nan, np.nan)
        yield measure, len(x), *means, t.mean, t.low, t.high, t.df, t.p, *bayes


def with_cells(table: pd.DataFrame, over: pd.DataFrame, name: str = "model") -> pd.DataFrame:
    """Put limits and :data:`SIGN` of :func:`over_seeds` into a table of :func:`summary`, whose `name` is its model."""
    keys = ["dataset", name, "protocol", "metric"]
    found = table[keys].merge(over.rename(columns={"model": name})[[*keys, "ci_low", "ci_high", *SIGN]], "left", keys)
    found.index = table.index
    limits = {c: found[c].where(found["ci_low"].notna(), table[c]) for c in ("ci_low", "ci_high")}
    return table.assign(**limits, **found[SIGN])


def over_seeds(
    results: Sequence[Result],
    names: Sequence[str] | None = None,
    measures: Sequence[str] = ("auc",),
    resample: Callable[..., np.ndarray] | None = None,
) -> pd.DataFrame:
    """Mean over seeds of protocol U or F, with an interval that holds the errors of seeds and of cells.

    Parameters
    ----------
    results : sequence of Result
        Results without folds, at most one for each data set, name and seed.
    names : sequence of str, optional
        Name of the model or setting of each result, by default its model.
    measures : sequence of str
        Names of :data:`MEASURES`.
    resample : callable, optional
        As in :func:`differences`.

    Returns
    -------
    DataFrame
        A row for each data set, name (in ``model``) and measure: ``dataset, tier, protocol, model, metric, seeds, mean,
        ci_low, ci_high, df, sd``, with the interval of :func:`metrics.limits` and the sd over seeds. For the AUC also
        what a mean hides where seeds take one of two signs, else missing: ``right``, the share of seeds above one half,
        with Wilson's interval ``right_low, right_high``, and ``strength``, the mean of |AUC - 0.5|.

    Raises
    ------
    ValueError
        If two results have one data set, name and seed.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for r, name in zip(results, names or [r.task.model for r in results], strict=True):
        groups.setdefault((r.task.dataset, name), []).append(r)
    rows = []
    for (dataset, name), of in groups.items():
        scored = _Scored(of, measures, resample)
        population = _population(of)
        draws = np.stack([scored.draws(u, population) for u in scored.scores.index], axis=1)
        for i, measure in enumerate(measures):
            values = scored.scores[measure]
            t = stats.mean_test(values, 1, draws[:, :, i], df_cells=scored.df_cells)
            ends = metrics.limits(t, measure, len(population[0]))
            sign = (np.nan,) * 4
            if measure == "auc":
                sign = *stats.wilson(int((values > 0.5).sum()), len(values)), np.abs(values - 0.5).mean()
            about = (dataset, config.DATASETS[dataset].tier, of[0].task.protocol, name, measure, len(values))
            rows.append((*about, t.mean, *ends, t.df, values.std(), *sign))
    columns = ["dataset", "tier", "protocol", "model", "metric", "seeds", "mean", "ci_low", "ci_high", "df", "sd",
               *SIGN]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
