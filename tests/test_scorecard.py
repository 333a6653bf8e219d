"""Verdicts on tables made by hand: right, wrong, missing, and never from a twin; the slider; the README's block."""

import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest

from atsdp_utils import config, findings, metrics, paths, scorecard, widgets
from atsdp_utils.baselines import REGISTRY
from atsdp_utils.scorecard import FAILS, HOLDS, ILL_POSED, MISSING, UNTESTED, Outputs

CLAIMS = scorecard.claims()


def write(folder, name, rows):
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)


def a_run(folder, tier="geo", suffix=""):
    """Tables of a run in which every claim about DATA1 holds by construction."""
    d = "DATA1" + suffix
    eight = [n for n, b in REGISTRY.items() if b.paper_name]
    score = {
        "dataset": d,
        "model": "ATSDP-NET",
        "setting": "",
        "protocol": "S",
        "std": 0.01,
        "std_over": "repeats",
        "tier": tier,
    }
    write(
        folder,
        "table3",
        [
            {**score, "metric": m, "mean": v, "ci_low": v - 0.02, "ci_high": v + 0.02}
            for m, v in (("auc", 0.86), ("ap", 0.92), ("precision", 0.6))
        ],
    )
    write(
        folder,
        "table1",
        [
            {**score, "setting": s, "metric": "auc", "mean": v, "ci_low": v - 0.02, "ci_high": v + 0.02}
            for s, v in (("smote", 0.86), ("oversampling", 0.44))
        ],
    )
    write(
        folder,
        "ablation_heads",
        [
            {**score, "setting": s, "metric": "auc", "mean": v, "ci_low": v - 0.01, "ci_high": v + 0.01}
            for s, v in (("0", 0.8), ("8", 0.86), ("linear", 0.9))
        ],
    )
    write(folder, "heads_permutation", [{"dataset": d, "p_holm": 0.01}])
    write(
        folder,
        "heads_tests",
        [
            {
                "dataset": d,
                "setting": "8",
                "reference": 0,
                "metric": "auc",
                "difference": 0.06,
                "ci_low": 0.04,
                "ci_high": 0.08,
                "p_holm": 0.01,
            }
        ],
    )
    write(
        folder,
        "baselines_against_atsdp",
        [
            {
                "dataset": d,
                "model": m,
                "protocol": "S",
                "difference": -0.1 - i / 100,
                "ci_low": -0.3,
                "ci_high": -0.05,
                "p_holm": 0.01,
            }
            for i, m in enumerate(eight)
        ],
    )
    write(
        folder,
        "gene_score_correlations_cisplatin",
        [
            {"list": "sensitive", "r": 0.88, "r_low": 0.87, "r_high": 0.89, "tier": tier},
            {"list": "resistant", "r": 0.65, "r_low": 0.64, "r_high": 0.66, "tier": tier},
        ],
    )
    write(
        folder,
        "pseudotime_correlations",
        [{"root": "without labels", "with": "P(resistant)", "rho": 0.5, "ci_low": 0.4, "ci_high": 0.6, "tier": tier}],
    )
    return Outputs(folder)


def verdicts(out, data="geo"):
    return scorecard.judge_claims(out, data).set_index("id")["verdict"]


# --- the list of claims -----------------------------------------------------------------------------------------------
def test_claims_are_complete():
    assert CLAIMS["id"].is_unique and len(CLAIMS) >= 40
    assert set(CLAIMS["scope"]) == {"paper's cells", "public files", "wording"}
    decided = CLAIMS[CLAIMS["scope"] != "wording"]
    assert set(decided["rule"]) <= set(scorecard.RULES)
    assert (CLAIMS.loc[CLAIMS["scope"] == "wording", "note"] != "").all()
    assert CLAIMS["page"].str.fullmatch(r"nb-\d\d").all()
    assert set(scorecard.RULES) == set(decided["rule"])  # no rule without a claim


def test_quoted_values_are_those_of_the_tables():
    quoted = set(pd.concat([scorecard.audit.reported()["value"], scorecard.audit.reported()["std"]]).dropna().round(4))
    for c in CLAIMS[CLAIMS["rule"].isin(["within_interval", "stable", "correlation", "highest"])].itertuples():
        assert float(c.quoted) in quoted, c.id


# --- verdicts ---------------------------------------------------------------------------------------------------------
def test_claims_that_hold_by_construction(tmp_path):
    found = verdicts(a_run(tmp_path))
    for name in (
        "sampling-data1",
        "auc-range-data1",
        "stability-data1",
        "heads-data1",
        "attention-data1",
        "beats-all-data1",
        "pseudotime",
        "r8-sensitive",
        "r8-resistant",
        "sensitive-better",
    ):
        assert found[name] == HOLDS, name
    assert found["beats-all-data2"] == MISSING and found["key-genes-resistant"] == MISSING
    assert found["pre-treatment"] == ILL_POSED


@pytest.mark.parametrize(
    "table, change, claim",
    [
        ("table3", ("ci_high", 0.5), "auc-range-data1"),
        ("table3", ("std", 0.03), "stability-data1"),
        ("table1", ("mean", 0.86), "sampling-data1"),
        ("heads_permutation", ("p_holm", 0.5), "heads-data1"),
        ("heads_tests", ("p_holm", 0.06), "attention-data1"),
        ("baselines_against_atsdp", ("p_holm", 0.06), "beats-all-data1"),
        ("pseudotime_correlations", ("ci_low", -0.1), "pseudotime"),
    ],
)
def test_claims_that_do_not_hold(tmp_path, table, change, claim):
    out = a_run(tmp_path)
    rows = pd.read_csv(tmp_path / f"{table}.csv")
    rows[change[0]] = change[1]
    rows.to_csv(tmp_path / f"{table}.csv", index=False)
    assert verdicts(out)[claim] == FAILS


def test_one_repeat_does_not_decide_stability(tmp_path):
    out = a_run(tmp_path)
    pd.read_csv(tmp_path / "table3.csv").assign(std_over="folds").to_csv(tmp_path / "table3.csv", index=False)
    assert verdicts(out)["stability-data1"] == UNTESTED


def test_printed_value_inside_and_outside_the_interval(tmp_path):
    found = scorecard.judge_values(a_run(tmp_path), "geo").set_index("id")
    assert found.loc["table3-data1-atsdp-net-auc", "verdict"] == HOLDS  # 0.8578 in 0.84 to 0.88
    assert found.loc["table3-data1-atsdp-net-precision", "verdict"] == FAILS  # 0.8572, found 0.6
    assert found.loc["table3-data4-atsdp-net-f1", "verdict"] == ILL_POSED
    assert found.loc["table4-data1-gcn-auc", "verdict"] == MISSING
    assert len(found) == 40 + 20 + 180 + 20 + 5  # Tables 1, 3, 4, Figures 3 and 2b


def test_a_twin_never_decides_a_claim(tmp_path):
    out = a_run(tmp_path, tier="simulated", suffix="-sim")
    about_cells = CLAIMS.loc[CLAIMS["scope"] == "paper's cells", "id"]
    assert set(verdicts(out, "embedded")[about_cells]) == {UNTESTED}
    card = scorecard.judge_claims(out, "embedded").set_index("id").loc[about_cells]
    assert card[["mean", "ci_low", "ci_high"]].isna().all().all() and (card["tier"] == "").all()
    # Not even if a run of the tier geo finds simulated rows in its folder.
    assert not set(verdicts(out, "geo")[about_cells]) & {HOLDS, FAILS}
    values = scorecard.judge_values(out, "embedded")
    assert set(values["verdict"]) == {UNTESTED, ILL_POSED} and values["mean"].isna().all()


def test_the_words_for_twins_are_not_those_for_claims():
    assert not (set(findings.TWIN_WORDS) | set(findings.ANSWERS)) - {MISSING} & set(scorecard.VERDICTS)


def test_public_files_decide_in_every_tier(tmp_path):
    found = verdicts(Outputs(tmp_path), "embedded")
    assert found["most-imbalanced"] == FAILS  # 403 to 165 is more than 361 to 187
    assert found["resistant-rare"] == HOLDS and found["ibet-cells"] == FAILS and found["bulk-lines"] == HOLDS
    assert found["bulk-drugs"] == UNTESTED and found["evaluated-alike"] == FAILS


def test_empty_folder_says_not_computed(tmp_path):
    out = Outputs(tmp_path)
    assert set(verdicts(out)[CLAIMS.loc[CLAIMS["scope"] == "paper's cells", "id"]]) == {MISSING}
    assert set(findings.twin_checks(out)["outcome"]) == {MISSING}
    assert set(findings.real_findings(out)["answer"]) == {MISSING}
    for data in ("embedded", "geo"):
        ledger = findings.ledger_numbers(out, data)
        assert set(ledger.loc[~ledger["ambiguity"].isin([3, 6, 19]), "note"]) == {MISSING}


# --- twins and real cells ---------------------------------------------------------------------------------------------
def test_twin_outcomes(tmp_path):
    rows = [("DATA1-sim", 0.6, 0.9), ("DATA2-sim", 0.45, 0.9)]
    write(
        tmp_path,
        "table3",
        [
            {
                "dataset": d,
                "model": "ATSDP-NET",
                "setting": "",
                "protocol": "S",
                "metric": "auc",
                "mean": 0.7,
                "ci_low": a,
                "ci_high": b,
                "tier": "simulated",
            }
            for d, a, b in rows
        ],
    )
    write(
        tmp_path,
        "null_controls",
        [
            {"dataset": d, "model": "ATSDP-NET", "protocol": "U", "mean": 0.5, "ci_low": a, "ci_high": b}
            for d, a, b in (("DATA1-null-sim", 0.4, 0.6), ("DATA2-null-sim", 0.51, 0.6))
        ],
    )
    found = findings.twin_checks(Outputs(tmp_path)).set_index(["dataset", "protocol"])["outcome"]
    assert found["DATA1-sim", "S"].iloc[0] == "recovered" and found["DATA2-sim", "S"].iloc[0] == "unclear"
    assert found["DATA1-null-sim", "U"].item() == "silent" and found["DATA2-null-sim", "U"].item() == "false alarm"


def test_real_answers_by_hand(tmp_path):
    d = config.REAL[0].name
    changes = {"before transfer": (-0.1, -0.15, -0.05), "logistic regression": (0.05, 0.01, 0.09),
               "PC1, bulk sign": (0.3, 0.2, 0.4)}  # fmt: skip
    rows = [{"dataset": d, "setting": s, "difference": v, "ci_low": low, "ci_high": high}
            for s, (v, low, high) in changes.items()]  # fmt: skip
    write(tmp_path, "transfer_changes", rows)
    write(
        tmp_path,
        "baselines_against_atsdp",
        [{"dataset": d, "model": "PCA+SVM", "protocol": "S", "difference": 0.01, "ci_low": -0.02, "ci_high": 0.04}],
    )
    found = findings.real_findings(Outputs(tmp_path)).set_index(["question", "dataset"])
    gain = found.loc[("Does transfer improve on the bulk model?", d)]
    assert gain[["mean", "ci_low", "ci_high"]].tolist() == [0.1, 0.05, 0.15] and gain["answer"] == "yes"
    for rival in ("logistic regression on bulk", "PC1 with the sign of a bulk model"):
        assert found.loc[(f"Is transfer better than {rival}?", d), "answer"] == "no"
    svm = found.loc[("Is the network better than PCA + SVM?", d)]
    assert svm[["mean", "ci_low", "ci_high"]].tolist() == [-0.01, -0.04, 0.02] and svm["answer"] == "open"


@pytest.mark.parametrize(
    ("afatinib", "sorafenib", "axis"), [("yes", "yes", "yes"), ("yes", "no", "mixed"), ("open", MISSING, "mixed")]
)
def test_answers_count_units_and_not_names(tmp_path, afatinib, sorafenib, axis):
    interval = {"yes": (0.1, 0.2), "no": (-0.2, -0.1), "open": (-0.1, 0.1)}
    answers = {"A375-PLX4720": "no", "SCC47-afatinib": afatinib, "SCC47-sorafenib": sorafenib}
    rows = [{"dataset": d, "setting": "PC1, bulk sign", "difference": 0, "ci_low": -interval[a][1],
             "ci_high": -interval[a][0]} for d, a in answers.items() if a != MISSING]  # fmt: skip
    write(tmp_path, "transfer_changes", rows)
    real = findings.real_findings(Outputs(tmp_path))
    counted = findings.by_unit(real)
    assert len(counted) == 2 * real["question"].nunique() and len(real) == 3 * real["question"].nunique()
    one = counted[counted["question"].str.contains("PC1")].set_index("unit")
    assert one["answer"].to_dict() == {"A375-PLX4720": "no", "SCC47 axis": axis}
    assert one["label"].to_dict() == {"A375-PLX4720": "culture", "SCC47 axis": "programme"}


def test_readme_block_says_what_counts_once_and_has_pc1_beside_the_network(tmp_path):
    rows = [{"dataset": d, "model": m, "setting": "", "protocol": "U", "metric": "auc", "mean": v, "ci_low": v,
             "ci_high": v} for d in ("A375-PLX4720", "SCC47-afatinib")
            for m, v in (("ATSDP-NET", 0.68), ("PC1, bulk sign", 0.99))]  # fmt: skip
    write(tmp_path, "table3", rows)
    block = findings.readme_block(Outputs(tmp_path))
    assert f"| `A375-PLX4720` | real | 0.68 (0.68–0.68) | 0.99 (0.99–0.99) | {MISSING} |" in block
    assert "1 culture task (A375-PLX4720)**, 8 questions" in block and "3 tasks" not in block
    assert "1 programme axis (SCC47 axis, under the names SCC47-afatinib and SCC47-sorafenib)**, 8 questions" in block


# --- slider -----------------------------------------------------------------------------------------------------------
def test_threshold_slider():
    y, p = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.2, 0.5, 0.1])
    table = widgets.threshold_table(y, p)
    assert table[0][:2] == [3, 0] and table[50][:2] == [2, 1] and table[51][:2] == [2, 2] and table[100][:2] == [0, 2]
    assert table[50][2] == round(metrics.classification_metrics(y, p)["precision"], 4)
    page = widgets.threshold_slider(y, p, "five <cells>")
    assert "&lt;cells&gt;" in page and "five <cells>" not in page
    assert not re.search(r"https?:|src=|import ", page)  # nothing from elsewhere
    label = re.search(r'<label for="([^"]+)"', page)[1]
    assert f'id="{label}" type="range"' in page and "aria-live" in page  # a native control: keys work
    assert json.loads(re.search(r"const values = (\[\[.*?\]\]),", page)[1]) == table
    assert page == widgets.threshold_slider(y, p, "five <cells>")


# --- README -----------------------------------------------------------------------------------------------------------
def committed(folder):
    """Whether the reference run is in the checkout's history."""
    listed = subprocess.run(["git", "ls-files", str(folder)], cwd=paths.ROOT, capture_output=True, text=True).stdout
    return "table3.csv" in listed


@pytest.mark.skipif(not committed(findings.REFERENCE), reason="no reference run is committed yet")
def test_readme_is_what_the_command_writes():
    text = findings.README.read_text()
    assert text == findings.with_block(text, findings.readme_block(Outputs(findings.REFERENCE)))


def test_with_block():
    text = f"a\n{findings.BEGIN}\nold\n{findings.END}\nb\n"
    assert findings.with_block(text, "new") == f"a\n{findings.BEGIN}\nnew\n{findings.END}\nb\n"
    with pytest.raises(ValueError, match="expected the lines"):
        findings.with_block("a", "new")
