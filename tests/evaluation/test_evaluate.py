"""From results to tables: every fold scored, the paper's values on the right rows, tests on paired folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from atsdp_utils.evaluation import evaluate, metrics, plus_study
from atsdp_utils.experiments import grid
from atsdp_utils.experiments.task import PLUS, Result, Task
from atsdp_utils.models.plus import expit
from atsdp_utils.reporting import report


def _result(task, seed=0, n=40):
    rng = np.random.default_rng(seed)
    y = np.tile([0, 1], n // 2)
    fold = np.repeat(np.arange(max(task.folds, 1)), n // max(task.folds, 1))
    p = np.clip(0.5 + 0.2 * (y - 0.5) + 0.2 * rng.normal(size=n), 0, 1)
    return Result(task, np.arange(n), y, p, fold, seconds=1.5, parameters=10)


def _cv(dataset="DATA1-sim", repeats=2, **options):
    tasks = [
        Task(dataset, "S", "ATSDP-NET", "smoke", tuple(options.items()), folds=4, repeat=r) for r in range(repeats)
    ]
    return [_result(t, seed=r + 10 * len(str(options))) for r, t in enumerate(tasks)]


def test_scores_have_a_row_a_fold_and_a_column_an_option():
    few = _result(Task("DATA1-sim", "F", "ATSDP-NET", "smoke", (("k", 3),), seed=7))
    frame = evaluate.scores([*_cv(balance="smote"), few])
    assert len(frame) == 2 * 4 + 1
    assert frame["repeat"].tolist() == [0] * 4 + [1] * 4 + [7]
    assert frame["balance"].tolist()[:8] == ["smote"] * 8 and frame["k"].iloc[-1] == 3
    first = _cv(balance="smote")[0]
    expected = metrics.classification_metrics(first.y[:10], first.p[:10])
    assert frame.iloc[0][list(expected)].to_dict() == pytest.approx(expected)
    assert set(frame["tier"]) == {"simulated"}


def test_pooled_keeps_folds_of_different_repeats_apart():
    y, p, fold = evaluate.pooled(_cv())
    assert len(y) == len(p) == 80 and len(np.unique(fold)) == 8


def test_summary_is_a_valid_table():
    table = evaluate.summary(evaluate.scores(_cv() + _cv("A375-PLX4720")))
    report.check_tidy(table, "table3")
    assert table["tier"].unique().tolist() == ["simulated", "real"] and table["n"].unique().tolist() == [8]


def test_papers_values_stand_beside_the_papers_own_cells_alone():
    sets = ("DATA1", "DATA1-sim", "DATA3-null-sim", "DATA3-sim", "A375-PLX4720")
    table = evaluate.summary(evaluate.scores([r for d in sets for r in _cv(d)]), ["auc", "mcc"])
    found = evaluate.with_paper(table, evaluate.paper_table("table3"))
    value = found.set_index(["dataset", "metric"])["paper"]
    assert value["DATA1", "auc"] == 0.8578 and value.drop([("DATA1", "auc")]).isna().all()
    pd.testing.assert_frame_equal(found.drop(columns="paper"), table.drop(columns="paper"))
    none = evaluate.with_paper(table, evaluate.paper_table("table3"), where=table["metric"] == "mcc")
    assert none["paper"].isna().all()


def test_papers_table_one_matches_on_the_strategy():
    reported = evaluate.paper_table("table1").rename(columns={"sampling": "setting"})
    frame = evaluate.scores(_cv("DATA1")).assign(setting="smote")
    table = evaluate.summary(pd.concat([frame, frame.assign(setting="none")]), ["auc"])
    assert evaluate.with_paper(table, reported)["paper"].fillna(0).tolist() == [0.8578, 0]


@pytest.mark.parametrize("name", ["table1", "table3", "table4"])
def test_printed_values_are_rows_of_their_own_and_in_no_mean(name):
    reported = evaluate.paper_table(name).rename(columns={"sampling": "setting"})
    table = evaluate.with_paper(evaluate.summary(evaluate.scores(_cv() + _cv("A375-PLX4720"))), reported)
    both = evaluate.with_printed(table, reported)
    report.check_tidy(both, name)
    printed = both[both["tier"] == "print"]
    assert len(both) == len(table) + len(reported) and set(printed["dataset"]) == {"DATA1", "DATA2", "DATA3", "DATA4"}
    assert sorted(printed["mean"]) == sorted(reported["paper"]) and both["paper"].isna().all()
    assert printed[["n", "ci_low", "ci_high"]].isna().all(axis=None) and (printed["protocol"] == "").all()
    assert printed["std"].notna().all() == (name == "table3") and printed["setting"].notna().all()
    # What reads a protocol or a data set of a run meets none of them, and what was measured is as it was.
    first = both.head(len(table))
    pd.testing.assert_frame_equal(first.astype({"n": int}), table)
    assert not len(both.query("protocol in ['S', 'U', 'F'] and tier == 'print'"))
    means = both[both["protocol"] == "S"].groupby(["tier", "metric"])["mean"].mean()
    pd.testing.assert_series_equal(means, table.groupby(["tier", "metric"])["mean"].mean())


def test_measured_rows_are_written_as_without_the_printed_ones():
    table = evaluate.summary(evaluate.scores(_cv()))
    both = evaluate.with_printed(table, evaluate.paper_table("table3"))
    write = {"index": False, "float_format": "%.6g"}
    assert both.to_csv(**write).startswith(table.to_csv(**write))


def test_readable_keeps_order_and_leaves_out_an_unknown_spread():
    table = pd.DataFrame(
        {"dataset": ["b", "b", "a"], "metric": ["x", "y", "x"], "mean": [0.5, 1, 0.25], "std": [0.1, np.nan, 0]}
    )
    wide = evaluate.readable(table, ["dataset"])
    assert wide.index.tolist() == ["b", "a"] and wide.columns.tolist() == ["x", "y"]
    assert wide.loc["b"].tolist() == ["0.500 ± 0.100", "1.000"] and wide.loc["a", "y"] == ""


@pytest.mark.slow
def test_holm_is_of_one_pool_and_protocol_and_leaves_the_constant_out():
    sets = ["A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib", "DATA1-sim", "DATA2-sim"]
    rows = [(d, m, 0.01) for d in sets for m in ("Logistic", "CNN", "Majority")]
    table = pd.DataFrame(rows, columns=["dataset", "model", "p"])
    for protocol, sizes in (("S", [2, 2, 2, 4, 4]), ("U", [2, 4, 4, 4, 4])):
        adjusted = table.assign(p_holm=evaluate.holm(table, protocol))
        assert adjusted.loc[adjusted["model"] == "Majority", "p_holm"].isna().all()
        learned = adjusted[adjusted["model"] != "Majority"].groupby("dataset", sort=False)["p_holm"].first()
        assert learned.tolist() == pytest.approx([0.01 * n for n in sizes])


def test_an_axis_counts_once_under_s_and_its_names_are_told_under_u():
    pool, members = "SCC47 axis", ["SCC47-afatinib", "SCC47-sorafenib"]
    assert evaluate.counted(members, "S") == members[:1] and evaluate.counted(members, "U") == members
    assert evaluate.named(pool, members, "S") == "SCC47 axis (SCC47-afatinib only)"
    assert evaluate.named(pool, members, "U") == "SCC47 axis (the 2 names of one axis)"
    twins = ["DATA1-sim", "DATA2-sim"]
    assert evaluate.counted(twins, "S") == twins and evaluate.named("simulated twins", twins, "S") == "simulated twins"


def test_pools_join_no_tiers_and_count_an_axis_once():
    pools = evaluate.pools(["A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib", "DATA1-sim", "DATA2-sim"])
    assert pools == {
        "A375-PLX4720": ["A375-PLX4720"],
        "SCC47 axis": ["SCC47-afatinib", "SCC47-sorafenib"],
        "simulated twins": ["DATA1-sim", "DATA2-sim"],
    }
    assert list(evaluate.pools(["DATA1", "DATA4"]).values()) == [["DATA1", "DATA4"]]
    for members in pools.values():
        assert len({evaluate.tag(m) for m in members}) == 1
    assert (
        evaluate.tag("DATA1-sim") == "(simulated)" and evaluate.tag("DATA1") == evaluate.tag("A375-PLX4720") == "(real)"
    )


def test_a_question_of_another_notebook_keeps_its_answer_and_does_not_count_again(tmp_path):
    names = ["bulk only", "boosting", "kNN"]
    table = pd.DataFrame({"dataset": "A375-PLX4720", "protocol": ["U", "U", "U", "S"], "metric": "auc",
                          "first": [*names, "boosting"], "second": "ATSDP-NET", "p": [0.01, 0.02, 0.03, 0.04],
                          "p_holm": [0.03, 0.04, 0.04, 0.04]})  # fmt: skip
    asked = {"bulk only": ("made", "before transfer")}
    found = evaluate.one_answer(table, tmp_path, asked)
    assert found.tolist() == pytest.approx([np.nan, 0.04, 0.04, 0.04], nan_ok=True)  # not made yet: no answer
    before = pd.DataFrame({"dataset": ["A375-PLX4720", "x"], "setting": "before transfer", "protocol": "U"})
    before = before.assign(p=[0.0100001, 0.2])  # with the digits of a file
    before = pd.concat([before.assign(p_holm=[0.07, 0.5], metric="auc"), before.assign(p_holm=0.9, metric="ap")])
    before.to_csv(tmp_path / "made.csv", index=False)
    found = evaluate.one_answer(table, tmp_path, asked)
    assert found.tolist() == pytest.approx([0.07, 0.04, 0.04, 0.04])
    before.assign(p=0.011).to_csv(tmp_path / "made.csv", index=False)  # of other trainings: no answer to this question
    found = evaluate.one_answer(table, tmp_path, asked)
    assert found.tolist() == pytest.approx([np.nan, 0.04, 0.04, 0.04], nan_ok=True)
    assert table["p_holm"].tolist() == [0.03, 0.04, 0.04, 0.04]


def test_sets_of_exchangeable_cells_keep_the_promise_and_sets_of_shifted_ones_do_not(run_folders):
    """Logits of held-out lines travel with a result, through its file; cells are as the lines, or two units lower."""
    rng, task = np.random.default_rng(0), Task("A375-PLX4720", "U", PLUS, "smoke")
    y, y_lines = np.tile([0, 1], 2000).astype(np.int8), np.tile([0, 1], 200).astype(np.int8)
    z, z_lines = 2.0 * y + rng.normal(size=len(y)), 2.0 * y_lines + rng.normal(size=len(y_lines))
    found = {}
    for shift in (0.0, 2.0):
        p = expit(z - shift)
        result = Result(task, np.arange(len(y)), y, p, np.zeros(len(y), int), 1.0, 1, line_z=z_lines, line_y=y_lines)
        grid.save(result, "a" * 20)
        found[shift] = plus_study.coverage([grid.load(task, "a" * 20)], 0.1).set_index("asked")
    for asked in ("lines", "cells"):
        row = found[0.0].loc[asked]
        assert row[plus_study.BY_CLASS].between(0.85, 0.95).all() and row["ece_calibrated"] < 0.08
    shifted = found[2.0].loc["cells"]
    assert shifted["coverage_sensitive"] < 0.5 and shifted["coverage_resistant"] > 0.95
    assert found[2.0].loc["lines"].equals(found[0.0].loc["lines"])
    assert found[0.0].loc["cells", "lines_resistant"] == 200
