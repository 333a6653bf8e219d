"""The audit's checks against values worked out by hand, against brute force, and on the paper's own numbers."""

import re
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from atsdp_utils.data.geo import SERIES
from atsdp_utils.reporting import audit


def checked(check, **values):
    row = {"where": "", "dataset": "DATA3", "model": "", "precision": 0.5, "recall": 0.5, "f1": 0.5, "auc": 0.5}
    return audit.checked(check, pd.DataFrame([row | values])).iloc[0]


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
def test_f1_above_the_mean_allows_rounding_and_no_more():
    assert not checked("not_one_averaging", precision=0.6, recall=0.4, f1=0.5001).flagged
    assert checked("not_one_averaging", precision=0.6, recall=0.4, f1=0.5002).flagged


def test_f1_is_at_most_the_mean_with_one_averaging_and_not_with_two():
    _, averaged, _ = audit.confusion_scores(10, 30)
    precision, recall, f1 = averaged
    assert (f1 <= (precision + recall) / 2 + 1e-12).all()
    assert (f1[1] > (precision[0] + recall[0]) / 2 + 0.1).any()  # weighted F1 beside values of the sensitive class


def test_nine_f1_values_of_tables_3_and_4_are_not_of_one_averaging(found):
    rows = found[1].query("check == 'not_one_averaging'")
    cells = {(r.where, r.dataset, r.model) for r in rows.itertuples() if r.where != "Table 1"}
    assert cells == {("Table 3", "DATA4", "ATSDP-NET"),
                     *(("Table 4", "DATA3", m) for m in ("SA", "GCN", "GAT")),
                     *(("Table 4", "DATA4", m) for m in ("SA", "CNN", "Transformer", "GCN", "GAT"))}  # fmt: skip
    assert list(rows.query("where == 'Table 1'")["dataset"]) == ["DATA4"]  # the same row as Table 3's


def test_no_word_of_the_audit_calls_a_printed_number_impossible(found):
    said = " ".join([*found[0]["title"], *found[0]["explanation"], *found[1]["finding"], audit.table4_said()])
    assert not re.search(r"impossible|cannot|can not|rules? out|ill-posed", said)


# --- one confusion matrix ---------------------------------------------------------------------------------------------
def test_constant_predictor_by_hand():
    exact = checked("constant_predictor", precision=0.25, recall=0.5, f1=0.3333)
    assert exact.flagged and exact.finding == "precision and F1 follow from the recall"
    half = checked("constant_predictor", precision=0.35, recall=0.5, f1=0.3333)
    assert half.flagged and half.finding.endswith("precision is off by +0.1000")
    assert not checked("constant_predictor", precision=0.25, recall=0.5, f1=0.34).flagged


def test_constant_predictors_of_the_paper(found):
    rows = found[1].query("check == 'constant_predictor'")
    exact = rows[rows["finding"].str.startswith("precision")]
    assert set(zip(exact["dataset"], exact["model"], strict=True)) == {("DATA1", "DrugCell"), ("DATA3", "DeepDR")}
    assert rows.set_index(["dataset", "model"]).loc[("DATA2", "DrugCell"), "finding"].endswith("off by +0.1000")


def by_sklearn(sizes, right, averages):
    """Precision, recall and F1 under the three averages, and the AUC of hard calls, all from scikit-learn."""
    (n1, n0), (tp, tn) = sizes, right
    y, called = np.repeat([1, 0], (n1, n0)), np.r_[np.arange(n1) < tp, np.arange(n0) >= tn].astype(int)
    names = {"positive": "binary", "weighted": "weighted", "macro": "macro"}
    scores = (precision_score, recall_score, f1_score)
    values = [f(y, called, average=names[a], zero_division=0) for f, a in zip(scores, averages, strict=True)]
    return [*values, roc_auc_score(y, called)]


PRINTED_AS = {
    "rounding": lambda v: np.round(v, 4),
    "truncation": lambda v: np.floor(np.array(v) * 1e4) / 1e4,
    "one_unit": lambda v: np.ceil(np.array(v) * 1e4) / 1e4,
}


def as_printed(dataset, values):
    return pd.DataFrame([(dataset, *values)], columns=["dataset", *audit.SCORES, "auc"])


@pytest.mark.parametrize("right", [(0, 0), (361, 0), (0, 187), (181, 55), (360, 1)])
def test_confusion_scores_are_those_of_scikit_learn(right):
    every, averaged, balanced = audit.confusion_scores(361, 187)
    at = np.flatnonzero((every.T == right).all(axis=1)).item()
    for i, average in enumerate(audit.AVERAGES):
        expected = by_sklearn((361, 187), right, [average] * 3)
        assert [*averaged[:, i, at], balanced[at]] == pytest.approx(expected)


def test_confusion_scores_by_hand():
    # 2 of 4 sensitive and 1 of 2 resistant cells called right: 3 called sensitive, 3 called resistant.
    every, averaged, balanced = audit.confusion_scores(4, 2)
    at = np.flatnonzero((every.T == (2, 1)).all(axis=1)).item()
    assert every.shape == (2, 5 * 3) and balanced[at] == 0.5
    assert averaged[0, :, at] == pytest.approx([2 / 3, (4 * 2 / 3 + 2 * 1 / 3) / 6, 1 / 2])
    assert averaged[2, :, at] == pytest.approx([4 / 7, (4 * 4 / 7 + 2 * 2 / 5) / 6, (4 / 7 + 2 / 5) / 2])
    assert audit.confusion_scores(3, 3)[1].shape == (3, 2, 16)  # weighted and macro are one


@pytest.mark.parametrize("error_model", PRINTED_AS)
@pytest.mark.parametrize("averages", [("positive", "positive", "weighted"), ("weighted", "weighted", "weighted"),
                                      ("macro", "positive", "macro"), ("positive", "macro", "weighted")])  # fmt: skip
@pytest.mark.parametrize("counting", ["labelled cells", "without holiday cells"])
def test_the_search_finds_the_matrix_that_was_printed(counting, averages, error_model):
    sizes, right = audit.CLASS_SIZES["DATA2", counting], (143, 71)
    exact = by_sklearn(sizes, right, averages)
    found = audit.candidates(as_printed("DATA2", PRINTED_AS[error_model](exact)), 10)
    hit = found[audit.fits(found, "balanced accuracy", error_model)]
    codes = [audit.AVERAGES.index(a) for a in averages]
    ours = hit[(hit[["sensitive_right", "resistant_right"]] == right).all(axis=1) & (hit["sensitive"] == sizes[0])]
    assert (ours[[f"{m}_averaging" for m in audit.SCORES]] == codes).all(axis=1).any()
    assert hit["sensitive"].eq(sizes[0]).all()


@pytest.mark.slow
def test_error_models_tell_how_a_value_was_printed():
    exact = by_sklearn((361, 187), (181, 55), ["positive", "positive", "weighted"])  # SA on DATA1, .8 of a unit left
    for how, fitting in (("truncation", {"truncation", "one_unit"}), ("rounding", {"rounding", "one_unit"}),
                         ("one_unit", {"rounding", "one_unit"})):  # fmt: skip
        found = audit.candidates(as_printed("DATA1", PRINTED_AS[how](exact)), 10)
        fits = {m for m in audit.ERROR_MODELS if audit.fits(found, "balanced accuracy", m).any()}
        assert fits == fitting | {"ten_units"}, how


def test_a_value_one_whole_unit_above_is_not_cut_off_to_the_printed_one():
    found = pd.DataFrame({f"off_{m}": [0.0, 0.999, 1.0, -0.001] for m in (*audit.SCORES, "auc")})
    assert audit.fits(found, "balanced accuracy", "truncation").tolist() == [True, True, False, False]
    assert audit.fits(found, "balanced accuracy", "one_unit").all()
    assert audit.fits(found, "score", "rounding").tolist() == [True, False, False, True]


def test_the_auc_counts_only_where_it_is_read_as_balanced_accuracy():
    exact = by_sklearn((162, 162), (102, 98), ["positive", "positive", "weighted"])
    found = audit.candidates(as_printed("DATA3", [*np.round(exact[:3], 4), 0.9]), 10)
    assert audit.fits(found, "score", "rounding").any()
    assert not audit.fits(found, "balanced accuracy", "ten_units").any()


# --- what the search finds in the paper -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def nulls():
    return audit.averaging_nulls()


@pytest.mark.slow
def test_table_of_the_search():
    table = audit.averaging_search()
    assert list(table.columns) == [
        "where", "dataset", "model", "auc", "counting", "sensitive", "resistant", "precision_averaging",
        "recall_averaging", "f1_averaging", "sensitive_right", "resistant_right", "largest_error", "rounding",
        "truncation", "one_unit", "ten_units", "matrices"]  # fmt: skip
    assert len(table) == 2 * len(audit.printed_rows()) and set(table["auc"]) == set(audit.AUC_READINGS)
    assert ((table["rounding"] | table["truncation"]) <= table["one_unit"]).all()
    assert (table["one_unit"] == (table["largest_error"] <= audit.STEP)).all()
    assert (table["one_unit"] == (table["matrices"] > 0)).all()
    printed = audit.printed_rows().set_index(["where", "dataset", "model"])
    for r in table.dropna(subset="largest_error").itertuples():  # each row again, by scikit-learn
        ways = (r.precision_averaging, r.recall_averaging, r.f1_averaging)
        exact = by_sklearn((r.sensitive, r.resistant), (r.sensitive_right, r.resistant_right), ways)
        used = 4 if r.auc == "balanced accuracy" else 3
        off = np.abs(exact - printed.loc[(r.where, r.dataset, r.model), [*audit.SCORES, "auc"]].to_numpy())[:used]
        assert off.max() == pytest.approx(r.largest_error, abs=1e-9)


def test_rows_of_table_4_that_are_one_matrix():
    assert audit.hard_label_models() == sorted(["SA", "ResNet18", "CNN", "Transformer", "GCN", "GAT"])
    rows = audit.table4_rows()
    hard, others = (rows[rows["model"].isin(audit.hard_label_models()) == side] for side in (True, False))
    assert (len(hard), len(others)) == (24, 12) and set(hard["auc"]) == {"balanced accuracy"}
    fits, near = hard[hard["one_unit"]], hard[hard["ten_units"] & ~hard["one_unit"]]
    assert fits.groupby("dataset").size().to_dict() == {"DATA1": 5, "DATA2": 5, "DATA3": 4}
    assert (fits["truncation"].sum(), fits["rounding"].sum(), len(near)) == (8, 1, 7)
    for column, expected in (("precision", "positive"), ("recall", "positive"), ("f1", "weighted")):
        assert set(pd.concat([fits, near])[f"{column}_averaging"]) == {expected}
        assert set(others.loc[others["one_unit"], f"{column}_averaging"]) == {"weighted"}
    assert others["one_unit"].sum() == 11
    assert others.loc[~others["one_unit"], ["dataset", "model"]].values.tolist() == [["DATA2", "DrugCell"]]
    table = audit.averaging_search().query("where == 'Table 4' and auc == 'balanced accuracy'")
    assert not table.loc[~table["model"].isin(audit.hard_label_models()), "ten_units"].any()


def test_flagged_rows_of_table_4_in_the_search(found):
    flagged = found[1].query("check == 'not_one_averaging' and where == 'Table 4'")[["dataset", "model"]]
    rows = flagged.merge(audit.table4_rows())
    assert len(rows) == 8 and rows["one_unit"].sum() == 1 and rows["ten_units"].sum() == 6
    far = rows[~rows["ten_units"]].set_index("model")
    assert set(far["dataset"]) == {"DATA4"} and set(far.index) == {"GAT", "Transformer"}
    assert not audit.averaging_search().query("where == 'Table 3'")["one_unit"].any()


def test_worked_rows():
    rows = audit.table4_rows().set_index(["dataset", "model"])
    whole = ["sensitive_right", "sensitive", "resistant_right", "resistant"]
    assert rows.loc[("DATA1", "SA"), whole].tolist() == [181, 361, 55, 187]
    assert rows.loc[("DATA1", "ATSDP-NET"), whole].tolist() == [251, 361, 180, 187]
    assert rows.loc[("DATA1", "DrugCell"), whole].tolist() == [361, 361, 0, 187]  # a constant prediction


def test_nulls_have_the_freedom_of_the_search_and_no_fit_to_one_unit(nulls):
    assert list(nulls.columns) == ["rows", "models", "dataset", "auc", "averagings", "error_model", "n", "fits"]
    pooled = nulls.groupby(["rows", "models", "auc", "averagings", "error_model"])[["n", "fits"]].sum()
    shifted, printed = pooled.loc["shifted"], pooled.loc["printed"]
    assert printed.loc[("hard-label AUC", "balanced accuracy", "any", "one_unit")].tolist() == [24, 14]
    assert printed.loc[("others", "score", "one", "one_unit")].tolist() == [12, 11]
    assert shifted.loc[("hard-label AUC", "balanced accuracy", "any", "one_unit")].tolist() == [960, 0]
    assert shifted.loc[("others", "score", "one", "one_unit")].tolist() == [480, 0]
    # The free search of three scores to ten units is met by luck: the null can fail, and does where it should.
    assert shifted.loc[("others", "score", "any", "ten_units"), "fits"] > 24
    wide = nulls.pivot(index=["rows", "models", "dataset", "auc", "averagings"], columns="error_model", values="fits")
    assert (wide["rounding"] <= wide["one_unit"]).all() and (wide["one_unit"] <= wide["ten_units"]).all()
    free, one = (nulls[nulls["averagings"] == a]["fits"].reset_index(drop=True) for a in ("any", "one"))
    assert (one <= free).all()


@pytest.mark.slow
def test_the_null_finds_matrices_where_rows_are_not_shifted(monkeypatch):
    monkeypatch.setattr(audit, "SHIFT", 0.0)
    monkeypatch.setattr(audit, "COPIES", 1)
    fits = audit.averaging_nulls().pivot_table(index=["models", "dataset", "auc", "averagings", "error_model"],
                                               columns="rows", values="fits")  # fmt: skip
    assert fits["printed"].equals(fits["shifted"].rename("printed")) and fits["printed"].sum() > 0


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
        ap = average_precision_score(order, -np.arange(len(order)))
        auc = np.mean([i < j for i in np.flatnonzero(order) for j in np.flatnonzero(1 - order)])
        least, most = audit.ap_range(min(max(auc, 1e-6), 1 - 1e-6), sensitive / len(order))
        # With finitely many sensitive cells AP is a sum at the right end of each step: one step more is allowed.
        assert least - 1e-3 <= ap <= most + 1 / sensitive


def test_ap_bounds_also_hold_for_means():
    auc = np.linspace(0.02, 0.98, 25)
    least, most = np.array([audit.ap_range(a, 0.4) for a in auc]).T
    assert (np.diff(least, 2) >= -1e-5).all() and (np.diff(most, 2) <= 1e-9).all()


def test_checks_of_rankings_leave_out_the_auc_of_hard_calls(found):
    assert not set(audit.ranked_rows()["model"]) & set(audit.hard_label_models())
    examined = found[0].loc[["auc_and_ap", "below_half"], "examined"]
    assert (examined == len(audit.printed_rows()) - 24).all()
    below = found[1].query("check == 'below_half' and where == 'Table 4'")
    assert set(zip(below["dataset"], below["model"], strict=True)) == {("DATA1", "DrugCell"), ("DATA4", "DeepDR")}


def test_auc_and_ap_of_the_paper(found):
    rows = found[1].query("check == 'auc_and_ap'")
    assert rows.iloc[0][["where", "dataset", "model"]].tolist() == ["Table 1", "DATA4", "ATSDP-NET, smote"]
    assert rows["finding"].str.match(r"\d+% of the way").all()  # none is outside its range


def test_below_half_by_hand():
    # 162 and 162: standard error sqrt(325 / (12 * 162 * 162)) = 0.0321
    assert not checked("below_half", auc=0.4045).flagged
    assert checked("below_half", auc=0.4030).flagged


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


def test_the_audit_reads_the_printed_numbers_alone(found, monkeypatch):
    """One changed number changes what the checks find, in its own row and nowhere else."""
    printed = audit.reported().copy()
    row = (printed["where"] == "Table 3") & (printed["dataset"] == "DATA4") & (printed["metric"] == "f1")
    printed.loc[row, "value"] = 0.5
    monkeypatch.setattr(audit, "reported", lambda: printed)
    flagged = audit.run()[1].query("check == 'not_one_averaging'")
    before = found[1].query("check == 'not_one_averaging'")
    gone = before.merge(flagged, how="left", on=["where", "dataset", "model"], indicator=True).query("_merge != 'both'")
    assert gone[["where", "dataset"]].values.tolist() == [["Table 3", "DATA4"]] and len(flagged) == len(before) - 1
