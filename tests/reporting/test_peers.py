"""Published values of peers: files as they are described, the sweep's upper half, scores of cells beside the print."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from atsdp_utils.foundation import paths
from atsdp_utils.reporting import peers, report


def test_every_published_value_has_a_source_and_says_what_chose_it():
    table = peers.results()
    assert len(table) == 107 and table["source"].notna().all() and table["chosen_source"].notna().all()
    published = table[table["kind"] != "sweep"]
    assert len(published) == 95 and set(published["chosen_by"]) <= set(peers.CHOSEN_BY)
    assert (published["chosen_by"].eq("unknown") == published["chosen_source"].str.startswith("not stated")).all()
    assert table["auc"].dropna().between(0, 1).all() and report.tier_of("peers") == "reported"
    medians = table[table["kind"] == "sweep"]
    assert medians["training"].str.contains("better half").all()
    runs = peers.sweep().query("bulk_data == 'integrate'")
    for row in medians.itertuples():
        when = row.method.split()[-2]
        kept = runs[(runs["data"] == row.dataset.replace(" ", "")) & (runs["transfer"] == when)]
        assert kept["score"].median() == pytest.approx(row.aupr, abs=6e-4)


def test_the_sweep_holds_one_row_a_run_and_ranks_it_among_all_runs():
    runs = peers.sweep()
    assert len(runs) == 31_363 and not runs.duplicated(["data", "bulk_data", "transfer", *peers.SETTING]).any()
    for _, part in runs.groupby("data"):
        best, last = part.loc[part["score"].idxmax()], part.loc[part["score"].idxmin()]
        assert best["above"] == 0 and 0.49 < last["above"] < 0.5
        value = part["score"].median()
        assert peers.share_above(part["score"], value) == pytest.approx(0.25, abs=0.01)
    scores = pd.Series([0.9, 0.8, 0.7, 0.6])  # the kept half of eight runs
    assert peers.share_above(scores, 0.75) == 2 / 8 and peers.share_above(scores, 0.95) == 0
    assert np.isnan(peers.share_above(scores, 0.5))


def test_named_settings_meet_their_own_runs_and_no_others():
    runs = peers.sweep()
    named = peers.named_runs(runs)
    assert named.groupby("named_by")["data"].nunique().to_dict() == {"README": 6, "analysis": 6}
    met = named.dropna(subset="score")
    assert (met["bulk_named"].eq("") | met["bulk_named"].eq(met["bulk_data"])).all()
    one = met.query("data == 'GSE110894' and named_by == 'analysis' and transfer == 'after'").iloc[0]
    keys = ["data", "bulk_data", "transfer", *peers.SETTING]
    (score,) = runs.loc[(runs[keys] == one[keys]).all(axis=1), "score"]
    assert score == one["score"]
    nothing = peers.named_runs(runs.iloc[:0])
    assert len(nothing) == 13 and nothing["score"].isna().all()


def test_scores_of_cells_give_the_listed_values():
    cells, listed = peers.percell(), peers.results().query("kind == 'recomputed'")
    assert len(cells) == 1788 and cells.notna().all().all()
    assert not cells.duplicated(["drug", "cell"]).any()  # a cell is in one fold
    names = {"SCAD (retrained)": "SCAD", "SCAD + scFoundation": "SCAD+scFoundation"}
    for row in listed.itertuples():
        drug = "PLX4720_451Lu" if row.dataset.startswith("451Lu") else row.drug
        folds = cells[cells["drug"] == drug].groupby("split")
        auc = [roc_auc_score(f["sensitive"], f[names[row.method]]) for _, f in folds]
        assert np.mean(auc) == pytest.approx(row.auc, abs=6e-4)
        assert np.std(auc, ddof=1) == pytest.approx(float(row.other.split()[-1]), abs=6e-4)


def test_our_values_are_read_where_they_are_and_left_out_where_not(tmp_path):
    assert peers.own(tmp_path).empty
    table = pd.read_csv(paths.REFERENCE / "table4.csv")
    table.to_csv(tmp_path / "table4.csv", index=False)
    found = peers.own(tmp_path)
    real = table[(table["tier"] == "real") & (table["metric"] == "auc")]
    assert len(found) == len(real) > 0 and found["mean"].tolist() == real["mean"].tolist()
