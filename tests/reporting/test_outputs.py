"""Rows of a run's tables that are named in text, as the files of rules name them."""

import pandas as pd
import pytest

from atsdp_utils.reporting.outputs import Missing, Outputs, numbers


@pytest.fixture
def out(tmp_path):
    rows = [("a", "geo", "", 1, 0.5), ("b", "geo", "", 2, 0.6), ("b", "real", "x", 3, 0.7)]
    pd.DataFrame(rows, columns=["gene", "tier", "setting", "n", "mean"]).to_csv(tmp_path / "t.csv", index=False)
    return Outputs(tmp_path, tier="geo")


def test_rows_are_those_of_the_tier_with_every_named_value(out):
    assert out.named("t", "gene={argument};setting=", argument="a|b")["n"].tolist() == [1, 2]
    assert out.named("t", "n=2")["gene"].tolist() == ["b"]
    for asked, said in (("gene=a|c", "no gene c"), ("setting=x", "no row"), ("list=a", "no column list")):
        with pytest.raises(Missing, match=said):
            out.named("t", asked)
    assert out.table("t", n=[1, 2])["gene"].tolist() == ["a", "b"]  # numbers are asked for as they are
    with pytest.raises(Missing, match="no n 4"):
        out.table("t", n=[1, 4])
    with pytest.raises(Missing, match="u.csv"):
        out.named("u", "gene=a")


def test_columns_may_be_arithmetic(out):
    rows = out.table("t")
    assert numbers(rows, "mean;n - 1;3") == [[0.5, 0, 3], [0.6, 1, 3]]
    assert numbers(rows, "mean.where(gene == 'a', -mean)") == [[0.5], [-0.6]]
