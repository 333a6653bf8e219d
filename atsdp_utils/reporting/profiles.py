"""Two runs of the same code at other amounts (profiles): which of their values lie apart."""

from pathlib import Path

import pandas as pd

#: Tables of values with 95 % intervals that are compared, and the column of the value.
_OF_MEANS = ("table1", "table3", "table4", "ablation_heads", "few_shot", "plus_score", "clusters_mean")
TABLES = dict.fromkeys(_OF_MEANS, "mean") | {"transfer": "auc_mean"}
#: What names a value in its table.
NAMES = ["dataset", "tier", "protocol", "metric", "model", "setting", "k", "on"]
LIMITS = ["value", "low", "high"]


def _values(folder: Path, table: str) -> pd.DataFrame:
    """Values of a table with their limits, by what names them, if the run has it; lines, without a tier, are real."""
    path = folder / f"{table}.csv"
    if not path.exists():
        return pd.DataFrame(columns=LIMITS, index=pd.MultiIndex.from_tuples([], names=NAMES), dtype=float)
    rows = pd.read_csv(path, dtype={"setting": str, "k": str})
    rows = rows.reindex(columns=[*NAMES, TABLES[table], "ci_low", "ci_high"]).set_axis([*NAMES, *LIMITS], axis=1)
    return rows.fillna(dict.fromkeys(NAMES, "") | {"tier": "real"}).dropna().set_index(NAMES)


def beside(run: Path, other: Path) -> pd.DataFrame:
    """Every value that has an interval in the tables of both folders, a row each.

    Columns: the table, what names the value, value and limits of `run` and, ending in ``_other``, of `other`, and
    `apart`: whether the two intervals share no point.
    """
    both = {t: _values(run, t).join(_values(other, t), how="inner", rsuffix="_other") for t in TABLES}
    found = pd.concat(both, names=["table"]).reset_index()
    return found.assign(apart=(found["low"] > found["high_other"]) | (found["high"] < found["low_other"]))
