"""The tables of one run, read when asked for, and rows of them named in text, as the files of ``data/paper`` do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.foundation import checksums
from atsdp_utils.reporting import audit

#: Tables of what the paper prints, which no run makes.
PRINTED = {"class sizes": lambda: checksums.table("paper/class_sizes.csv"), "reported": audit.reported}


class Missing(Exception):
    """An output that something needs is not there."""


@dataclass(frozen=True)
class Outputs:
    """The tables in a folder; with a `tier`, only its rows of the tables that name tiers."""

    folder: Path
    tier: str = ""

    def read(self, name: str) -> pd.DataFrame:
        """The whole of ``<name>.csv``, or of a table of :data:`PRINTED`."""
        if name in PRINTED:
            return PRINTED[name]()
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Missing(f"{name}.csv")
        return pd.read_csv(path)

    def table(self, name: str, **where: str | Sequence[str]) -> pd.DataFrame:
        """Rows of a table with the given values, each of them where there are several; none of one is `Missing`."""
        rows = self.read(name)
        found = rows[rows["tier"] == self.tier] if self.tier and "tier" in rows else rows
        for column, value in where.items():
            if column not in rows:
                raise Missing(f"{name}.csv has no column {column}")
            text = found[column].astype(str).where(found[column].notna(), "")
            found = found[text.isin(np.atleast_1d(value).astype(str))]
        if found.empty:
            raise Missing(f"{name}.csv has no row {where}")
        for column, value in where.items():
            if gone := {*np.atleast_1d(value).astype(str)} - {"", *found[column].astype(str)}:
                raise Missing(f"{name}.csv has no {column} {', '.join(sorted(gone))}")
        return found

    def named(self, name: str, rows: str, **names) -> pd.DataFrame:
        """Rows by ``column=value`` between semicolons: a value has fields in braces, several are between bars."""
        pairs = (pair.format(**names).split("=", 1) for pair in rows.split(";"))
        return self.table(name, **{column: value.split("|") if "|" in value else value for column, value in pairs})

    def one(self, name: str, **where) -> pd.Series:
        """The first such row."""
        return self.table(name, **where).iloc[0]


def numbers(rows: pd.DataFrame, columns: str) -> list[list[float]]:
    """Columns between semicolons, or arithmetic on them, one list a row."""
    found = (rows[c] if c in rows else rows.eval(c) for c in columns.split(";"))
    return np.column_stack([np.broadcast_to(values, len(rows)) for values in found]).astype(float).tolist()
