"""Pages of the book: names of code resolve, every equation has its place, the opening says what the tables say."""

import importlib
import re
from collections import defaultdict
from itertools import product

import numpy as np
import pandas as pd
import pytest

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting.outputs import Missing, Outputs
from atsdp_utils.reporting.verdict import MISSING
from book import build, opening

NOTATION = (paths.BOOK / "notation.md").read_text()
CODE = re.findall(r"\| `([\w.]+)` \|", NOTATION)


@pytest.mark.parametrize("name", CODE)
def test_code_that_the_page_of_notation_names_is_there(name):
    """Longest importable front of a dotted name, then its attributes."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(["atsdp_utils", *parts[:i]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[i:]:
            thing = getattr(thing, attribute)
        return
    raise AssertionError(f"no module of {name}")


def test_every_equation_has_its_place():
    places = re.findall(
        r"(?m)^\| ([\d–, ]+) \|", NOTATION.partition("## Equation to code")[2].partition("| section")[0]
    )
    numbers = []
    for place in ", ".join(places).split(", "):
        first, _, last = place.partition("–")
        numbers += range(int(first), int(last or first) + 1)
    assert sorted(numbers) == list(range(1, 18))


@pytest.mark.parametrize(("page", "mark"), [("index", "{{FOUND}}"), ("index", "{{WORKFLOW}}"), ("faq", "{{MORE}}")])
def test_the_pages_ask_for_what_is_computed(page, mark):
    assert mark in (paths.BOOK / f"{page}.md").read_text()


@pytest.mark.parametrize(
    ("remote", "linked"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b/issues"),
        ("git@example.org:a/b.git", "https://example.org/a/b/issues"),
        ("/somewhere/else", None),
        ("", None),
    ],
)
def test_only_a_public_address_is_linked(remote, linked, monkeypatch):
    answer = type("Answer", (), {"stdout": remote + "\n"})
    monkeypatch.setattr(build.subprocess, "run", lambda *a, **k: answer)
    said = build._repository()
    assert (linked in said) if linked else "without a public address" in said


# --- the opening of README and book -----------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path):
    """Made-up tables with values that no other place has."""

    def write(name, **columns):
        pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)

    on = ["tasks of the networks"] * 3
    models = ["ATSDP-NET", "ATSDP-NET, bulk only", "a simple one"]
    write("clusters_auc", cluster=[0, 1, 0, 4], model="ATSDP-NET")
    write(
        "clusters_mean",
        model=models,
        mean=[0.41, 0.42, 0.43],
        ci_low=[0.1] * 3,
        ci_high=[0.9] * 3,
        tasks=[7] * 3,
        on=on,
    )
    write("clusters_differences", model=["ATSDP-NET", "ATSDP-NET", "ATSDP-NET, bulk only", "ATSDP-NET"],
          against=["ATSDP-NET, bulk only", "a simple one", "a simple one", "ATSDP-NET, further steps only"],
          difference=[-0.9, -0.02, 0.3, 0.05], ci_low=[-1, -0.04, 0.2, 0.04], ci_high=[0, 0.01, 0.4, 0.06],
          p_holm=[0.08, 0.3, 0.002, 0.01],
          tasks=[7] * 4, drugs=[5] * 4, on=[*on, on[0]])  # fmt: skip
    names = [s.name for s in config.REAL]
    afatinib, sorafenib = (n for n in names if n.startswith("SCC47"))
    write("heads_tests", metric=["auc"] * 6 + ["f1"], first_mean=[1] + [0.5] * 6,
          second_mean=[1, 0.98, 0.99, 0.1, 0.1, 0.1, 0.1], difference=[0.1, 0.2, 0.3, -0.1, 0.1, 0.1, 0.1],
          p_holm=[0.01, 0.01, 0.02, 0.04, 0.5, 0.01, 0.01], setting=["1", "1", "1", "1", "2", "linear", "2"],
          dataset=["A375-PLX4720", afatinib, sorafenib, "DATA1-sim", *["DATA2-sim"] * 3])  # fmt: skip
    write("drugs_on_real_sets", drug=["a", "b", "c"] * 6, draw=[-1] * 9 + [0] * 9,
          auc=[0.9, 0.8, 0.7] * 3 + [0.9, 0.1, 0.7] * 3, dataset=sorted(names * 3) * 2,
          is_right=[False, True, False] * 6)  # fmt: skip
    write("drugs_on_real_sets_rank", dataset=sorted(names), rank=[2] * 3, rank_low=[1] * 3, rank_high=[2.6] * 3)
    write("drugs_on_real_sets_network", drug=["a", "b", "c"] * 3, draw=[-1] * 9, auc=[0.9, 0.1, 0.7] * 3,
          dataset=sorted(names * 3), is_right=[False, True, False] * 3)  # fmt: skip
    write("ccle_drugs_rank", drug=list("abcd"), auc=[0.9, 0.2, 0.7, 0.6], rank=[1, 3, 1, 2], models=[8] * 4,
          outranked=[1.0, 0.0, 1.0, 0.5])  # fmt: skip
    names = ["A375-PLX4720"] * 2 + ["DATA4-sim"] * 3
    write("gene_score_wrong_labels", wrong=[0.1, 0.1, 0.1, 0.3, 0.4], r=[0.95, 0.92, 0.9, 0.61, np.nan], draws=100,
          dataset=names)  # fmt: skip
    return Outputs(tmp_path)


def test_the_opening_says_what_the_tables_say(tables):
    clusters = opening.held_out_clusters(tables)
    assert clusters["difference"] == "-0.020 (-0.040 to +0.010)" and clusters["best_name"] == "a simple one"
    assert clusters["sides"] == "neither significantly better nor worse than a simple one or than before transfer"
    assert (clusters["difference_p"], clusters["start_p"]) == ("0.3", "0.002")
    assert clusters["aligned"] == "+0.050 (+0.040 to +0.060)"
    assert (clusters["start"], clusters["clusters"]) == ("+0.300 (+0.200 to +0.400)", 3)
    assert clusters["atsdp"].startswith("0.41") and clusters["best"].startswith("0.43") and clusters["tasks"] == 7
    # The two names of SCC47 are one unit: two real comparisons, of which both favour attention. A linear layer is none.
    assert opening.attention(tables) == {
        "tiers": "2 are on real and 2 are on simulated",
        "kinds": "real and simulated",
        "all": 4,
        "favour": 2,
        "against": 1,
        "without_low": 0.98,
        "without_high": 1,
        "linear": 1,
        "linear_told": 1,
        "perfect": 1,
    }
    ranks = opening.right_drug(tables)
    assert (ranks["drugs"], ranks["first_of"], ranks["names"]) == (3, 0, 3)
    assert (ranks["ccle_first"], ranks["ccle_drugs"], ranks["ccle_outranked"]) == (2, 4, 0.625)
    assert (ranks["ccle_firsts"], ranks["ccle_chance"], ranks["ccle_auc"]) == ("a, c", 0.5, pytest.approx(0.6))
    assert ranks["ranks"].count("2 (") == len(config.REAL)
    null = "with permuted labels its rank is as good or better in 0, its AUC as high or higher in 0 of 1 draws)"
    assert ranks["ranks"].count(f", AUC 0.80; a is first; {null}") == len(config.REAL)
    assert ranks["network"].count("3 (") == len(config.REAL) == ranks["own"].count(" 2 (1–3)")
    spans = "A375-PLX4720 0.92 with 10%; DATA4-sim 0.90 with 10%, 0.61 with 30%"
    assert opening.gene_scores(tables) == {"spans": spans, "few": 0.9, "kinds": "real and simulated", "draws": 100}


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "word"),
    [
        (0.01, 0.2, 0.04, "better"),
        (-0.2, -0.01, 0.04, "worse"),
        (-0.1, 0.1, 0.9, "neither significantly better nor worse"),
        (0.01, 0.2, 0.06, "neither significantly better nor worse"),
    ],
)
def test_a_lead_takes_its_side_from_the_corrected_test(tables, low, high, p_holm, word):
    path = tables.folder / "clusters_differences.csv"
    pd.read_csv(path).assign(ci_low=low, ci_high=high, p_holm=p_holm).to_csv(path, index=False)
    said, _ = opening.sentences({"quick": tables}, str, (opening.held_out_clusters,))
    assert f"ATSDP-NET ranks them {word} than a simple one or than before transfer**" in said


def test_a_lead_without_a_corrected_test_is_none(tables):
    path = tables.folder / "clusters_differences.csv"
    for found in (pd.read_csv(path).assign(p_holm=np.nan), pd.read_csv(path).drop(columns="p_holm")):
        found.to_csv(path, index=False)
        assert MISSING in opening.sentences({"quick": tables}, str, (opening.held_out_clusters,))[0]


def test_a_lead_names_both_sides_where_they_differ(tables):
    path = tables.folder / "clusters_differences.csv"
    found = pd.read_csv(path).assign(ci_low=-0.3, ci_high=-0.1)
    found["p_holm"] = np.where(found["against"] == "ATSDP-NET, bulk only", 0.001, 0.2)
    found.to_csv(path, index=False)
    said, _ = opening.sentences({"quick": tables}, str, (opening.held_out_clusters,))
    assert "neither significantly better nor worse than a simple one, and worse than before transfer**" in said


def test_five_labelled_cells_count_the_sets_on_which_the_difference_is_told(tables):
    low = {"A375-PLX4720": 0.1, "SCC47-afatinib": -0.1, "SCC47-sorafenib": 0.2, "DATA1-sim": -0.5, "DATA2-sim": -0.5}
    rows = [{"dataset": name, "tier": config.DATASETS[name].tier, "k": k, "first_mean": 0.9, "second_mean": 0.8,
             "difference": 0.1, "ci_low": at - (k == 1), "ci_high": at + 0.2 * (k > 1), "pairs": 4,
             "p_holm": 0.2 if name == "SCC47-sorafenib" else 0.01}
            for name, at in low.items() for k in (1, 5)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables.folder / "few_shot_paired.csv", index=False)
    said = opening.few_labels(tables)
    assert said["aucs"].startswith("A375-PLX4720 0.900 and 0.800, SCC47-afatinib")
    assert said["differences"].startswith("+0.100 (+0.100 to +0.300) (A375-PLX4720), +0.100 (-0.100 to")
    assert (said["ks"], said["better"], said["worse"]) == ("1 and 5", "0 and 1", "1 and 0")
    # The interval of SCC47-sorafenib leaves out zero, too, but Holm's correction does not leave it standing.
    assert said["named"] == "It is better on A375-PLX4720 with 5, worse on SCC47-afatinib with 1. "
    assert (said["k"], said["names"], said["draws"]) == (5, 3, 4)


def test_findings_of_a_run_on_the_papers_own_cells_speak_of_no_twin(tables):
    names = ["A375-PLX4720", "DATA1"]
    few = {"first_mean": 0.9, "second_mean": 0.8, "difference": 0.1, "ci_low": 0.1, "ci_high": 0.2, "pairs": 4}
    rows = [few | {"dataset": name, "tier": "real", "k": k, "p_holm": 0.01} for name in names for k in (1, 5)]
    pd.DataFrame(rows).to_csv(tables.folder / "few_shot_paired.csv", index=False)
    path = tables.folder / "gene_score_wrong_labels.csv"
    pd.read_csv(path).replace("DATA4-sim", "DATA4").to_csv(path, index=False)
    said, _ = opening.sentences({"quick": tables}, str, (opening.few_labels, opening.gene_scores))
    assert "twin" not in said and "simulated" not in said and "; DATA4 0.90 with 10%" in said and MISSING not in said


def test_the_table_of_real_cells_holds_differences_and_stars_those_told_from_zero(tables):
    after, against = "after transfer", ("further steps on bulk", "before transfer", "PC1, bulk sign")
    scores = [{"dataset": s.name, "setting": k, "auc_mean": 0.5, "ci_low": 0.4, "ci_high": 0.6,
               "right": 0.75, "auc_count": 20}
              for s in config.REAL for k in (after, *against, "logistic regression")]  # fmt: skip
    scores += [{**scores[0], "dataset": s.name, "setting": "after transfer, regulariser as printed", "auc_mean": mean}
               for s, mean in zip(config.REAL, (0.47, 0.52, 0.49), strict=True)]  # fmt: skip
    changes = [{"dataset": s.name, "setting": k, "mean": 0.5 + i / 10, "difference": -0.1, "ci_low": -0.3,
                "ci_high": 0.2, "p_holm": 0.04 if s == config.REAL[1] and i < 2 else 0.06, "seeds": 9}
               for s in config.REAL for i, k in enumerate(against)]  # fmt: skip
    logistic = [r | {"setting": "logistic regression", "p_holm": 0.01} for r in changes[::3]]
    parts = list(opening.PARTS.values())
    changes += [{**r, "setting": part, "difference": 0.01, "p_holm": 0.04 if i else 1}
                for part, (i, r) in product(parts, enumerate(changes[::3]))]  # fmt: skip
    sizes = [{"dataset": s.name, "sensitive": 3, "resistant": 4} for s in config.REAL]
    next(r for r in changes if r["p_holm"] < 0.05 and r["setting"] == against[1])["difference"] = 0.1
    changes += [r | {"difference": 0.3, "ci_low": 0.1, "ci_high": 0.4} for r in logistic[:1]] + logistic[1:]
    drift = [
        {"dataset": s.name, "first": against[0], "difference": i / 10, "ci_low": -0.2, "ci_high": 0.3}
        for i, s in enumerate(config.REAL)
    ]
    drift.append({**drift[0], "first": "after transfer, no regulariser", "difference": 9.0})
    for name, rows in (("transfer", scores), ("transfer_changes", changes), ("class_sizes", sizes),
                       ("control_changes", drift)):  # fmt: skip
        pd.DataFrame(rows).to_csv(tables.folder / f"{name}.csv", index=False)
    mean = {"dataset": [config.REAL[0].name], "protocol": ["U"], "list": ["sensitive"], "auc": [0.8765]}
    pd.DataFrame(mean).to_csv(tables.folder / "gene_scores_real.csv", index=False)
    shares = {"dataset": [s.name for s in config.REAL], "of_cluster": [0.9, 0.8, 0.95]}
    pd.DataFrame(shares).to_csv(tables.folder / "cluster_labels.csv", index=False)
    plain = {"protocol": "U", "metric": "auc"}
    plain = [plain | {"dataset": s.name, "setting": how, "ci_low": 0.4 + 0.2 * (how != "none" or i > 1),
                      "right": 0.5 + 0.2 * (how != "none"), "n": 10}
             for i, s in enumerate(config.REAL) for how in ("none", "smote")]  # fmt: skip
    pd.DataFrame(plain).to_csv(tables.folder / "table1.csv", index=False)
    of_sets = [{"dataset": s.name, "model": model, "own_mean": 0.7, "permuted_mean": 0.4 if i == 0 else 0.75,
                "own_distance": 0.2, "seeds": 2, "permuted_distance": 0.3 if i == 0 else 0.25,
                "draws_that_reach_own_mean": (1 if i == 0 else 2) * (model == "ATSDP-NET")}
               for i, s in enumerate(config.REAL) for model in ("ATSDP-NET", "PC1, bulk sign")]  # fmt: skip
    pd.DataFrame(of_sets).to_csv(tables.folder / "permuted_labels_summary.csv", index=False)
    said = opening.single_cells(tables)
    assert said["null_reached"] == "1 (A375-PLX4720), 2 (SCC47-afatinib), 2 (SCC47-sorafenib)"
    assert (said["null_draws"], said["null_far"][:20]) == (2, "0.30 (A375-PLX4720),")
    assert (said["cluster_low"], said["cluster_high"]) == (0.8, 0.95)
    name = config.REAL[1].name
    steps, before, component = opening.CALLED.values()
    sides = (f"better than {steps} on 1 of 3 data sets ({name})", f"better than {before} on 0",
             f"worse than {before} on 1 ({name})", f"better than {component} on 0")  # fmt: skip
    assert said["counted"] == f"significantly {', '.join(sides)}"
    assert said["aucs"].startswith("A375-PLX4720 0.50 and 0.50, ")
    assert said["moves"].startswith("+0.000 (-0.200 to +0.300) on A375-PLX4720, +0.100 (-0.200 to +0.300) on SCC47")
    assert said["averaged"] == "0.876 (A375-PLX4720)"
    # Eight comparisons with transfer and those of the control on each set; two names of one axis are a family.
    assert said["family"] == "10 on A375-PLX4720, 18 on SCC47 axis"
    assert said["printed_aucs"].startswith("0.50 (A375-PLX4720), ") and said["no_regulariser_told"] == 2
    eight = [name for name, b in REGISTRY.items() if b.paper_name]
    against = [{"dataset": s.name, "protocol": "U", "metric": "auc", "model": model, "difference": 0.1 * (i - 1),
                "p_holm": 0.01 if i == 0 and model != eight[0] else 0.2 if i else 0.06}
               for i, s in enumerate(config.REAL) for model in (*eight, "kNN")]  # fmt: skip
    against[-2] |= {"difference": 0.3, "p_holm": 0.01}
    against = pd.DataFrame(against)
    against["ci_low"], against["ci_high"] = against["difference"] - 0.05, against["difference"] + 0.05
    against.to_csv(tables.folder / "baselines_against_atsdp.csv", index=False)
    lines = {"setting": after, "trains_on_it": [True, False], "mean": [0.8, 0.3], "count": [13, 7]}
    pd.DataFrame(lines).to_csv(tables.folder / "own_line.csv", index=False)
    rivals = [{"dataset": s.name, "first": f"{model} without {k}", "second": model, "p_holm": p, "difference": -0.0874}
              for s, p in zip(config.REAL, (0.01, 0.06, 0.05), strict=True) for model in ("ATSDP-NET", "PC1")
              for k in ("growth", "depth")]  # fmt: skip
    pd.DataFrame(rivals).to_csv(tables.folder / "rivals_changes.csv", index=False)
    with pytest.raises(Missing, match="tuning_choices"):  # the sentence says that the eight were searched
        opening.short(tables)
    searched = pd.DataFrame({"protocol": ["S", "U"], "model": "SA", "tried": [3, 2]})
    searched.to_csv(tables.folder / "tuning_choices.csv", index=False)
    short = opening.short(tables)
    assert short["null_reached"] == said["null_reached"] and short["tried"] == 2
    assert said["null_mean"][:22] == "0.40 (A375-PLX4720), 0" and said["own_far"][:20] == "0.20 (A375-PLX4720),"
    assert [short[k] for k in ("eight", "eight_better", "eight_worse")] == [24, 7, 1]
    assert short["eight_by"].startswith("7 of 8 on A375-PLX4720, 0 of 8 on SCC47-afatinib, ")
    assert [short[k] for k in ("above", "names", "turned", "runs", "pc1_above")] == [0, 3, 15, 60, 0]
    assert (short["printed_low"], short["printed_high"]) == (0.47, 0.52)
    assert short["plain"] == {"above": 1, "names": 3, "runs": 30, "turned": 15}
    assert (short["own_line"]["with"]["count"], short["own_line"]["without"]["mean"]) == (13, 0.3)
    better, worse = ({k: int(n) for k, n in short[side].items()} for side in ("better", "worse"))
    assert better == dict(zip((*opening.CALLED, "logistic regression"), (1, 0, 0, 2), strict=True))
    assert worse == dict(zip((*opening.CALLED, "logistic regression"), (0, 1, 0, 1), strict=True))
    assert (short["rivals_told"], short["rivals_asked"]) == (2, 6)
    assert short["rivals"] == "-0.087 without growth on A375-PLX4720, -0.087 without depth on A375-PLX4720"
    assert short["null_pc1"] == "0 (A375-PLX4720), 0 (SCC47-afatinib), 0 (SCC47-sorafenib)"
    assert said["no_mmd"].startswith("+0.010 (-0.300 to +0.200) on A375-PLX4720, +0.010") and said["no_mmd_told"] == 2
    first, second, third = said["rows"].split("\n  ")
    assert first.startswith("| A375-PLX4720, 7, 9 | 0.50 (0.40–0.60) | 0.50 (0.40–0.60) | +0.100 (-0.200 to +0.300) |")
    assert r"+0.300)\* |" in second and "*" not in first + third


def test_what_is_missing_says_so(tables):
    assert len(opening.FIRST) <= 5
    assert [f.__name__ for f in (*opening.FIRST, *opening.MORE)] == list(opening.SENTENCES)
    runs = {"quick": tables}
    parts = (opening.sentences(runs, lambda number: f"<{number}>", of)[0] for of in (opening.FIRST, opening.MORE))
    said = [line for line in "\n".join(parts).splitlines() if line.startswith("- ")]
    assert len(said) == len(opening.SENTENCES)
    missing = [line for line in said if MISSING in line]
    assert [line.partition("**. ")[2] for line in missing] == [f"{MISSING} (<{n}>)" for n in ("04", "12")]
    assert "{" not in "".join(said)


def test_a_finding_is_that_of_the_first_run_which_has_its_tables_and_says_so(tables, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    heads = pd.read_csv(tables.folder / "heads_tests.csv").assign(second_mean=0.123)
    heads.to_csv(first / "heads_tests.csv", index=False)
    (tables.folder / "found.svg").write_text("<svg/>")
    runs = {"paper": Outputs(first), "quick": tables}
    said, used = opening.sentences(runs, str)
    by_title = {line.split("**")[1].partition(" (")[0]: line for line in said.splitlines() if line.startswith("- ")}
    assert said.count("<details>") == said.count("</details>") == 3
    assert "(06; profile `paper`)" in by_title["Attention"] and "0.123" in by_title["Attention"]
    assert "(16; profile `quick`)" in by_title["The right drug among all drugs"]
    assert used == ["paper", "quick"] and opening.drawing(runs, "found") == tables.folder / "found.svg"
    text = opening.opening(runs, pd.Series(["cannot be tested here"]), str, str)
    amounts = [line for line in text.splitlines() if line.startswith("- `")]
    assert [line.partition("`:")[0] for line in amounts] == ["- `paper", "- `quick"]
    assert f"{config.profile('paper').repeats} times" in amounts[0]
    assert "The picture is of profile `quick`." in text
    (first / "found.svg").write_text("<svg/>")
    assert "The picture is of profile `paper`." in opening.opening(runs, pd.Series(["x"]), str, str)
    assert "The picture" not in opening.opening({"quick": tables}, pd.Series(["x"]), str, str)


@pytest.mark.parametrize(
    ("data", "profile", "own"),
    [
        ("embedded", "smoke", None),
        ("embedded", "quick", "quick"),
        ("embedded", "paper", "paper"),
        ("geo", "smoke", "smoke"),
    ],
)
def test_the_committed_runs_stand_in_for_profiles_that_this_run_is_not_of(data, profile, own):
    runs = opening.runs(data, profile)
    committed = {"quick": paths.REFERENCE, "paper": paths.PUBLISHED}
    assert list(runs) == (list(committed) if data == "embedded" else [profile])
    for name, out in runs.items():
        assert out.folder == (paths.figures_dir(data, profile) if name == own else committed[name])


#: What the summary says of the first run, a number for each of its fields and for what a field has under a key.
FIELDS = {*re.findall(r"{(\w+)", (opening.TEMPLATES / "in_short.md").read_text(encoding="utf-8"))}
NUMBER = defaultdict(lambda: 0.0)
SHORT = dict.fromkeys(FIELDS - {"larger", "permuted", "explained"}, 0.0)
SHORT |= dict.fromkeys(["better", "worse", "plain"], NUMBER) | {"own_line": {"with": NUMBER, "without": NUMBER}}


def test_what_paper_reaches_without_labels_is_told_where_it_was_run(tmp_path, monkeypatch):
    names = [spec.name for spec in config.REAL]
    rows = {"dataset": names, "setting": "after transfer", "auc_count": 20, "auc_mean": [0.57, 0.97, 0.82],
            "ci_low": [0.36, 0.94, 0.67], "ci_high": [0.78, 1.0, 0.97], "right": [0.5, 1.0, 0.8]}  # fmt: skip
    rows = pd.DataFrame(rows)
    pd.concat([rows, rows.assign(setting="no MMD", ci_low=0.9)]).to_csv(tmp_path / "transfer.csv", index=False)
    minus = [{"dataset": name, "setting": setting, "difference": d, "ci_low": d - 0.1, "ci_high": d + 0.1, "p_holm": p}
             for setting, of in {"further steps on bulk": [(0.1, 1), (-0.46, 0.001), (-0.1, 0.3)],
                                 "before transfer": [(0, 1), (-0.3, 0.2), (-0.1, 1)],
                                 "PC1, bulk sign": [(0.4, 0.004), (0, 1), (0.1, 0.8)],
                                 "after transfer, no regulariser": [(-0.1, 1), (-0.2, 0.01), (-0.1, 0.04)]}.items()
             for name, (d, p) in zip(names, of, strict=True)]  # fmt: skip
    pd.DataFrame(minus).to_csv(tmp_path / "transfer_changes.csv", index=False)
    line = {"setting": "after transfer", "trains_on_it": [True, False], "mean": [0.7, 0.3], "count": [13, 7]}
    pd.DataFrame(line).to_csv(tmp_path / "own_line.csv", index=False)
    monkeypatch.setattr(opening, "short", lambda out: SHORT)

    def said(of_runs):
        return opening.opening(of_runs, pd.Series(["supported"]), "chapter {}".format, lambda drawn: "")

    told = said({"quick": Outputs(tmp_path / "none"), "paper": Outputs(tmp_path)})
    assert "the mean AUC is 0.57 (0.36–0.78) on A375-PLX4720, 0.97 (0.94–1.00) on SCC47-afatinib, 0.82 (0.67" in told
    assert "above one half on 2 of 3 sets, and 14 of 60 trainings rank the cells backwards" in told
    assert "0.70 over the 13 seeds that train on this line and 0.30 over the 7 that do not. Transfer" in told
    assert "Transfer is significantly better than the control on 1 of 3 data sets (SCC47-afatinib), better than" in told
    assert "before transfer on 0, better than PC1 on 0, worse than PC1 on 1 (A375-PLX4720);" in told
    assert "changes the AUC significantly on 2 of 3." in told
    for elsewhere in ({"smoke": Outputs(tmp_path)}, {"paper": Outputs(tmp_path / "none")}):
        assert "**In short.** Profile" in said(elsewhere) and "longer training" not in said(elsewhere)
