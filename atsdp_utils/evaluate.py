"""From results of the grid to tidy tables: scores a fold, summaries beside the paper's values, paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import config, metrics, paths, stats

if TYPE_CHECKING:
    from .protocols import Result

KEY = ("dataset", "model", "setting", "protocol")


def scores(results: Sequence[Result]) -> pd.DataFrame:
    """Score every fold of every result.

    Returns
    -------
    DataFrame
        One row a test fold: ``dataset, tier, protocol, model, setting`` (empty: name it from the options), ``seed``,
        ``repeat`` (of the partition under S, else the seed), ``fold``, ``n``, ``seconds`` (of the whole task), the
        options of the task, one column each (missing where a task has none), and the metrics.
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


def summary(frame: pd.DataFrame, names: Sequence[str] = config.METRICS + config.EXTRA_METRICS) -> pd.DataFrame:
    """Summarise scores by data set, model, setting and protocol: the tidy form of Tables 1, 3 and 4.

    The column ``paper`` is there and empty; :func:`with_paper` fills it.
    """
    table = metrics.summarise(frame, KEY, names)
    table["tier"] = [config.DATASETS[d].tier for d in table["dataset"]]
    return table.assign(paper=np.nan)


def paper_table(name: str) -> pd.DataFrame:
    """A table of reported numbers in ``data/paper``, long: ``dataset, metric, paper`` and what else it has."""
    table = pd.read_csv(paths.PAPER / f"{name}.csv")
    if "metric" not in table:
        keys = [c for c in table if c not in config.METRICS]
        table = table.melt(keys, var_name="metric", value_name="mean")
    return table.rename(columns={"mean": "paper", "value": "paper"}).drop(columns="std", errors="ignore")


def with_paper(table: pd.DataFrame, reported: pd.DataFrame, where: pd.Series | None = None) -> pd.DataFrame:
    """Put the paper's values beside the rows that they belong to.

    A twin's rows carry the value reported for the set that it stands in for (a null twin stands in for none); only
    rows of tier ``geo`` may be compared with it.

    Parameters
    ----------
    table
        Tidy.
    reported
        ``dataset`` (the paper's name), ``metric``, ``paper`` and any further columns of `table` to match on.
    where
        Rows of `table` that take a value; all by default.
    """
    on = [c for c in reported if c in table and c not in ("dataset", "paper")]
    sets = {s.name: "" if s.null else s.paper for s in config.DATASETS.values()}
    left = table.drop(columns="paper").assign(paper_set=table["dataset"].map(sets))
    merged = left.merge(reported.rename(columns={"dataset": "paper_set"}), "left", on=["paper_set", *on])
    if where is not None:
        merged.loc[~where.to_numpy(), "paper"] = np.nan
    return merged.drop(columns="paper_set")[[*table.columns]]


def readable(table: pd.DataFrame, rows: Sequence[str], columns: str = "metric") -> pd.DataFrame:
    """Mean ± std as text, `rows` down and `columns` across, in the order of the table."""
    text = [
        f"{m:.3f}" + (f" ± {s:.3f}" if np.isfinite(s) else "") for m, s in zip(table["mean"], table["std"], strict=True)
    ]
    wide = table.assign(text=text).pivot(index=list(rows), columns=columns, values="text").fillna("")
    index = pd.MultiIndex.from_frame(table[list(rows)].drop_duplicates()) if len(rows) > 1 else table[rows[0]].unique()
    return wide.reindex(index=index, columns=table[columns].unique()).rename_axis(index=list(rows))


def compare(frame: pd.DataFrame, reference: str, column: str = "setting", metric: str = "auc") -> pd.DataFrame:
    """Test every level of `column` against `reference` on the same folds, per data set; Holm over all tests.

    Parameters
    ----------
    frame
        Scores of one protocol; each level has the same repeats and folds as the reference.
    reference
        The level that the others are compared with.

    Returns
    -------
    DataFrame
        ``dataset``, `column`, ``reference``, ``difference`` (level - reference) with its corrected interval, ``p``,
        ``p_holm``, and of the Bayesian test ``p_worse, p_equal, p_better`` (ROPE 0.01; missing without folds).
    """
    rows = []
    for dataset, part in frame.groupby("dataset", sort=False):
        wide = part.pivot(index=["repeat", "fold"], columns=column, values=metric)
        wide = wide[part[column].unique()].dropna()
        folds, repeats = part["fold"].nunique(), part["repeat"].nunique()
        for level in wide.columns.drop(reference):
            a, b = wide[level].to_numpy(), wide[reference].to_numpy()
            t = stats.corrected_ttest(a, b, folds)
            bayes = stats.bayesian_ttest(a, b, repeats) if folds > 1 else (np.nan,) * 3
            rows.append((dataset, level, reference, t.mean, t.low, t.high, t.p, *bayes))
    columns = ["dataset", column, "reference", "difference", "ci_low", "ci_high", "p", "p_worse", "p_equal", "p_better"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "p_holm", stats.holm(table["p"]))
    return table


#: Resamples of the cells behind an interval under protocol U.
RESAMPLES = 200


def _over_cells(y: np.ndarray, p: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The five metrics of every seed, (seeds, 5), and their means over seeds on cells resampled within a class."""

    def five(index: np.ndarray) -> np.ndarray:
        found = [metrics.classification_metrics(y[index], one[index]) for one in p]
        return np.array([[score[m] for m in config.METRICS] for score in found])

    rng, classes = np.random.default_rng(0), [np.flatnonzero(y == k) for k in (0, 1)]
    draws = [np.concatenate([rng.choice(c, c.size) for c in classes]) for _ in range(RESAMPLES)]
    return five(np.arange(y.size)), np.array([five(index).mean(axis=0) for index in draws])


def seeds_and_cells(results: Sequence[Result]) -> pd.DataFrame:
    """The five metrics over seeds of protocol U, with the errors of seeds and of cells: one row a set and metric."""
    rows = []
    for dataset in dict.fromkeys(r.task.dataset for r in results):
        of_set = [r for r in results if r.task.dataset == dataset]
        by_seed, by_draw = _over_cells(of_set[0].y, [r.p for r in of_set])
        about = (dataset, config.DATASETS[dataset].tier, of_set[0].task.protocol)
        for i, metric in enumerate(config.METRICS):
            rows.append((*about, metric, len(of_set), *stats.seeds_and_cells(by_seed[:, i], by_draw[:, i])))
    columns = ["dataset", "tier", "protocol", "metric", "seeds", "mean", "ci_low", "ci_high", "df"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(ci_low=table["ci_low"].clip(0, 1), ci_high=table["ci_high"].clip(0, 1))


def paired(results: Sequence[Result], names: Sequence[str], first: dict[str, str]) -> pd.DataFrame:
    """One model (or setting) minus every other, in all five metrics, each with an interval.

    Under S the pairs are folds, with the correction for shared training rows; under U they are seeds on the same cells,
    and the error of the cells is added (:func:`stats.seeds_and_cells`).

    Parameters
    ----------
    results
        Of one protocol or both.
    names
        Name of the model or setting of every result.
    first
        Name of the one that the others are compared with, for every data set; a set without it gives no rows.

    Returns
    -------
    DataFrame
        ``dataset, tier, protocol, metric, first, second, first_mean, second_mean, difference, ci_low, ci_high, df``.
    """
    groups: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for r, name in zip(results, names, strict=True):
        groups.setdefault((r.task.dataset, r.task.protocol), {}).setdefault(name, []).append(r)
    rows = []
    for (dataset, protocol), by_name in groups.items():
        one, about = first[dataset], (dataset, config.DATASETS[dataset].tier, protocol)
        scored = {name: _folds(of) if of[0].task.folds else _over_cells(of[0].y, [r.p for r in of])
                  for name, of in by_name.items()}  # fmt: skip
        for second in [name for name in by_name if name != one and one in by_name]:
            (a, a_draw), (b, b_draw) = scored[one], scored[second]
            n = min(len(a), len(b))  # a setting may have fewer seeds
            for i, metric in enumerate(config.METRICS):
                gap = (a[:n, i] - b[:n, i])[np.isfinite(a[:n, i] - b[:n, i])]
                if by_name[one][0].task.folds:
                    mean, low, high = stats.corrected_interval(gap, by_name[one][0].task.folds)
                    df = gap.size - 1
                else:
                    mean, low, high, df = stats.seeds_and_cells(gap, a_draw[:, i] - b_draw[:, i])
                means = np.nanmean(a[:n, i]), np.nanmean(b[:n, i])
                rows.append((*about, metric, one, second, *means, mean, low, high, df))
    columns = ["dataset", "tier", "protocol", "metric", "first", "second", "first_mean", "second_mean", "difference",
               "ci_low", "ci_high", "df"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _folds(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """The five metrics of every fold of every repeat, (folds, 5); no resamples of cells: folds hold different ones."""
    tables = [metrics.per_fold(r.y, r.p, r.fold)[list(config.METRICS)] for r in results]
    return np.concatenate([t.to_numpy() for t in tables]), np.empty((0, len(config.METRICS)))
