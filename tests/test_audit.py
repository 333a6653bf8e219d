"""The audit's checks against values worked out by hand, against brute force, and on the paper's own numbers."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest

from atsdp_utils import audit, metrics
from atsdp_utils.geo import SERIES


def row(**values):
    return SimpleNamespace(**{"dataset": "DATA3", "precision": 0.5, "recall": 0.5, "f1": 0.5, "auc": 0.5} | values)


@pytest.fixture(scope="module")
def found():
    overview, flagged = audit.run()
    return overview.set_index("check"), flagged


def test_class_sizes_are_those_of_the_loaders():
    for (name, counting), sizes in audit.CLASS_SIZES.items():
        expected = SERIES[name].expected
        strict = "holiday" in counting or (name, counting) == ("DATA4", "labelled cells")
        empty = expected.groups["culture"]["EMPTY"] if "empty" in counting else 0
        sensitive, resistant = expected.strict if strict else expected.paper
        assert sizes == (sensitive - empty, resistant)


# --- F1 ---------------------------------------------------------------------------------------------------------------
def test_f1_bound_allows_rounding_and_no_more():
    assert not audit.f1_bound(row(precision=0.6, recall=0.4, f1=0.5001)).flagged
    assert audit.f1_bound(row(precision=0.6, recall=0.4, f1=0.5002)).flagged


def test_f1_bound_holds_for_weighted_and_macro_scores_of_random_predictions():
    rng = np.random.default_rng(0)
    for _ in range(200):
        y = rng.random(40) < rng.uniform(0.1, 0.9)
        if y.all() or not y.any():
            continue
        m = metrics.classification_metrics(y.astype(int), rng.random(40))
        assert m["f1"] <= (m["precision"] + m["recall"]) / 2 + 1e-12


def test_nine_f1_values_of_tables_3_and_4_are_impossible(found):
    rows = found[1].query("check == 'f1_bound'")
    cells = {(r.where, r.dataset, r.model) for r in rows.itertuples() if r.where != "Table 1"}
    assert cells == {("Table 3", "DATA4", "ATSDP-NET"),
                     *(("Table 4", "DATA3", m) for m in ("SA", "GCN", "GAT")),
                     *(("Table 4", "DATA4", m) for m in ("SA", "CNN", "Transformer", "GCN", "GAT"))}  # fmt: skip
    assert list(rows.query("where == 'Table 1'")["dataset"]) == ["DATA4"]  # the same row as Table 3's


# --- one confusion matrix ---------------------------------------------------------------------------------------------
def test_constant_predictor_by_hand():
    exact = audit.constant_predictor(row(precision=0.25, recall=0.5, f1=0.3333))
    assert exact.flagged and exact.finding == "precision and F1 follow from the recall"
    half = audit.constant_predictor(row(precision=0.35, recall=0.5, f1=0.3333))
    assert half.flagged and half.finding.endswith("precision is off by +0.1000")
    assert not audit.constant_predictor(row(precision=0.25, recall=0.5, f1=0.34)).flagged


def test_constant_predictors_of_the_paper(found):
    rows = found[1].query("check == 'constant_predictor'")
    exact = rows[rows["finding"].str.startswith("precision")]
    assert set(zip(exact["dataset"], exact["model"], strict=True)) == {("DATA1", "DrugCell"), ("DATA3", "DeepDR")}
    assert rows.set_index(["dataset", "model"]).loc[("DATA2", "DrugCell"), "finding"].endswith("off by +0.1000")


@pytest.mark.parametrize("tp, tn", [(30, 5), (0, 20), (50, 0), (41, 17)])
def test_confusion_matrices_finds_the_one_that_made_the_scores(tp, tn):
    y = np.repeat([1, 0], (50, 20))
    p = np.r_[np.arange(50) < tp, np.arange(20) >= tn].astype(float)
    m = metrics.classification_metrics(y, p)
    assert (tp, tn) in audit.confusion_matrices(m["precision"], m["recall"], m["f1"], (50, 20))
    assert not audit.confusion_matrices(m["precision"] + 0.0071, m["recall"], m["f1"], (50, 20))


def test_one_pass_reads_table_4(found):
    rows = found[1].query("check == 'one_pass' and where == 'Table 4'")
    assert set(rows["model"]) == {"ATSDP-NET", "DeepDR", "DrugCell"}
    assert set(rows.query("model == 'ATSDP-NET'")["dataset"]) == {"DATA1", "DATA2", "DATA3", "DATA4"}
    ours = rows.query("model == 'ATSDP-NET' and dataset == 'DATA1'")["finding"].item()
    assert ours.startswith("251 of 361 sensitive, 180 of 187 resistant right")
    assert "1,419" in rows.query("model == 'ATSDP-NET' and dataset == 'DATA4'")["finding"].item()
    assert found[1].query("check == 'one_pass' and where == 'Table 3'").empty  # means are no single prediction


# --- AUC and AP -------------------------------------------------------------------------------------------------------
def test_largest_ap_by_hand():
    # Half of the sensitive cells first, half last: AUC 1/2; AP = 1/2 + integral from 1/2 to 1 of u / (u + 1).
    assert audit.ap_range(0.5, 0.5)[1] == pytest.approx(1 - np.log(2 / 1.5))


def test_least_ap_of_a_reversed_ranking():
    # AUC 0: every resistant cell first; AP = integral of u / (u + 1) = 1 - ln 2.
    assert audit.ap_range(1e-9, 0.5)[0] == pytest.approx(1 - np.log(2), abs=1e-3)


@pytest.mark.parametrize("sensitive, resistant", [(4, 4), (5, 2), (2, 5)])
def test_ap_range_holds_for_every_ranking(sensitive, resistant):
    y = np.repeat([1, 0], (sensitive, resistant))
    for order in set(permutations(y.tolist())):
        order = np.array(order)
        ap = metrics.average_precision(order.astype(bool), -np.arange(len(order), dtype=float))
        auc = np.mean([i < j for i in np.flatnonzero(order) for j in np.flatnonzero(1 - order)])
        least, most = audit.ap_range(min(max(auc, 1e-6), 1 - 1e-6), sensitive / len(order))
        # With finitely many sensitive cells AP is a sum at the right end of each step: one step more is allowed.
        assert least - 1e-3 <= ap <= most + 1 / sensitive


def test_ap_bounds_also_hold_for_means():
    auc = np.linspace(0.02, 0.98, 25)
    least, most = np.array([audit.ap_range(a, 0.4) for a in auc]).T
    assert (np.diff(least, 2) >= -1e-5).all() and (np.diff(most, 2) <= 1e-9).all()


def test_auc_and_ap_of_the_paper(found):
    rows = found[1].query("check == 'auc_and_ap'")
    assert rows.iloc[0][["where", "dataset", "model"]].tolist() == ["Table 1", "DATA4", "ATSDP-NET, smote"]
    assert rows["finding"].str.match(r"\d+% of the way").all()  # none is outside its range


def test_below_half_by_hand():
    # 162 and 162: standard error sqrt(325 / (12 * 162 * 162)) = 0.0321
    assert not audit.below_half(row(auc=0.4045)).flagged
    assert audit.below_half(row(auc=0.4030)).flagged


# --- values of one place in another ---------------------------------------------------------------------------------
def test_repeats(found):
    overview, flagged = found
    assert overview.loc["repeats_table3", ["examined", "flagged"]].tolist() == [40, 20]
    assert overview.loc["repeats_heads", ["examined", "flagged"]].tolist() == [20, 20]
    smote = flagged.query("check == 'repeats_table3' and model == 'ATSDP-NET, smote'")
    assert set(smote["dataset"]) == {"DATA1"}


def test_against_means_in_standard_deviations(found):
    ap = found[1].query("check == 'against_means' and where == 'Figure 2b' and metric == 'ap'")
    assert ap["finding"].item() == "+2.53 standard deviations from Table 3"  # (0.9431 - 0.9274) / 0.0062


def test_spread_by_hand(found):
    rows = found[1].query("check == 'spread'").set_index("dataset")
    assert rows.loc["DATA1", "expected"] == pytest.approx(np.sqrt(0.7786 * 0.2214 / 548))
    assert "DATA4" not in rows.index  # 0.0092 > 0.0089


def test_every_check_is_explained_in_two_sentences(found):
    for text in found[0]["explanation"]:
        assert text.count(". ") + text.endswith(".") == 2, text


def test_the_audit_is_the_same_twice(found):
    again = audit.run()
    assert again[0].set_index("check").equals(found[0]) and again[1].equals(found[1])
