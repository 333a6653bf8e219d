"""The table of statements: which sentence of the book rests on which table, and whether it still does.

A row of ``book/statements.csv`` names a sentence (``where``, ``text``) and, where the sentence compares, what must
hold: ``left relation right`` over the reference tables. A side is a number or ``table[query].column:aggregate``, or two
of these joined by ``-``; ``paper/table`` is that of the committed run at profile ``paper``. A sentence that defines or
reports what the paper says has a ``kind`` and no relation.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "book" / "statements.csv"
FIGURES = ROOT / "figures"
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
#: Why a sentence with a comparing word needs no table.
KINDS = {
    "result": "compares results: a relation must hold",
    "definition": "says what a word, a rule or a mark means",
    "method": "says what is done, or a property that mathematics gives",
    "paper": "reports what the paper says",
    "position": "above, below, first: a place on the page or in a picture",
}
#: Words that compare or claim a direction.
COMPARING = re.compile(
    r"\b(more|less|fewer|better|worse|higher|lower|larger|smaller|best|worst|above|below|beats?|wins?|outperform\w*|"
    r"exceeds?|gains?|improv\w*|helps|rises?|falls?|drops?|increases?|decreases?|stronger|weaker|faster|slower|mix|"
    r"apart|highest|lowest|almost|nearly)\b",
    re.IGNORECASE,
)
#: A sentence with a computed value shows what it compares; these words judge it, which only a count ("for 3 of 5") may.
TAKES_SIDES = re.compile(
    r"\b(better|worse|beats?|wins?|outperform\w*|exceeds?|gains?|improv\w*|helps|almost|nearly|stronger|weaker|faster|"
    r"slower)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"\{glue:text\}`[^`]+` of (the )?\{glue:text\}`")
_TERM = re.compile(r"(?P<table>(paper/)?\w+)\[(?P<query>.*)\](?:\.(?P<column>\w+))?:(?P<how>\w+)")

Tables = Callable[[str], pd.DataFrame]


def reference(name: str) -> pd.DataFrame:
    """A table of a committed run."""
    profile, _, table = name.rpartition("/")
    return pd.read_csv(FIGURES / f"embedded-{profile or 'quick'}" / f"{table}.csv")


def statements() -> pd.DataFrame:
    """All rows, empty fields as empty strings."""
    return pd.read_csv(TABLE, dtype=str, keep_default_na=False)


class Term(NamedTuple):
    """One side of a relation or a part of it: an aggregate over rows of a table."""

    table: str
    query: str
    column: str
    how: str

    def rows(self, tables: Tables) -> pd.DataFrame:
        """Rows that the term reads; all of them without a query."""
        frame = tables(self.table)
        return frame.query(self.query) if self.query else frame

    def value(self, tables: Tables) -> float:
        """The number that the term stands for."""
        rows = self.rows(tables)
        if self.how == "count":
            return len(rows)
        if rows.empty:
            raise ValueError(f"{self.table}[{self.query}] has no row")
        column = rows[self.column]
        return float(column.iloc[0] if self.how == "first" else column.agg(self.how))


def terms(side: str) -> list[float | Term]:
    """Parts of a side: one, or two whose difference is meant."""
    found = []
    for part in side.split(" - "):
        match = _TERM.fullmatch(part.strip())
        found.append(Term(**{k: v or "" for k, v in match.groupdict().items()}) if match else float(part))
    return found


def value(side: str, tables: Tables) -> float:
    """Value of a side."""
    first, *rest = (t if isinstance(t, float) else t.value(tables) for t in terms(side))
    return first - sum(rest)


def holds(row, tables: Tables = reference) -> bool:
    """Whether the relation of a row holds."""
    return bool(RELATIONS[row.relation](value(row.left, tables), value(row.right, tables)))


def _matching(frame: pd.DataFrame, query: str) -> pd.DataFrame:
    """A row of `frame` changed so that it fulfils `query`: equalities and bare columns joined by ``and``."""
    parts = query.split(" and ")
    kept = [p for p in parts if "!=" in p or p.startswith("not ")]
    row = (frame.query(" and ".join(kept)) if kept else frame).head(1).copy()
    for part in parts:
        if match := re.match(r"\(?(\w+) == '([^']*)'", part):
            row[match[1]] = match[2]
        elif part.isidentifier():
            row[part] = True
    return row


def contradicted(row) -> Tables:
    """Tables in which the numbers behind the left side were changed so that a result of that kind cannot hold."""
    term = next(t for t in terms(row.left) if isinstance(t, Term))
    low, high = -1e9, 1e9
    wrong = {"<": high, "<=": high, ">": low, ">=": low, "==": high}[row.relation]

    def tables(name: str) -> pd.DataFrame:
        frame = reference(name)
        if name != term.table:
            return frame
        rows = term.rows(reference).index
        if term.how == "count":
            return frame.drop(rows) if len(rows) else pd.concat([frame, _matching(frame, term.query)])
        frame[term.column] = frame[term.column].astype(float)
        frame.loc[rows, term.column] = wrong
        return frame

    return tables


def cells() -> Iterator[tuple[str, dict]]:
    """Place and content of every cell of the notebooks."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            yield f"notebooks/{path.name}#{cell['id']}", cell


def told(cell: dict) -> str:
    """What a reader is told by a cell without computation: its text, the caption and the alternative text."""
    shown = cell["metadata"].get("mystnb", {})
    parts = [shown.get("figure", {}).get("caption", ""), shown.get("image", {}).get("alt", "")]
    return "\n\n".join(["".join(cell["source"]) * (cell["cell_type"] == "markdown"), *parts])


def place(where: str) -> str:
    """All text of a place: a cell with its code, or a file."""
    if "#" in where:
        cell = dict(cells())[where]
        return f"{''.join(cell['source'])} {told(cell)}"
    return (ROOT / where).read_text()


def texts() -> Iterator[tuple[str, str]]:
    """Place and text of what is told in chapters, in README and on the landing page."""
    yield from ((where, told(cell)) for where, cell in cells())
    yield from ((where, place(where)) for where in ("README.md", "book/index.md"))


def plain(text: str) -> str:
    """Text on one line, single spaces."""
    return " ".join(text.split())


def comparing_sentences() -> Iterator[tuple[str, str]]:
    """Sentences with a comparing word; questions and exercises ask and are left out."""
    for place, text in texts():
        if re.search(r"#(ex|exercise|solution)", place):
            continue
        for part in re.split(r"(?<=[.!?:;])\s+|\n\n+|\n(?=[-#|*])", text):
            sentence = plain(part)
            compares = TAKES_SIDES if "{glue:text}" in sentence else COMPARING
            if compares.search(sentence) and not _COUNTED.search(sentence) and not sentence.endswith("?"):
                yield place, sentence
