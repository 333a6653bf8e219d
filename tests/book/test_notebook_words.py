"""What notebooks 07, 11, 12 and 13 say: cells that compute a sentence or table run here, on numbers made by hand."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import gdsc
from atsdp_utils.evaluation import evaluate, plus_study, stats
from atsdp_utils.experiments import tables
from atsdp_utils.experiments.task import ATSDP, Result, Task
from atsdp_utils.foundation import config, paths
from atsdp_utils.models import calibration
from atsdp_utils.own_cells import prediction
from atsdp_utils.reporting import findings, verdict

SPEC = importlib.util.spec_from_file_location(
    "labels_of_notebooks", paths.ROOT / "tests" / "book" / "test_notebook_labels.py"
)
labels = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(labels)
execute = labels.execute


def folds(strengths):
    """A result for each model on ten folds of one set."""
    y, fold, made = np.tile([0, 1], 500), np.repeat(np.arange(10), 100), []
    for i, (model, strength) in enumerate(strengths.items()):
        p = 1 / (1 + np.exp(-(strength * y + np.random.default_rng(i).normal(size=1000))))
        task = Task("A375-PLX4720", "S", model, "quick", folds=10)
        made.append(Result(task, np.arange(1000), y, p, fold, 1.0, 1))
    return made


#: a is best by far, b and c are alike on average.
THREE = {"a": 2.0, "b": 0.7, "c": 0.7}


def test_pairs_of_models_say_who_is_ahead_and_who_wins():
    from itertools import combinations

    about = {"names": ["A375-PLX4720"], "pools": evaluate.pools(["A375-PLX4720"]), "evaluate": evaluate}
    space = execute("18", ("pairs",), results=folds(THREE), nine=["a", "b", "c"], combinations=combinations, **about)
    table = space["run"].tables["baseline_pairs"].set_index(["model", "other"])
    means = evaluate.scores(folds(THREE)).groupby("model")["auc"].mean()
    for one, other in table.index:
        row = table.loc[(one, other)]
        assert row["difference"] == pytest.approx(means[one] - means[other])
        assert row["ci_low"] < row["difference"] < row["ci_high"] and row["p"] <= row["p_holm"]
    by_word = {word: counts.to_dict() for (_, word), counts in space["counted"].items()}
    assert by_word == {"above": {"a": 2}, "below": {"b": 1, "c": 1}}


def test_a_value_is_bold_only_where_one_model_beats_all_others():
    assert winners(THREE, ["a", "b", "c"]) == {"A375-PLX4720": "a"}
    assert winners(THREE, ["b", "c"]) == {}
    assert winners(THREE | {"b": 2.0}, ["a", "b", "c"]) == {}  # a is above c, and not above b


def selection(scores):
    """The table of notebook 06 on what picking the best number of heads adds, of tables of folds x settings."""
    about = {"settings": [*next(iter(scores.values()))], "own_heads": {}, "config": config, "stats": stats, "about": {}}
    return execute("06", ("selection",), scores=scores, **about)["selection"]


def test_the_best_setting_is_scored_on_folds_that_did_not_choose_it():
    found = selection({"A375-PLX4720": pd.DataFrame({2: [0.9, 0.5, 0.7], 8: [0.6, 0.9, 0.65]})}).iloc[0]
    # means .70 and .71667; without fold 0: .60 .775 -> 8; without 1: .8 .625 -> 2; without 2: .7 .75 -> 8
    assert found["best"] == "8" and found["best_mean"] == pytest.approx(2.15 / 3)
    assert found["nested"] == pytest.approx((0.6 + 0.5 + 0.65) / 3)
    assert found["optimism"] == pytest.approx(found["best_mean"] - found["nested"])
    assert found["gain_over_mean"] == pytest.approx(2.15 / 3 - 4.25 / 6)


def test_what_picking_among_equal_settings_adds_is_that_of_theory():
    """Seven settings that are the same but for noise: the best looks better by the expected maximum."""
    rng, excess, nested, equal = np.random.default_rng(2), [], [], []
    for _ in range(400):
        (found,) = selection({"A375-PLX4720": pd.DataFrame(rng.normal(0.7, 0.05, (10, 7)))}).itertuples()
        excess.append(found.best_mean - 0.7)
        nested.append(found.nested - 0.7)
        equal.append(found.gain_if_equal)
    assert np.mean(excess) == pytest.approx(stats.expected_maximum(7, 0.05 / np.sqrt(10)), rel=0.05)
    assert np.mean(equal) == pytest.approx(stats.expected_maximum(7, 0.05 / np.sqrt(10)), rel=0.05)
    assert abs(np.mean(nested)) < np.mean(excess) / 4, "the nested estimate must be nearly unbiased"


def test_ranks_over_data_sets_and_their_critical_difference():
    from itertools import combinations

    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import friedmanchisquare, studentized_range

    # Four data sets, model c always best, then b, then ATSDP-NET.
    aucs = {"ATSDP-NET": [0.1, 0.2, 0.3, 0.1], "b": [0.2, 0.3, 0.4, 0.2], "c": [0.3, 0.4, 0.5, 0.3]}
    frame = pd.DataFrame(aucs, index=list("defg")).rename_axis("dataset").reset_index()
    frame = frame.melt("dataset", var_name="model", value_name="auc").assign(protocol="S")
    drawn = []
    plots_eval = SimpleNamespace(critical_difference=lambda ax, *values: drawn.append(values))
    library = {"friedmanchisquare": friedmanchisquare, "studentized_range": studentized_range,
               "posthoc_nemenyi_friedman": posthoc_nemenyi_friedman, "combinations": combinations}  # fmt: skip
    plots = SimpleNamespace(figure=lambda *size: (None, None))
    about = {"frame": frame, "nine": [*aucs], "stand_ins": list("defg"), "plots": plots, "plots_eval": plots_eval}
    space = execute("18", ("fig-cd", "cd-counts"), **about, **library)
    ((ranks, distance, sets),) = drawn
    assert ranks.to_dict() == {"ATSDP-NET": 3, "b": 2, "c": 1} and sets == 4
    # Demsar 2006, table 5: q(0.05, 3 models) = 2.343
    assert distance == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 4)), rel=1e-3)
    glued = space["run"].glued
    # chi2 = 12 N / (k (k + 1)) * sum (mean rank - 2)^2 = 48 / 12 * 2, of two degrees of freedom
    assert glued["friedman_p"] == pytest.approx(np.exp(-4))
    assert [glued[k] for k in ("apart", "pairs_of_ranks", "place", "models_ranked")] == [1, 3, 3, 3]
    assert space["nemenyi"].loc["ATSDP-NET", "c"] < 0.05 < space["nemenyi"].loc["ATSDP-NET", "b"]


def winners(strengths, models) -> dict:
    """Sets with a winner in AUC among some models of notebook 07."""
    code, results = labels.source("07", "winners"), folds(strengths)
    space = {"evaluate": evaluate, "results": results, "frame": evaluate.scores(results)}
    exec(code[code.index("def winners") :], space)
    return space["winners"]("S", models)


def test_models_below_and_above_atsdp_are_counted_where_they_belong():
    names = ["A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib", "DATA1-sim"]
    made = [  # set, protocol, model, difference, its lower limit, p after Holm
        ("A375-PLX4720", "S", "Logistic", -0.01, -0.02, 0.01), ("A375-PLX4720", "S", "CNN", 0.03, 0.01, 0.20),
        ("A375-PLX4720", "U", tables.PC1, 0.25, 0.10, 0.02), ("SCC47-afatinib", "S", "Logistic", 0.02, 0.01, 0.01),
        ("SCC47-sorafenib", "S", "Logistic", 0.04, 0.01, 0.01), ("SCC47-afatinib", "U", tables.PC1, -0.02, -0.1, 0.9),
        ("SCC47-sorafenib", "U", tables.PC1, 0.12, -0.1, 0.9), ("DATA1-sim", "S", "Logistic", 0.01, -0.1, 0.01),
        ("DATA1-sim", "U", tables.PC1, -0.3, -0.5, 0.001), ("SCC47-afatinib", "U", "CNN", -0.4, -0.6, 0.01),
        ("A375-PLX4720", "U", "PCA+SVM", -0.5, -0.9, 0.01), ("A375-PLX4720", "U", "CNN", 0.1, -0.1, 0.5),
        ("DATA1-sim", "U", "CNN", 0.2, -0.1, 0.5),
    ]  # fmt: skip
    against = pd.DataFrame(made, columns=["dataset", "protocol", "model", "difference", "ci_low", "p_holm"])
    against = against.assign(ci_high=against["difference"] + 0.5, pairs=7, first_mean=0.24)
    against["second_mean"] = np.where(against["model"] == "CNN", 0.9, 0.6)
    about = {"names": names, "others": names[:3], "stand_ins": names[3:], "y": range(108), "eight": ["CNN"]}
    cells = ("tally-counts", "simple-range")
    seeds = [("A375-PLX4720", "auc", 0.75, 4), ("A375-PLX4720", "ap", 1.0, 4), ("DATA1-sim", "auc", 0.5, 2)]
    about["over_seeds"] = pd.DataFrame(seeds, columns=["dataset", "metric", "right", "seeds"]).assign(model=ATSDP)
    about["OURS"] = ATSDP
    glued = execute("07", cells, against=against, learning=against, tables=tables, **about)["run"].glued
    assert glued["right"] == "3 of 4 (A375-PLX4720)" and glued["u_eight_where"] == "SCC47-afatinib: 1"
    assert glued["pc1_u_p"] == 0.02
    assert [glued[f"real_s_{k}"] for k in ("tests", "below", "above")] == [3, 1, 1]
    assert [glued[f"u_eight_{k}"] for k in ("tests", "below", "above")] == [2, 1, 0]
    assert glued["first_higher"] == 1
    assert [glued[f"u_simple_first_{k}"] for k in ("tests", "below", "above")] == [2, 1, 1]
    assert [glued[f"u_simple_axis_{k}"] for k in ("tests", "below", "above")] == [2, 0, 0]
    assert [glued[f"paper_s_{k}"] for k in ("tests", "below", "above")] == [1, 0, 1]
    assert [glued[f"paper_u_{k}"] for k in ("tests", "below", "above")] == [2, 1, 0]
    assert (glued["seeds_eight"], glued["seeds_others"]) == (7, 7)
    assert (glued["axis_line_s_clear"], glued["axis_pc1_u_clear"]) == ("2 of 2", "0 of 2")
    told = " ".join(labels.text("07", "found", glued).split())
    eight = "without labels, the paper's eight models, SCC47 under both drug names (7 seeds)"
    assert f"{eight} | 2 | 1 | 0 |" in told
    assert "on A375-PLX4720 (108 cells, 7 folds) the AUC of logistic regression minus that of ATSDP-NET is" in told
    assert "is -0.010 (-0.020 to +0.490; p after Holm 0.01)" in told
    assert "PC1 minus that of ATSDP-NET on A375-PLX4720 is +0.250 (+0.100 to +0.750; p after Holm 0.02;" in told
    assert "its control among them, on A375-PLX4720 (7 seeds) | 2 | 1 | 1 |" in told
    assert "| (real) with labels, all models (SCC47 counted once) | 3 | 1 | 1 |" in told
    assert "| (simulated) paper's sets or their twins, with labels | 1 | 0 | 1 |" in told
    told = " ".join(labels.text("07", "holds", glued | dict.fromkeys(("mixed_rows", "constant_rows"), 1)).split())
    assert "+0.020 to +0.040 on the two SCC47 sets" in told and "-0.020 to +0.120 on the two SCC47 sets" in told


def test_controls_and_pairs_are_counted_for_real_cells_and_for_the_others():
    rows = [
        ("A375-PLX4720", "CNN-shuffled", "CNN", -0.2, -0.3, -0.1, 0.01),
        ("A375-PLX4720", "GCN-transductive", "GCN", 0.1, 0, 0.2, 1),
        ("DATA1-sim", "CNN-shuffled", "CNN", 0.02, -0.5, 0.5, 0.9),
        ("DATA1-sim", "GCN-transductive", "GCN", 0, 0, 0, 0.04),
        ("DATA1-sim", "ResNet18-shuffled", "ResNet18", 0.04, -0.1, 0.2, 0.9),
    ]
    columns = ["dataset", "model", "reference", "difference", "ci_low", "ci_high", "p_holm"]
    sides = {"real": ["A375-PLX4720"], "paper": ["DATA1-sim"]}
    controls = pd.DataFrame(rows, columns=columns)
    about = {"sides": sides, "others": [*sides["real"], "SCC47-sorafenib"], "stand_ins": sides["paper"]}
    about |= {"controls": controls, "pairs": controls.rename(columns={"reference": "other"})}
    glued = execute("18", ("controls-counts", "pairs-counts"), **about)["run"].glued
    assert (glued["real_pairs"], glued["real_pairs_sure"], glued["paper_pairs_sure"]) == (2, 1, 1)
    assert (glued["real_graph_away"], glued["real_shuffled_away"]) == (0, 1)
    told = labels.text("18", "controls-said", glued | {"paper_tag": "(simulated)"})
    assert "| genes shuffled (real) | -0.200 | 1 of 1 | 1 of 1 | -0.300 to -0.100 |" in told
    assert "| genes shuffled (simulated) | +0.030 | 0 of 2 | 0 of 2 | -0.500 to +0.500 |" in told
    assert "| transductive (real) | +0.100 | 0 of 1 | 0 of 1 | +0.000 to +0.200 |" in told
    assert "| transductive (simulated) | +0.000 | 0 of 1 | 1 of 1 | +0.000 to +0.000 |" in told


def test_changes_of_the_ledger_on_real_cells_are_the_largest_of_each_number():
    a, b, c = "A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib"
    rows = [(1, "AUC", 0.02, "real", a), (1, "AUC", -0.05, "real", a), (2, "AUC", 0.4, "simulated", "DATA1-sim"),
            (3, "cells", 9.0, "real", a), (5, "AUC", np.nan, "real", a), (1, "AUC", 0.01, "real", b),
            (1, "AUC", -0.03, "real", c), (4, "AUC", 0.11, "real", c)]  # fmt: skip
    ledger = pd.DataFrame(rows, columns=["ambiguity", "measure", "difference", "tier", "dataset"])
    space = execute("11", ("ledger-changes",), ledger=ledger, config=config)
    largest, units = space["largest"], [config.DATASETS[d].unit for d in (a, b)]
    assert largest[units[0]].dropna().to_dict() == {1: 0.05}
    assert largest[units[1]].dropna().to_dict() == {1: 0.03, 4: 0.11}
    assert "number 4, 0.110." in labels.text("11", "ledger-said", space["run"].glued)


def test_verdicts_are_counted_and_each_claim_stands_in_one_table():
    words = ["supported", "does not hold", "undecided", "ill-posed", "cannot be tested here", "supported"]
    claims = pd.DataFrame({"verdict": words, "made": "implied", "claim": list("abcdef")})
    columns = ["mean", "ci_low", "ci_high", "quoted", "tier", "where", "page", "note", "by_reading"]
    claims = claims.assign(**dict.fromkeys(columns, "x"), kind="claim")
    claims.loc[2, ["by_reading", "note"]] = "one: supported; other: does not hold", np.nan
    shown = []
    space = execute(
        "11", ("judge", "decided", "open"), show=shown.append, own=[], out=None,
        scorecard=SimpleNamespace(scorecard=lambda *a: claims), verdict=verdict,
        **{name: value for name, value in vars(verdict).items() if name.isupper()},
    )  # fmt: skip
    glued = space["run"].glued
    assert [glued[f"n_{k}"] for k in ("claims", "decided", "supported", "refuted", "fails")] == [6, 3, 2, 0, 1]
    assert [glued[f"n_{k}"] for k in ("undecided", "ill_posed", "untested", "missing")] == [1, 1, 1, 0]
    assert ["".join(table["claim"]) for table in shown] == ["afb", "cd", "e"]
    assert all(table.columns[0] == "verdict" for table in shown)
    assert shown[1]["note"].tolist() == ["one: supported; other: does not hold", "x; x"]


def test_answers_of_real_cells_count_each_unit_once():
    rows = [("Does attention help?", "A", "culture", "A", 0.1, 0.0, 0.2, "open"),
            ("Does attention help?", "b", "programme", "B", -0.1, -0.3, 0.0, "yes"),
            ("Does attention help?", "c", "programme", "B", 0.0, -0.1, 0.4, "no"),
            ("Else?", "A", "culture", "A", 0.3, 0.2, 0.4, "yes")]  # fmt: skip
    columns = ["question", "dataset", "label", "unit", "mean", "ci_low", "ci_high", "answer"]
    space = execute("11", ("real-answers",), real_table=pd.DataFrame(rows, columns=columns), findings=findings)
    glued = space["run"].glued
    assert [glued[f"real_{k}"] for k in ("asked", "units", "yes", "no", "open", "mixed")] == [3, 2, 1, 0, 1, 1]


def test_the_rarest_class_is_told():
    rows = [(5, "MMD", 0, 0.6, 0.2), (5, "MMD", 1, 0.8, 0.4), (5, "no MMD", 0, 0.5, 0.1), (5, "no MMD", 1, 0.7, 0.3),
            (95, "MMD", 0, 0.1, 0.9)]  # fmt: skip
    mix = pd.DataFrame(rows, columns=["percent", "setting", "seed", "auc", "called"])
    space = execute("12", ("mix-numbers",), mix=mix, mean_test=stats.mean_test)
    told = labels.text("12", "mix-said", space["run"].glued)
    assert "for 5 % sensitive cells, over 2 seeds. With MMD 30% of the cells" in told
    assert "without 20%." in told and "closer to one half MMD brings this share on the same seeds: +0.10" in told
    assert "At 5 and 95 % sensitive cells the mean share called sensitive is 20% to 90%" in told


def test_changes_of_one_step_are_counted():
    d, e = "A375-PLX4720", "SCC47-afatinib"
    rows = [(d, "as it is", 0.8, np.nan, np.nan), (d, "less", 0.6, -0.2, 0.01), (d, "no MMD", 0.9, 0.1, 0.04),
            (e, "as it is", 0.7, np.nan, np.nan), (e, "less", 0.4, -0.3, 0.01),
            (e, "no MMD", 0.6, -0.1, 0.2)]  # fmt: skip
    changes = pd.DataFrame(rows, columns=["dataset", "setting", "mean", "difference", "p_holm"])
    changes = changes.assign(ci_low=-0.5, ci_high=0.5, count=[20, 5, 6, 20, 5, 6])
    changes["p"] = [np.nan, 0.03, 0.04, np.nan, 0.01, 0.2]  # of which the first two are not told together
    space = execute("12", ("ablation-told",), changes=changes)
    told, glued = space["told"], space["run"].glued
    assert [*zip(told["dataset"], told["setting"], strict=True)] == [(d, "less"), (d, "no MMD"), (e, "less")]
    assert [glued[f"changes_{k}"] for k in ("told", "tested", "least", "up")] == [3, 4, 5, 1]
    assert glued["changes_together"] == 1
    assert [glued[f"no_mmd_{k}"] for k in (d, e)] == ["+0.100 (-0.500 to +0.500)", "-0.100 (-0.500 to +0.500)"]
    assert glued["no_mmd_told"] == 1


def test_targets_are_counted():
    asked = ("mean AUC", "sd over seeds", "above the best simple model")
    rows = [("d", t, w, r, m) for t, w, r, m in zip(asked, (0.85, 0.05, 0.9), (0.8, 0.01, 0.8), (0, 1, 0), strict=True)]
    rows += [("e", t, w, r, m) for t, w, r, m in zip(asked, (0.85, 0.05, 0.7), (0.9, 0.2, 0.9), (1, 0, 1), strict=True)]
    reached = pd.DataFrame(rows, columns=["dataset", "target", "wanted", "reached", "met"])
    score = pd.DataFrame(
        {"tier": "real", "model": "ATSDP-NET+", "mean": [0.8, 0.9], "n": 3, "ci_low": 0.7, "ci_high": 1.0}
    )
    study = SimpleNamespace(targets=lambda *a: reached)
    space = execute("12", ("targets",), plus_study=study, score=score, real=["d", "e"], about={}, TARGET_AUC=0.85,
                    TARGET_SD=0.05)  # fmt: skip
    glued = space["run"].glued
    assert [glued[k] for k in ("targets_met", "targets", "lead_sets", "lead_seeds")] == [3, 6, 2, 3]
    assert [glued["plus_low"], glued["plus_high"]] == [0.8, 0.9]


def test_coverage_is_that_of_lines_and_of_cells():
    rows = [("d", "lines", 0.9, 0.91, 0.89, 0.6, 0.01), ("d", "cells", 0.7, 0.5, 0.8, 0.4, 0.2),
            ("e", "lines", 0.9, 0.9, 0.9, 0.1, 0.3), ("e", "cells", 0.8, 0.85, 0.75, 0.2, 0.1)]  # fmt: skip
    columns = ["dataset", "asked", "coverage", "coverage_sensitive", "coverage_resistant", "both_labels",
               "ece_calibrated"]  # fmt: skip
    covered = pd.DataFrame(rows, columns=columns).assign(tier="real", ece_raw=0.15, lines_resistant=40)
    covered["lines_sensitive"] = [20, 20, 8, 8]  # of so few no rank excludes the label
    seeds = pd.DataFrame({"seed": [0, 1, 0], "dataset": ["d", "d", "e"], "asked": ["cells", "cells", "cells"],
                          "coverage_sensitive": [0.3, 0.7, 0.1]})  # fmt: skip
    about = {"coverage": seeds, "plus_study": plus_study, "calibration": calibration, "ALPHA": 0.1}
    space = execute("12", ("coverage-numbers",), covered=covered, **about)
    told = labels.text("12", "coverage-said", space["run"].glued)
    assert "promise to hold the label of 90% of each class" in told and "is *sensitive* of d, with 50.0%; every" in told
    assert (
        "covered to at least 75.0%" in told
        and "100 % whatever the score: sensitive (e) (" in told
        and "These are means of 2 trainings, and" in told
        and "single trainings cover it to 30.0% to 70.0%." in told
    )
    assert "These are 10% to 60% of the sets of lines and 20% to 40% of the sets of cells" in told
    assert (
        "than on lines, where half as many lines calibrate, for 1 of 2 data sets" in told
        and "before calibration, for 1 of 2." in told
    )


def test_drugs_told_from_chance_are_counted():
    rows = [("plain", 0.6, 0.55, 0.65, 0.01, 0.0, -0.05, 0.05), ("Logistic", 0.6, 0.45, 0.75, 0.9, 0.0, 0.0, 0.0),
            ("less", 0.5, 0.4, 0.6, 0.9, -0.1, -0.15, -0.05)]  # fmt: skip
    columns = ["candidate", "mean", "ci_low", "ci_high", "p_chance_holm", "difference", "difference_low",
               "difference_high"]  # fmt: skip
    told = pd.DataFrame(rows, columns=columns)
    space = execute("12", ("lines-numbers",), told=told, real_lines=range(13))
    text = labels.text("12", "lines-said", space["run"].glued)
    assert "Over 13 drugs ATSDP-NET (*plain*) has a mean AUC of 0.600 (0.550 to 0.650)." in text
    assert "After Holm's correction 1 of 3 models differ" in text and "excludes zero for 1 of 2 models," in text


@pytest.fixture
def own():
    """Scores of six cells in a file: half of them sensitive."""
    p = np.array([0.9, 0.8, 0.4, 0.3, 0.2, 0.6])
    found = SimpleNamespace(
        p=p, members=np.stack([p, p]), calibrated=p / 2, unlike={"mmd2": 0.3, "mmd2_lines": 0.1, "auc": 0.99},
        bulk_classes=np.array([50, 20]), facts={"held_out_auc": 0.61, "conformal_alpha": 0.1},
        metrics={"auc": 0.9, "f1": 0.7, "cells": 6, "conformal_coverage_sensitive": 0.8,
                 "conformal_coverage_resistant": 0.4},
        columns=pd.DataFrame({"atsdp_conformal": ["both"] * 3 + ["sensitive"] * 3}),
    )  # fmt: skip
    return {"found": found, "y": np.array([1, 1, 1, 0, 0, 0])}


def test_a_file_of_one_culture_is_compared_with_the_same_cells(own):
    again = SimpleNamespace(p=np.array([0.9, 0.3, 0.1]))
    glued = execute("13", ("company-glue",), again=again, alone=range(3), **own)["run"].glued
    text = labels.text("13", "company-read", glued)
    assert "Of the 3 sensitive cells 33% are called sensitive in a file of their\nown, 67% in the whole file" in text
    assert "rank correlation of\n1.00" in text
    rest = dict.fromkeys(labels.GLUED.findall(labels.source("13", "conclusion-text")))
    numbers = {name: 1 if form.endswith("d") else 0.5 for name, form in rest}
    text = labels.text("13", "conclusion-text", numbers | glued)
    assert "With seed 0, of 3 sensitive A375 cells 2 are called\n  sensitive in the whole file, and 1 of these" in text


def over_seeds(name):
    """What twenty seeds of the command reach."""
    row = {"tier": "real", "protocol": "U", "seeds": 20, "mean": 0.8, "ci_low": 0.7, "ci_high": 0.85, "sd": 0.1}
    return pd.DataFrame(row, pd.Index([name], name="dataset"))


def test_what_is_said_of_a_persons_cells_is_under_its_name(own):
    name = "A375-PLX4720"
    about = {"scores": {name: own["found"]}, "truth": {name: own["y"]}, "found": own["found"], "NAMES": [name]}
    about |= {"prediction": prediction, "paths": paths, "PROFILE": "quick"}
    about |= {"over": over_seeds(name), "single": pd.DataFrame({"min": [0.6], "max": [0.95]}, [name])}
    space = execute("13", ("scored-sets", "scored-glue"), **about)
    of = space["table"][name]
    columns = ["sensitive lines", "resistant lines", "AUC on held-out lines", "AUC of a forest, line or cell"]
    assert of[columns].tolist() == [20, 50, 0.61, 0.99]
    assert of[["called sensitive", "are sensitive", "cells"]].tolist() == pytest.approx([0.5, 0.5, 6])
    glued = space["run"].glued
    assert [glued[f"auc_plx4720{k}"] for k in ("", "_low", "_high")] == [0.8, 0.7, 0.85]
    assert [glued[f"{k}_plx4720"] for k in ("first", "least", "most")] == [0.9, 0.6, 0.95]
    assert (glued["command_seeds"], glued["ranked_sets"]) == (20, 1)
    assert (glued["n_plx4720"], glued["members"], glued["forest"]) == (6, 2, 0.99)
    rows = pd.read_csv(paths.REFERENCE / "plus_score.csv").query("dataset == 'A375-PLX4720'")
    row, pc1 = (rows[rows["model"] == model] for model in ("ATSDP-NET+", "PC1, bulk sign"))
    assert (glued["pc1_plx4720"], glued["pc1_plx4720_low"]) == (pc1["mean"].item(), pc1["ci_low"].item())
    assert glued["network_plx4720_high"] == row["ci_high"].item()
    assert glued["seeds"] == row["n"].item() and glued["network_plx4720"] == row["mean"].item()


def test_coverage_and_calibration_of_a_persons_cells_are_counted_over_all_seeds():
    names = [spec.name for spec in config.REAL]
    rows = pd.DataFrame({
        "dataset": np.repeat(names, 2), "seed": [0, 1] * 3, "coverage_sensitive": [0.95, 0.3, 0.9, 0.9, np.nan, np.nan],
        "coverage_resistant": [1.0, 1.0, 0.9, 0.95, np.nan, np.nan], "brier": [0.3, 0.2, 0.3, 0.3, 0.3, 0.3],
        "both_labels": [0.5, 0.7, 0.4, 0.6, np.nan, np.nan], "brier_calibrated": [0.4, 0.1, 0.4, 0.4, 0.4, 0.5],
    })  # fmt: skip
    aucs = pd.DataFrame(0.7, pd.RangeIndex(2), names)
    aucs.loc[1, names[0]] = 0.8
    given = {"of_seeds": rows, "aucs": aucs, "NAMES": names, "NAME": names[0], "prediction": prediction, "gdsc": gdsc,
             "about_seeds": {}, "over": pd.concat([over_seeds(name) for name in names])}  # fmt: skip
    space = execute("13", ("sets", "sets-glue"), **given)
    kept, glued = space["run"].tables["own_cells_scored"].set_index("dataset"), space["run"].glued
    assert kept.loc[names[0], ["auc", "brier", "brier_calibrated"]].tolist() == pytest.approx([0.8, 0.25, 0.25])
    text = labels.text("13", "sets-read", glued | {"command_seeds": 2})
    assert "90% of the lines of each class. Of 2 seeds 1\ncover all 4 classes of cells" in text
    assert "the least covered class of a seed is covered to\n30%" in text and "of a file 40% to 70%" in text
    assert "raises it in 5 of 6" in text
    on_it = ["A375" not in gdsc.held_out_lines(seed) for seed in (0, 1)]
    assert (glued["first_rank"], glued["line_seeds"]) == (2, sum(on_it)) and glued["with_line"] == pytest.approx(
        np.mean([auc for auc, there in zip((0.7, 0.8), on_it, strict=True) if there])
    )
