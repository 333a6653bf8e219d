"""What other studies published on the same cells: their values, one sweep over settings, scores of single cells.

The values are theirs. How each was chosen stands beside it (``chosen_by``), as far as public texts tell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.foundation import paths
from atsdp_utils.foundation.checksums import verify

#: Labels by which a setting can be chosen, the mildest first.
CHOSEN_BY = ("nothing (library defaults)", "bulk labels", "unknown", "cell labels")
#: The sets of the sweep that are the paper's, under its names.
OF_PAPER = {"GSE117872HN120": "DATA1", "GSE117872HN137": "DATA2", "GSE140440": "DATA3", "GSE110894": "DATA4"}
SETTING = ["bottle", "edim", "pdim", "model", "dropout", "lr", "mod", "sam"]
#: The sweep's file holds this share of all runs, those with the highest scores of each set: the notebook beside it in
#: its repository sorts by score and keeps the upper half.
KEPT = 0.5


def results() -> pd.DataFrame:
    """Published values, a row each: set, drug, method, AUC, AUPR, what it was trained on, how chosen, source."""
    table = pd.read_csv(verify(paths.DATA / "peers" / "peers_auc.csv"))
    table["task"] = (
        table["dataset"].str.replace(" (GSE108383)", "").str.replace(" (GSE149215)", "") + ", " + table["drug"]
    )
    return table


def sweep() -> pd.DataFrame:
    """Runs of the scDEAL study's sweep that its file holds, with ``above``: the share of all runs that score higher."""
    runs = pd.read_csv(verify(paths.DATA / "peers" / "scdeal_sweep.csv.gz"))
    rank = runs.groupby("data")["score"].rank(ascending=False, method="min") - 1
    return runs.assign(above=KEPT * rank / runs.groupby("data")["score"].transform("size"))


def share_above(scores: pd.Series, value: float) -> float:
    """Share of all runs of a set that score above `value`; NaN where it lies below every run that the file holds."""
    return float(KEPT * (scores > value).mean()) if value >= scores.min() else np.nan


def named_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Settings that the study names for each set, with their runs in the sweep: a row without score where none is kept.

    Where no bulk table is named, the runs on each of the three count.
    """
    named = pd.read_csv(verify(paths.DATA / "peers" / "scdeal_settings.csv"), keep_default_na=False)
    named = named.rename(columns={"bulk_data": "bulk_named"})
    keys = ["data", *SETTING]
    found = named.merge(runs[[*keys, "bulk_data", "transfer", "score", "above"]], on=keys)
    found = found[found["bulk_named"].eq("") | found["bulk_named"].eq(found["bulk_data"])]
    return named.merge(found, "left", on=[*named])


def pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """Each setting of which a run is kept: score ``before`` and ``after`` transfer, and which one is higher.

    A run that the file lacks lies below every run that it holds, provided that it was made at all; so one kept run
    tells which of two is higher.
    """
    wide = runs.pivot(index=["data", "bulk_data", *SETTING], columns="transfer", values="score")
    low = wide.fillna(-np.inf)
    higher = np.select([low["after"] > low["before"], low["after"] < low["before"]], ["after", "before"], "equal")
    return wide.assign(higher=higher, both=wide.notna().all(axis=1)).reset_index()


def percell() -> pd.DataFrame:
    """Scores of single cells of SCAD and of SCAD on scFoundation's embedding, side by side, with fold and label."""
    table = pd.read_csv(verify(paths.DATA / "peers" / "scad_percell.csv.gz"))
    wide = table.pivot(index=["drug", "split", "cell", "sensitive"], columns="method", values="probability")
    return wide.reset_index().rename_axis(columns=None)


def own(folder: Path) -> pd.DataFrame:
    """AUC of this book's models on real cells, from Table 4 of the same run; empty if notebook 07 has not run there."""
    file = folder / "table4.csv"
    if not file.exists():
        return pd.DataFrame(columns=["dataset", "model", "protocol", "mean", "ci_low", "ci_high"])
    table = pd.read_csv(file).query("metric == 'auc' and tier == 'real'")
    return table[["dataset", "model", "protocol", "mean", "ci_low", "ci_high"]]
