"""From results of the grid to tidy tables: scores a fold, summaries beside the paper's values, paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.foundation import config, paths

if TYPE_CHECKING:
    from atsdp_utils.experiments.task import Result

KEY = ("dataset", "model", "setting", "protocol")
#: A model that predicts one value: to differ from it is no finding, so it is in no family of tests.
CONSTANT = "Majority"


def scores(results: Sequence[Result]) -> pd.DataFrame:
    """Score every test fold of every result: a row each, with its task and its options.

    ``setting`` is empty, to be named from the options; ``repeat`` is that of the partition under S, else the seed.
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


def tiers(datasets: Sequence[str]) -> list[str]:
    """Tier of each data set."""
    return [config.DATASETS[d].tier for d in datasets]


def summary(frame: pd.DataFrame, names: Sequence[str] = config.METRICS + config.EXTRA_METRICS) -> pd.DataFrame:
    """Scores by data set, model, setting and protocol (Tables 1, 3, 4); ``paper`` is empty."""
    table = metrics.summarise(frame, KEY, names)
    return table.assign(tier=tiers(table["dataset"]), paper=np.nan)


def paper_table(name: str) -> pd.DataFrame:
    """A table of reported numbers in ``data/paper``, long: ``dataset, metric, paper`` and what else it has."""
    table = pd.read_csv(paths.PAPER / f"{name}.csv")
    if "metric" not in table:
        keys = [c for c in table if c not in config.METRICS]
        table = table.melt(keys, var_name="metric", value_name="mean")
    return table.rename(columns={"mean": "paper", "value": "paper"})


def with_paper(table: pd.DataFrame, reported: pd.DataFrame, where: pd.Series | None = None) -> pd.DataFrame:
    """Put the paper's values beside what was measured on the paper's own cells (tier ``geo``), and nowhere else.

    Tables match on the columns that both have; `where` narrows the rows that take a value.
    """
    on = [c for c in reported if c in table and c not in ("paper", "std")]
    values = table[on].merge(reported[[*on, "paper"]], "left", on=on)["paper"].to_numpy()
    own = table["tier"] == "geo"
    return table.assign(paper=np.where(own if where is None else own & where, values, np.nan))


def with_printed(table: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's values below a tidy table, as rows of their own (tier ``print``, no protocol)."""
    rows = reported.rename(columns={"paper": "mean"}).assign(tier="print", protocol="")
    rows = rows.assign(**{c: v for c, v in {"model": "ATSDP-NET", "setting": ""}.items() if c not in rows})
    return pd.concat([table.astype({"n": float}), rows.reindex(columns=table.columns)], ignore_index=True)


def pools(names: Sequence[str]) -> dict[str, list[str]]:
    """Data sets that may share a mean or a count, under the name of each pool.

    Twins are one pool, the paper's own sets are one, and the drug names of each other real axis are one: no sentence
    joins real and simulated cells, and none counts an axis twice.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_pool(name), []).append(name)
    return found


def _pool(name: str) -> str:
    common = {"simulated": "simulated twins", "geo": "the paper's own sets"}
    return common.get(config.DATASETS[name].tier, config.DATASETS[name].unit)


def counted(members: Sequence[str], protocol: str) -> list[str]:
    """Sets of a pool that a count or mean speaks of: under S one name of an axis, whose labels differ by a flip.

    Under U the bulk lines differ, and every name counts.
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


def holm(table: pd.DataFrame, protocol: str, column: str = "model") -> np.ndarray:
    """Holm's adjustment of ``p`` within each family: the tests of one pool under one protocol, without the constant.

    Under S each name of an axis is a family of its own, as only one is counted.
    """
    family = table["dataset"].map(_pool)
    if protocol == "S":
        family = family.where([not config.DATASETS[d].axis for d in table["dataset"]], table["dataset"])
    learns = table[column] != CONSTANT
    known = table["p"].where(learns).dropna()
    return known.groupby(family).transform(stats.holm).reindex(table.index).to_numpy()


def span(values: pd.Series) -> str:
    """Smallest and largest value as text, or the one that there is."""
    low, high = (f"{v:.3f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def tag(name: str) -> str:
    """Where a value comes from, as a mark for a line of text: ``(simulated)`` or ``(real)``."""
    return "(simulated)" if config.DATASETS[name].simulated else "(real)"


def readable(table: pd.DataFrame, rows: Sequence[str], columns: str = "metric") -> pd.DataFrame:
    """Mean ± std as text, `rows` down and `columns` across, in the order of the table."""
    text = [
        f"{m:.3f}" + (f" ± {s:.3f}" if np.isfinite(s) else "") for m, s in zip(table["mean"], table["std"], strict=True)
    ]
    wide = table.assign(text=text).pivot(index=list(rows), columns=columns, values="text").fillna("")
    index = pd.MultiIndex.from_frame(table[list(rows)].drop_duplicates()) if len(rows) > 1 else table[rows[0]].unique()
    return wide.reindex(index=index, columns=table[columns].unique()).rename_axis(index=list(rows))


def compare(frame: pd.DataFrame, reference: str, column: str = "setting", metric: str = "auc") -> pd.DataFrame:
    """Test every level of `column` against `reference` on the same repeats and folds of one protocol, per data set.

    ``difference`` (level - reference) has its corrected interval, ``p``, ``p_holm`` (:func:`holm`), and the Bayesian
    ``p_worse, p_equal, p_better`` (missing without folds).
    """
    rows = []
    for dataset, part in frame.groupby("dataset", sort=False):
        wide = part.pivot(index=["repeat", "fold"], columns=column, values=metric)
        folds, repeats = part["fold"].nunique(), part["repeat"].nunique()
        for level in (level for level in part[column].unique() if level != reference):
            a, b = wide[[level, reference]].dropna().to_numpy().T
            t = stats.corrected_ttest(a, b, folds)
            bayes = stats.bayesian_ttest(a, b, repeats) if folds > 1 else (np.nan,) * 3
            rows.append((dataset, level, reference, t.mean, t.low, t.high, t.p, *bayes))
    columns = ["dataset", column, "reference", "difference", "ci_low", "ci_high", "p", "p_worse", "p_equal", "p_better"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "p_holm", holm(table, "S" if (frame["fold"] > 0).any() else "U", column))
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


def summary_over_seeds(results: Sequence[Result]) -> pd.DataFrame:
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
    """One model (or setting, by `names` of the results) minus every other, in all five metrics, each with an interval.

    `first` names the one that the others are compared with, for every data set. Under S the pairs are folds, with the
    correction for shared training rows; under U they are seeds on the same cells, and the error of the cells is added.
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
