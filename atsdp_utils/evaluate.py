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

    The column ``paper`` is there and empty; :func:`with_paper` fills it on the paper's own cells.
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
    return table.rename(columns={"mean": "paper", "value": "paper"})


def with_paper(table: pd.DataFrame, reported: pd.DataFrame, where: pd.Series | None = None) -> pd.DataFrame:
    """Put the paper's values beside what was measured on the paper's own cells (tier ``geo``), and nowhere else.

    Parameters
    ----------
    table
        Tidy.
    reported
        ``dataset``, ``metric``, ``paper`` and any further columns of `table` to match on; a spread is ignored.
    where
        Rows of `table` that take a value; all of tier ``geo`` by default.
    """
    on = [c for c in reported if c in table and c not in ("paper", "std")]
    values = table[on].merge(reported[[*on, "paper"]], "left", on=on)["paper"].to_numpy()
    own = table["tier"] == "geo"
    return table.assign(paper=np.where(own if where is None else own & where, values, np.nan))


def with_printed(table: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's values below a tidy table, as rows of their own: what is written, not what is shown or averaged.

    They have the paper's names of data sets and models, the tier ``print`` and no protocol (the paper names none); what
    it does not print is missing.
    """
    rows = reported.rename(columns={"paper": "mean"}).assign(tier="print", protocol="")
    rows = rows.assign(**{c: v for c, v in {"model": "ATSDP-NET", "setting": ""}.items() if c not in rows})
    return pd.concat([table.astype({"n": float}), rows.reindex(columns=table.columns)], ignore_index=True)


def pools(names: Sequence[str]) -> dict[str, list[str]]:
    """Data sets that may share a mean or a count, under the name of each pool.

    Twins are one pool, the paper's own sets are one, and every other real unit stands alone: the drug names of one
    axis are one unit. So no sentence joins real and simulated cells, and none counts an axis twice.
    """
    common = {"simulated": "simulated twins", "geo": "the paper's own sets"}
    found: dict[str, list[str]] = {}
    for spec in (config.DATASETS[n] for n in names):
        found.setdefault(common.get(spec.tier, spec.unit), []).append(spec.name)
    return found


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
    """Test every level of `column` against `reference` on the same folds, per data set; Holm over all tests.

    Parameters
    ----------
    frame
        Scores of one protocol. A level is compared on the repeats (seeds) and folds that it shares with the reference,
        never by a difference of means over different ones.
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
        folds, repeats = part["fold"].nunique(), part["repeat"].nunique()
        for level in (level for level in part[column].unique() if level != reference):
            a, b = wide[[level, reference]].dropna().to_numpy().T
            t = stats.corrected_ttest(a, b, folds)
            bayes = stats.bayesian_ttest(a, b, repeats) if folds > 1 else (np.nan,) * 3
            rows.append((dataset, level, reference, t.mean, t.low, t.high, t.p, *bayes))
    columns = ["dataset", column, "reference", "difference", "ci_low", "ci_high", "p", "p_worse", "p_equal", "p_better"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(7, "p_holm", stats.holm(table["p"]))
    return table
