"""By how much company matters, on scores whose answer is known, and the ranking of drugs."""

import anndata
import cells_fixtures as shapes
import numpy as np
import pandas as pd
import pytest
from cells_fixtures import SETTINGS, Linear

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import paths
from atsdp_utils.own_cells import drugs, predict, prediction, ranking
from atsdp_utils.own_cells.cellfile import InputError


def by_first_gene(Z):
    return 1 / (1 + np.exp(-Z[:, 0]))


def test_a_part_of_one_kind_loses_its_labels_and_keeps_its_order():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5))
    X[:200, :2] += 20  # two kinds: every label rests on the other kind being there
    p = by_first_gene((X - X.mean(0)) / X.std(0))
    found = prediction.company(by_first_gene, X, p, {"patient": np.repeat([0, 1], 200)}, seed=0)
    for way in (prediction.UNLIKE, "parts by patient"):
        assert found[way]["labels_changed"] == pytest.approx(0.5, abs=0.05)
        assert found[way]["rank_correlation"] == pytest.approx(1)
    assert found[prediction.RANDOM]["most"] < 0.05
    assert "50.0%" in prediction.company_said({"x": {"labels_changed": 0.5, "most": 0.5, "rank_correlation": 1.0}})


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_score_that_reads_no_company_changes_nothing_and_small_parts_are_left_out():
    X = np.random.default_rng(0).normal(size=(60, 3))
    found = prediction.company(lambda Z: np.full(len(Z), 0.9), X, np.full(60, 0.9), {"lane": np.arange(60) < 5}, seed=0)
    assert found[prediction.RANDOM]["labels_changed"] == found[prediction.UNLIKE]["labels_changed"] == 0
    assert "parts by lane" not in found


def test_origins_leave_out_what_divides_nothing_or_everything():
    obs = pd.DataFrame({"batch": ["a", "b"] * 5, "sample": "x", "donor": range(10), "n": 1})
    assert list(prediction.origins(obs)) == ["batch"]


@pytest.mark.parametrize("name", ["dataset", "Sample_Name", "donor_uuid", "study", "GSM", "BatchID", "orig.ident"])
def test_columns_that_say_where_a_cell_comes_from(name):
    assert list(prediction.origins(pd.DataFrame({name: ["a", "b"] * 5}))) == [name]


def test_files_too_small_to_be_divided_say_so():
    X = np.random.default_rng(0).normal(size=(12, 3))
    found = prediction.company(by_first_gene, X, by_first_gene(X), {}, seed=0)
    assert not found and prediction.company_said(found).startswith("too few cells to tell")


@pytest.fixture
def linear(run_folders, monkeypatch):
    """Training replaced by a direction; counts how often it was asked for."""
    asked = []

    class Counted(Linear):
        def fit_transfer(self, X, source):
            asked.append(source)
            return super().fit_transfer(X, source)

    shapes.learn_by(monkeypatch, Counted)
    return asked


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.h5ad"
    anndata.AnnData(shapes.plain()).write_h5ad(path)
    return path


def rank(path, names, **options):
    said = []
    return ranking.rank(path, names, settings=SETTINGS, say=said.append, **options), "\n".join(said)


def test_a_ranking_goes_on_and_says_what_each_drug_rests_on(linear, mine, tmp_path):
    table, said = rank(mine, ["cisplatin", "Taxotere", "CISPLATIN"])
    assert len(linear) == len(table) == 2 and set(table.drug) == {"CISPLATIN", "DOCETAXEL"}
    again, _ = rank(mine, ["cisplatin", "docetaxel", "erlotinib"])
    assert len(linear) == 3 and len(again) == 3  # two were kept
    written = pd.read_csv(tmp_path / "mine.drugs.atsdp.csv")
    assert list(written) == list(ranking.COLUMNS) and (again.ci_low.diff().dropna() <= 0).all()
    one = again.set_index("drug").loc["CISPLATIN"]
    assert one.ci_low < one.held_out_auc < one.ci_high and one.sensitive_lines > 5 and one.logistic > 0.2
    clusters = pd.read_csv(paths.REFERENCE / "clusters_auc.csv").query("drug == 'CISPLATIN'")
    assert one.clusters_auc == pytest.approx(clusters.auc[clusters.model.str.endswith("all genes")].mean())
    y = gdsc.load_bulk("CISPLATIN").y
    counted = [one.sensitive_lines + one.held_out_sensitive, one.resistant_lines + one.held_out_resistant]
    assert counted == [(y == 1).sum(), (y == 0).sum()]
    assert one.note.startswith("only 96 of 642 training lines are sensitive (15%)")  # as the report of one drug says
    page = (tmp_path / "mine.drugs.atsdp.html").read_text()
    assert "compares no two drugs" in page and "ERLOTINIB" in page and "compares no two drugs" in said
    assert f'<td class="note" colspan="16"><span>{one.note}</span></td>' in page  # in a row of its own
    rank(mine, ["cisplatin"], seed=1, out=tmp_path / "seed1.csv")
    assert len(linear) == 4  # another seed is another training
    for kept in (paths.CACHE / "ranking").glob("ERLOTINIB-*.json"):
        kept.write_text("")  # a full disk: made again
    with pytest.warns(UserWarning, match="unreadable"):
        rank(mine, ["erlotinib"], out=tmp_path / "again.csv")
    assert len(linear) == 5


def test_a_ranking_of_few_cells_leaves_open_what_their_company_does(linear, tmp_path):
    anndata.AnnData(shapes.plain()[:12]).write_h5ad(tmp_path / "few.h5ad")
    (row,) = rank(tmp_path / "few.h5ad", ["cisplatin"])[0].itertuples()
    assert np.isnan(row.company_random) and np.isnan(row.company_unlike) and row.held_out_auc > 0


def test_a_ranking_of_other_drugs_is_never_lost(linear, mine, tmp_path):
    rank(mine, ["cisplatin", "erlotinib"])
    written = (tmp_path / "mine.drugs.atsdp.csv").read_text()
    with pytest.raises(InputError, match=r"mine\.drugs\.atsdp\.csv: holds rows of drugs .*\(CISPLATIN\), which"):
        rank(mine, ["erlotinib", "docetaxel"])
    assert (tmp_path / "mine.drugs.atsdp.csv").read_text() == written and len(linear) == 2
    table, _ = rank(mine, ["erlotinib", "docetaxel", "cisplatin"])
    assert len(table) == 3
    (tmp_path / "budget.csv").write_text("month,euros\nMay,3\n")
    with pytest.raises(InputError, match=r"budget\.csv: holds no table of this command, and is kept"):
        rank(mine, ["erlotinib"], out=tmp_path / "budget.csv")
    assert (tmp_path / "budget.csv").read_text() == "month,euros\nMay,3\n"
    earlier = tmp_path / "earlier.csv"  # of a version with fewer columns
    table.drop(columns="clusters_auc").to_csv(earlier, index=False)
    assert len(rank(mine, ["erlotinib", "docetaxel", "cisplatin"], out=earlier)[0]) == 3
    own = tmp_path / "measured.csv"  # a column of this name alone makes no table of this command
    own.write_text("drug,ic50\nERLOTINIB,0.2\n")
    with pytest.raises(InputError, match=r"measured\.csv: holds no table of this command, and is kept"):
        rank(mine, ["erlotinib"], out=own)
    assert own.read_text() == "drug,ic50\nERLOTINIB,0.2\n"


def test_a_ranking_scores_as_the_command_for_one_drug_does(linear, mine, run_folders, monkeypatch):
    monkeypatch.setattr(predict, "unlikeness", lambda *_, **__: {})
    monkeypatch.setattr(predict.embedding, "umap", lambda X, seed: np.zeros((len(X), 2)))
    monkeypatch.setattr(predict.page, "render", lambda found, y: "page")
    found = predict.predict(mine, "cisplatin", settings=SETTINGS, say=lambda _: None)
    row = rank(mine, ["cisplatin"])[0].iloc[0]
    assert row.share_sensitive == (found.p >= 0.5).mean() and row.held_out_auc == pytest.approx(
        found.facts["held_out_auc"]
    )
    among = found.facts["company"]
    assert row.company_unlike == among[prediction.UNLIKE]["labels_changed"] and among[prediction.RANDOM]["most"] < 0.5
    kept = anndata.read_h5ad(mine.with_name("mine.CISPLATIN.atsdp.h5ad")).uns["atsdp"]["company"]
    assert kept[prediction.RANDOM]["labels_changed"] == among[prediction.RANDOM]["labels_changed"]


def test_few_lines_in_an_all_but_perfect_order_are_below_a_perfect_order(linear, mine, monkeypatch):
    def one_pair_is_lost(model, X):
        y = linear[-1].y[linear[-1].test_rows]
        z = np.where(y == 1, 1.0, -1.0) - np.arange(len(y)) / 1000
        z[np.flatnonzero(y == 0)[0]] = z[y == 1].min() + 1e-4
        return z

    monkeypatch.setattr(Linear, "line_logits", one_pair_is_lost)
    row = rank(mine, ["tozasertib"])[0].iloc[0]
    assert row.held_out_sensitive == 6 and 0.998 < row.held_out_auc < 1
    assert row.ci_low == pytest.approx(0.025 ** (1 / 6))  # DeLong's would be 0.98


def test_drugs_with_too_few_lines_are_rows_that_say_so(linear, mine, monkeypatch):
    monkeypatch.setattr(predict, "MIN_LINES", 10_000)
    table, _ = rank(mine, ["cisplatin"])
    assert "training lines of the rarer class" in table.note[0] and np.isnan(table.held_out_auc[0]) and not linear


def test_all_is_every_drug_and_a_typing_error_is_told():
    assert drugs.find(["all"]) == gdsc.drugs()
    with pytest.raises(InputError, match="Did you mean"):
        drugs.find(["cisplatin", "erlotinb"])
