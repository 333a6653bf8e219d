"""Every sentence that compares rests on a table, and would be noticed if the table said otherwise."""

from types import SimpleNamespace

import pandas as pd
import pytest
import statements as book

ROWS = book.statements()
RESULTS = [row for row in ROWS.itertuples() if row.kind == "result"]


def test_the_table_is_whole():
    assert ROWS.columns.tolist() == ["id", "where", "kind", "text", "left", "relation", "right"]
    assert ROWS["id"].is_unique and set(ROWS["kind"]) <= set(book.KINDS)
    assert (ROWS["relation"].ne("") == ROWS["kind"].eq("result")).all()


@pytest.mark.parametrize("row", ROWS.itertuples(), ids=ROWS["id"])
def test_the_sentence_stands_where_the_table_says(row):
    assert book.plain(row.text) in book.plain(book.place(row.where))


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: row.id)
def test_the_statement_holds(row):
    assert book.holds(row), f"{row.text}: {row.left} {row.relation} {row.right} does not hold"


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: row.id)
def test_a_changed_table_is_noticed(row):
    assert not book.holds(row, book.contradicted(row))


def test_no_comparing_sentence_is_left_out():
    known = [(row.where, book.plain(row.text)) for row in ROWS.itertuples()]
    left = [f"{place}: {s}" for place, s in book.comparing_sentences()
            if not any(place == where and (text in s or s in text) for where, text in known)]  # fmt: skip
    assert not left, "sentences that compare and are not in book/statements.csv:\n" + "\n".join(left)


def test_the_relations_are_read_as_written():
    tables = {"t": pd.DataFrame({"kind": ["a", "a", "b"], "v": [1.0, 3.0, 2.5]})}.__getitem__
    assert book.value("t[kind == 'a'].v:mean", tables) == 2
    assert book.value("t[kind == 'a'].v:max - t[kind == 'b'].v:first", tables) == 0.5
    assert book.value("t[]:count", tables) == 3
    row = SimpleNamespace(left="t[kind == 'a'].v:max", relation="<", right="t[kind == 'b'].v:max")
    assert not book.holds(row, tables)
    with pytest.raises(ValueError, match="no row"):
        book.value("t[kind == 'c'].v:max", tables)
