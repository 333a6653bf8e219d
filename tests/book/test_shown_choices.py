"""What is shown under a name is what the name says: ablations, rows of the ledger, colours of series and classes."""

import dataclasses
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.evaluation import plus_study
from atsdp_utils.experiments import keys, tables
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, NO_TRANSFER, PLUS, Task, build
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import findings, outputs, plots, plots_biology

SPEC = config.DATASETS["A375-PLX4720"]


# --- ablations and lists of trainings ---------------------------------------------------------------------------------


def _built(model, setting):
    return build(Task(SPEC.name, "U", model, "smoke", setting))


PLAIN = dataclasses.replace(config.PROFILES["smoke"].training, balance=SPEC.balance)
CHANGED = {
    "as it is": {}, "before transfer": {}, "batch norm of the cells only": {}, "separate start": {},
    "no MMD": {"omega": 0.0}, "no cluster regulariser": {"theta": 0.0}, "no autoencoder": {"epochs_dae": 0},
    "no stage 2": {"epochs_cells": 0}, "stopped by cross-entropy": {"stopping": "cross-entropy"},
    "further steps on bulk": {}, "lines not balanced": {"balance": "none"},
    "lines weighted by class": {"balance": "class_weight"},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_an_ablation_changes_what_its_name_says_and_nothing_else(name):
    model, setting = tables.ABLATIONS[name]
    made = _built(model, setting)
    assert made.cfg == dataclasses.replace(PLAIN, **CHANGED[name]) and made.arch == SPEC.architecture
    assert model == {
        "before transfer": BULK_ONLY,
        "further steps on bulk": FURTHER,
        "batch norm of the cells only": PLUS,
    }.get(name, ATSDP)
    assert (dict(setting).get("gene_space") == "separate") == (name == "separate start")
    if model == PLUS:
        assert made.recipe.align == "adabn" and made.members == 1 and not made.recipe.linear and not made.recipe.rank


def test_the_alignments_of_the_class_mixes_are_what_they_are_called():
    made = {name: _built(PLUS, setting) for name, setting in tables.ALIGNED.items()}
    assert {n: (m.recipe.align, m.cfg.omega > 0, m.members) for n, m in made.items()} == {
        "MMD": ("mmd", True, 1), "no MMD": ("mmd", False, 1), "MMD, balanced by prediction": ("balanced", True, 1),
    }  # fmt: skip


def test_candidates_of_the_ensemble_differ_in_what_their_words_say():
    for name, r in config.RECIPES.items():
        words = r.changed.replace("ensemble-adabn", "ensemble, batch-norm statistics")
        assert (r.align == "adabn") == ("batch-norm" in words or name == "joint-linear")
        assert (r.align == "balanced") == ("balanced by predicted class" in words)
        assert r.rank == ("ranks" in words) == name.endswith("rank")
        assert bool(r.linear) == ("linear path" in words) == name.endswith("linear")
        assert r.joint == name.startswith("joint") and (r.members == 1) == (name == "plain")
    assert config.CHOSEN in config.RECIPES


def test_lists_of_trainings_ask_for_the_settings_that_their_tables_show():
    quick = config.PROFILES["quick"]
    one = tables.table1("embedded", "quick")
    for name in ("A375-PLX4720", "DATA1-sim"):
        for how in config.BALANCING:
            mine = [t for t in one if t.dataset == name and t.options == {"balance": how}]
            seeds = quick.seeds_ablation if name == "DATA1-sim" else quick.seeds_real
            assert [t.seed for t in mine if t.protocol == "U"] == list(range(seeds))
            assert [(t.folds, t.repeat) for t in mine if t.protocol == "S"] == [(quick.folds, 0)]
    seeds = {}
    for make in (tables.transfer, tables.table1, tables.table3, tables.table4, tables.ablation, tables.plus_score):
        for t in (t for t in make("embedded", "quick") if t.protocol == "U" and t.model != PLUS):
            if not t.setting or keys._departures(t):  # a default that is named has the seeds of its rivals
                of = seeds.setdefault((t.dataset, t.model, t.setting), {})
                of.setdefault(make.__name__, set()).add(t.seed)
    for of in seeds.values():  # a setting has the same seeds wherever it is shown
        assert len(set(map(frozenset, of.values()))) == 1
    three = [t for t in tables.table3("embedded", "quick") if t.dataset == "DATA2-sim"]
    assert [t.seed for t in three if (t.protocol, t.model) == ("U", ATSDP)] == list(range(quick.seeds))
    assert {t.folds for t in three if t.protocol == "S" and not t.setting and t.model == ATSDP} == {quick.folds_table3}
    assert {t.options["k"] for t in three if t.protocol == "F"} == set(quick.few)
    assert any(t.options.get("permute") for t in three)
    four = [t for t in tables.table4("embedded", "quick") if t.dataset == "DATA2-sim" and t.protocol == "S"]
    assert {t.model for t in four} == {
        ATSDP,
        NO_TRANSFER,
        *(m for m, b in REGISTRY.items() if b.under_s),
    }
    assert {t.folds for t in four} == {quick.folds} and all(t.options["tune"] for t in four)
    heads = [t.options for t in tables.heads("embedded", "quick") if t.dataset == "DATA2-sim"]
    assert heads == [{"heads": h} for h in quick.heads] + [{"attention": "linear"}]
    assert all(t.options == {"strict": True} for t in tables.strict("embedded", "quick"))
    assert {t.dataset for t in tables.strict("embedded", "quick")} == {"DATA1-sim", "DATA2-sim"}


def test_stress_splits_train_on_one_pair_of_cultures_and_test_on_the_other_both_ways():
    tasks = tables.stress("embedded", "smoke")
    for paper, place in (("DATA1", "HN120"), ("DATA2", "HN137")):
        mine = [t.options for t in tasks if t.dataset == f"{paper}-sim"]
        primary, metastatic = (f"{place}P", f"{place}PCR"), (f"{place}M", f"{place}MCR")
        assert [(o["train_cultures"], o["test_cultures"]) for o in mine] == [
            (primary, metastatic), (metastatic, primary)
        ]  # fmt: skip
    assert len(tasks) == 6


# --- the ledger -------------------------------------------------------------------------------------------------------

SETS = [s.name for s in config.datasets("embedded", nulls=False)]


def _value(*key) -> float:
    """A number of its own for every cell of the tables."""
    digits = sum((i + 1) * ord(c) for i, c in enumerate("|".join(map(str, key))))
    return 0.3 + (digits * 7919 % 5000) / 10_000


def _write(folder, sign):
    """Tables of a run in which every row has a number of its own; `sign` -1 turns every comparison around."""

    def v(*key):
        return 0.55 + sign * (_value(*key) - 0.55)

    def frame(name, rows):
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)

    def scored(d, setting, protocol, *key):
        return {"dataset": d, "tier": config.DATASETS[d].tier, "model": "ATSDP-NET", "setting": setting,
                "protocol": protocol, "metric": "auc", "mean": v(*key), "ci_low": 0.0, "ci_high": 1.0}  # fmt: skip

    frame("table3", [scored(d, "", p, "t3", d, p) for d in SETS for p in "SU"])
    frame("table1", [scored(d, s, p, "t1", d, s, p) for d in SETS for s in config.BALANCING for p in "SU"])
    heads = [str(h) for h in config.PROFILES["quick"].heads] + ["linear"]
    frame("ablation_heads", [scored(d, s, "S", "heads", d, s) for d in SETS for s in heads])
    named = ("counted as sensitive", "left out")
    frame("holiday_cells", [scored(d, s, "S", "holiday", d, s) for d in ("DATA1-sim", "DATA2-sim") for s in named])
    settings = tables.TRANSFER
    frame("transfer_changes", [{"dataset": d, "setting": s, "mean": v("transfer", d, s),
                                "reference_mean": v("transfer", d, "after", s)}
                               for d in SETS for s in settings])  # fmt: skip
    frame("plus_ablation", [{"dataset": s.name, "setting": n, "mean": v("ablation", s.name, n),
                             "difference": v("ablation", s.name, n) - v("as it is", s.name, n)}
                            for s in config.REAL for n in tables.ABLATIONS])  # fmt: skip
    wells = ("labelled cells", "all wells")
    frame("all_wells", [scored("DATA4-sim", s, p, "wells", s, p) for s in wells for p in "SU"])
    frame(
        "gene_score_correlations", [{"list": n, "r": v("r", n), "r2": v("r2", n)} for n in ("sensitive", "resistant")]
    )
    frame(
        "attention_readings", [{"reading": r, "moved_by_mates": v("mates", r)} for r in ("tokens", "batch", "single")]
    )
    frame("database_confounding", [{"drug": d, "AUC of the database alone": v("base", d)} for d in tables.BULK_DRUGS])
    frame("pseudotime_correlations", [{"root": r, "with": w, "rho": v("rho", r, w)}
                                      for r in ("without labels", "from labels")
                                      for w in ("P(resistant)", "planted progress")])  # fmt: skip
    return v


@pytest.mark.parametrize("sign", [1, -1])
def test_every_row_of_the_ledger_holds_the_reading_taken_and_the_alternative(tmp_path, sign):
    v = _write(tmp_path, sign)
    found = findings.ledger_numbers(outputs.Outputs(tmp_path), "embedded").set_index(
        ["ambiguity", "measure", "dataset"]
    )
    expected = {}
    for d in SETS:
        h = config.DATASETS[d].architecture.heads
        expected[1, "AUC", d] = v("t3", d, "U"), v("t3", d, "S")
        expected[8, "AUC", d] = v("heads", d, "0"), v("heads", d, "linear")
        expected[9, "AUC", d] = v("heads", d, str(h)), v("heads", d, "0")
        for number, setting in ((13, "no MMD"), (31, "separate start"), (14, "no regulariser")):
            name = f"after transfer, {setting}"
            expected[number, "AUC", d] = v("transfer", d, "after", name), v("transfer", d, name)
        printed = v("transfer", d, "after transfer, regulariser as printed")
        assert found.loc[[(14, "AUC", d)], "alternative_mean"].iloc[1] == pytest.approx(printed)
    for p in "SU":
        expected[19, f"AUC under {p}", "DATA4-sim"] = v("wells", "labelled cells", p), v("wells", "all wells", p)
    for p, d in itertools.product("SU", ("A375-PLX4720", "DATA2-sim")):
        expected[2, f"AUC under {p}", d] = v("t1", d, "oversampling", p), v("t1", d, "smote", p)
        if d == "A375-PLX4720":
            without = found.loc[[(2, f"AUC under {p}", d)], "alternative_mean"].iloc[1]
            assert without == pytest.approx(v("t1", d, "none", p))
    for d, shares in {"DATA1": (187 / 548, 187 / 368), "DATA2": (165 / 568, 165 / 493)}.items():
        expected[3, "share of resistant cells", d] = shares
    three, four = (
        pd.read_csv(paths.PAPER / f"table{n}.csv").query("metric == 'auc' and dataset == 'DATA2'") for n in (3, 4)
    )
    four = four[four["model"] == "ATSDP-NET"]
    expected[6, "printed AUC", "DATA2"] = three["mean"].item(), four["value"].item()
    for n in ("sensitive", "resistant"):
        expected[7, f"{n} gene scores", "DATA4-sim"] = v("r", n), v("r2", n)
    expected[9, "shift of P by batch mates", "A375-PLX4720"] = v("mates", "tokens"), v("mates", "batch")
    expected[19, "cells", "DATA4"] = 1400, 1419
    for d in ("DATA1-sim", "DATA2-sim"):
        expected[20, "AUC", d] = v("holiday", d, "counted as sensitive"), v("holiday", d, "left out")
    for drug in ("DOCETAXEL", "CISPLATIN", "I.BET.762"):
        expected[23, "AUC of the database alone", drug] = 0.5, v("base", drug)
    expected[30, "Spearman ρ with P(resistant)", "DATA1-sim"] = (
        v("rho", "without labels", "P(resistant)"), v("rho", "from labels", "P(resistant)")
    )  # fmt: skip
    for key, (taken, alternative) in expected.items():
        row = found.loc[[key]].iloc[0]
        assert (row["mean"], row["alternative_mean"]) == pytest.approx((taken, alternative)), key
        assert row["difference"] == pytest.approx(alternative - taken), key


def test_the_words_of_the_ledger_name_the_columns_that_they_stand_over(tmp_path):
    _write(tmp_path, 1)
    found = findings.ledger_numbers(outputs.Outputs(tmp_path), "embedded").set_index(["ambiguity", "measure"])
    words = {
        (1, "AUC"): ("U, no labels (one of two readings taken)", "S, with labels (the other)"),
        (6, "printed AUC"): ("Table 3", "Table 4"),
        (8, "AUC"): ("no attention", "linear layer"), (13, "AUC"): ("MMD²", "no MMD"),
        (20, "AUC"): ("holiday cells sensitive", "left out"),
        (3, "share of resistant cells"): ("holiday cells sensitive", "left out"),
        (19, "cells"): ("with a label", "all wells"),
    }  # fmt: skip
    for key, pair in words.items():
        rows = found.loc[[key]]
        assert set(zip(rows["reading_taken"], rows["alternative"], strict=True)) == {pair}


def test_an_answer_is_yes_or_no_only_where_the_interval_says_so(tmp_path):
    limits = {"A375-PLX4720": (0.6, 0.52, 0.7), "SCC47-afatinib": (0.6, 0.45, 0.7), "SCC47-sorafenib": (0.4, 0.3, 0.48)}
    rows = [{"dataset": d, "tier": "real", "model": "ATSDP-NET", "setting": "", "protocol": "U", "metric": "auc",
             "mean": m, "ci_low": low, "ci_high": high} for d, (m, low, high) in limits.items()]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "table3.csv", index=False)
    table = findings.real_findings(outputs.Outputs(tmp_path))
    coin = table[table["question"].str.contains("coin")].set_index("dataset")
    assert coin["answer"].to_dict() == dict(zip(limits, ("yes", "open", "no"), strict=True))
    assert coin.loc["A375-PLX4720", ["mean", "ci_low", "ci_high"]].tolist() == pytest.approx([0.1, 0.02, 0.2])


# --- colours ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def _points(ax) -> list[tuple[float, float, str]]:
    """Every dot of an axes with its colour."""
    found = []
    for c in ax.collections:
        offsets, colours = np.asarray(c.get_offsets()), c.get_facecolor()
        if hasattr(c, "get_sizes") and len(offsets) and len(colours):
            wide = np.broadcast_to(colours, (len(offsets), 4)) if len(colours) == 1 else colours
            found += [(x, y, to_hex(k)) for (x, y), k in zip(offsets, wide, strict=True)]
    return found


def test_cells_have_the_colour_of_their_name_and_so_has_the_key(ax):
    xy = np.arange(20.0).reshape(10, 2)
    names = np.array(["sensitive", "resistant"] * 5)
    plots_biology.cells_by(ax, xy, names, plots_biology.CLASSES, "t")
    of = {tuple(p): n for p, n in zip(xy, names, strict=True)}
    shown = [(of[x, y], k) for x, y, k in _points(ax)]
    assert len(shown) == 10 and all(k == plots_biology.CLASSES[n].lower() for n, k in shown)
    handles, labels = ax.get_legend_handles_labels()
    key = {n: to_hex(h.get_facecolor()[0]) for h, n in zip(handles, labels, strict=True)}
    assert key == {n: c.lower() for n, c in plots_biology.CLASSES.items()}


def test_scores_and_expression_of_a_class_have_its_colour(ax):
    y = np.array([1, 0, 1, 0])
    row = {"list": "sensitive", "r": np.nan}
    scores = pd.DataFrame({"predicted_sensitive": np.arange(4.0), "true_sensitive": np.arange(4.0) + 10})
    plots_biology.score_scatter(ax, scores, y, row)
    assert {(x, v, k) for x, v, k in _points(ax)} == {(i, i + 10, plots.CLASS[y[i]].lower()) for i in range(4)}
    assert "predictions" in ax.get_xlabel() and "truth" in ax.get_ylabel()
    ax.clear()
    values = pd.DataFrame({"gene": "g", "value": [5.0, 1, 6, 2], "label": np.where(y, "sensitive", "resistant")})
    plots.strips(ax, values, x="gene", y="value", hue="label", colours=plots_biology.CLASSES)
    for x, v, k in _points(ax):
        assert (v > 4) == (k == plots.CLASS[1].lower()) == (x < 0)


def test_names_of_key_genes_have_the_colour_of_their_list(ax):
    rng = np.random.default_rng(0)
    values, group = rng.normal(size=(6, 3)), np.array(["sensitive cells"] * 3 + ["resistant cells"] * 3)
    directions = ["resistant", "resistant", "sensitive"]
    plots_biology.expression_heatmap(ax, values, ["a", "b", "c"], directions, group)
    shown = {t.get_text(): t.get_color() for t in ax.get_yticklabels()}
    assert shown == {g: plots_biology.CLASSES[d] for g, d in zip("abc", directions, strict=True)}


def test_cultures_get_colours_in_order_of_their_names():
    colours = plots_biology.culture_colours(["HN120PCR", "HN120M", "HN120PCR"])
    assert colours == {"HN120M": plots.SERIES[0], "HN120PCR": plots.SERIES[1]}
    assert not set(plots.SERIES) & {plots.CLASS[1], plots.CLASS[0]}


def _summary() -> pd.DataFrame:
    rows = [(d, s, 0.1 * i + 0.3 * j) for i, d in enumerate(("A", "B")) for j, s in enumerate(("one", "two", "three"))]
    table = pd.DataFrame(rows, columns=["dataset", "setting", "mean"])
    return table.assign(ci_low=table["mean"] - 0.02, ci_high=table["mean"] + 0.05)


def test_dots_carry_the_name_colour_and_place_of_their_series(ax):
    plots.dots(ax, _summary(), row="dataset", series="setting")
    handles, labels = ax.get_legend_handles_labels()
    for j, (h, name) in enumerate(zip(handles, labels, strict=True)):
        assert name == ("one", "two", "three")[j] and to_hex(h.get_facecolor()[0]) == plots.SERIES[j].lower()
        x, y = np.asarray(h.get_offsets()).T
        assert x == pytest.approx([0.3 * j, 0.1 + 0.3 * j]) and y[0] > y[1]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]


def test_the_key_of_axes_where_nothing_was_drawn_is_empty():
    fig, ax = plt.subplots()
    plots.legend(fig, ax)
    assert not fig.legends[0].get_texts()
    plt.close(fig)


def test_the_key_puts_each_handle_at_its_name_and_the_paper_last():
    fig, ax = plt.subplots()
    ax.scatter([], [], color="#444444", label="paper")
    for name, colour in (("x", "#009e73"), ("y", "#cc79a7")):
        ax.scatter([], [], color=colour, label=name)
    plots.legend(fig, ax)
    (legend,) = fig.legends
    shown = [
        (t.get_text(), to_hex(h.get_facecolor()[0])) for t, h in zip(legend.texts, legend.legend_handles, strict=True)
    ]
    assert shown == [("x", "#009e73"), ("y", "#cc79a7"), ("paper", "#444444")]
    plt.close(fig)


def test_strips_stand_at_their_names_in_their_colours_with_the_median(ax):
    data = pd.DataFrame({"group": [*"aaabbb"], "value": [0.1, 0.2, 0.3, 0.7, 0.8, 1.2]})
    plots.strips(ax, data, x="group", y="value")
    by = {}
    for x, y, k in _points(ax):
        by.setdefault((round(x), k), []).append(round(y, 6))
    assert by == {(0, plots.SERIES[0].lower()): [0.1, 0.2, 0.3], (1, plots.SERIES[1].lower()): [0.7, 0.8, 1.2]}
    medians = [(round(x), round(y, 6)) for line in ax.lines for x, y in zip(*line.get_data(), strict=True)]
    assert sorted(p for p in medians if np.isfinite(p[1])) == [(0, 0.2), (1, 0.8)]
    ax.clear()
    colours = {"a": "#111111", "b": "#222222"}
    plots.strips(ax, data, x="value", y="group", order=["b", "a"], colours=colours)
    assert {(x, round(y), k) for x, y, k in _points(ax)} == {
        (v, "ba".index(g), colours[g]) for g, v in zip(data["group"], data["value"], strict=True)
    }
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]


def test_models_of_chapter_12_keep_their_names():
    assert plus_study.LABEL[PLUS] == "ATSDP-NET+" and plus_study.LABEL[ATSDP] == "ATSDP-NET"
    assert plus_study.LABEL["Logistic"] == "logistic regression"
    assert plus_study.LABEL["RandomForest"] == "random forest"
