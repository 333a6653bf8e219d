"""The notebooks' own labels: cells that name rows or choose a root run here, by their id, on results made by hand."""

import json
import re
from collections.abc import Sequence
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy
from myst_nb.core.variables import format_plain_text
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.evaluation import evaluate, metrics, stats
from atsdp_utils.experiments import inputs, protocols, tables
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, Result, Task
from atsdp_utils.foundation import config, paths
from atsdp_utils.interpretation import gene_lists
from atsdp_utils.reporting import report, verdict
from book.build import GLUED

REAL = [s.name for s in config.REAL]


def source(number: str, cell: str) -> str:
    """Code of a cell by its id."""
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    found = {c["id"]: "".join(c["source"]) for c in json.loads(path.read_text())["cells"]}
    return found[cell]


class Run(report.Run):
    """Keeps tables and what is given to text, and writes nothing."""

    def __init__(self):
        self.tables, self.glued = {}, {}

    def table(self, frame, name, **about):
        self.tables[name] = frame
        return frame

    def glue(self, **values):
        self.glued.update({k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()})

    def figure(self, *given, **about):
        return None


def text(number: str, cell: str, glued: dict) -> str:
    """What a text cell says with these values in it."""
    return GLUED.sub(lambda m: format_plain_text(repr(glued[m["name"]]), m["format"] or "s"), source(number, cell))


def execute(number: str, ids: Sequence[str], /, **given) -> dict:
    """Variables after some cells of a notebook; `given` are those that other cells would have made."""
    profile = config.profile("smoke")
    space = {
        "np": np, "pd": pd, "config": config, "datasets": datasets, "gdsc": gdsc, "evaluate": evaluate,
        "metrics": metrics, "paths": paths,
        "preprocess": preprocess, "protocols": protocols, "inputs": inputs, "ATSDP": ATSDP, "BULK_ONLY": BULK_ONLY,
        "report": report, "stats": stats, "tables": tables, "verdict": verdict,
        "DATA": "embedded", "PROFILE": "smoke", "JOBS": 1, "BACKEND": "loky", "profile": profile, "run": Run(),
        "REGISTRY": REGISTRY,
        "display": lambda shown: None, "seeds": range(profile.seeds), "specs": config.datasets("embedded"), **given,
    }  # fmt: skip
    for cell in ids:
        exec(compile(source(number, cell), f"{number}:{cell}", "exec"), space)
    return space


def scored(tasks: Sequence[Task]) -> list[Result]:
    """A result for each task, whose AUC is its own."""
    results, y = [], np.tile([0, 1], 30)
    for i, t in enumerate(tasks):
        p = np.random.default_rng([i, 5]).random(60)
        folds = max(1, t.folds)
        results.append(Result(t, np.arange(60), y, p, np.repeat(np.arange(folds), 60 // folds), 1.0, 1))
    return results


def auc(results: Sequence[Result], wanted) -> float:
    """Mean AUC over folds of the results whose task is wanted."""
    mine = [r for r in results if wanted(r.task)]
    assert mine
    return float(np.mean([metrics.per_fold(r.y, r.p, r.fold)["auc"].mean() for r in mine]))


@pytest.fixture
def grid_run():
    """In place of the grid: keeps the results that it made."""
    made = []

    def run(tasks, **about):
        made.extend(scored(tasks))
        return made[-len(tasks) :]

    return SimpleNamespace(run=run, made=made)


# --- chapter 4: before and after transfer -----------------------------------------------------------------------------

TRANSFER = {
    "before transfer": lambda t: t.model == BULK_ONLY,
    "after transfer": lambda t: t.model == ATSDP and not t.setting,
    "after transfer, no MMD": lambda t: t.options.get("omega") == 0.0,
    "further steps on bulk": lambda t: t.model == FURTHER,
    "after transfer, no stage 2": lambda t: t.options.get("epochs_cells") == 0,
    "after transfer, own start, shared genes": lambda t: t.options.get("start") == "own",
    "after transfer, separate start": lambda t: t.options.get("gene_space") == "separate",
    "after transfer, suggested settings": lambda t: t.options.get("batch_size") == 200,
    "logistic regression": lambda t: t.model == "Logistic",
    "random forest": lambda t: t.model == "RandomForest",
    "PC1, bulk sign": lambda t: t.model == tables.PC1,
}


def test_rows_of_the_transfer_table_are_named_by_what_was_trained(grid_run):
    space = execute("04", ("grid", "table", "changes"), grid=grid_run)
    table = space["run"].tables["transfer"].set_index(["dataset", "setting"])
    for name in (*REAL, "DATA1-sim"):
        for setting, wanted in TRANSFER.items():
            mine = [r for r in grid_run.made if r.task.dataset == name and wanted(r.task)]
            values = [metrics.classification_metrics(r.y, r.p)["auc"] for r in mine]
            row = table.loc[(name, setting)]
            assert row["auc_mean"] == pytest.approx(np.mean(values)), setting
            assert row["auc_std"] == pytest.approx(np.std(values, ddof=1)) and row["auc_count"] == len(values)
            assert row["tier"] == config.DATASETS[name].tier
    changes = space["run"].tables["transfer_changes"].set_index(["dataset", "setting"])
    after = TRANSFER["after transfer"]
    for setting, wanted in TRANSFER.items():
        if setting != "after transfer":
            mine = [r for r in grid_run.made if r.task.dataset == REAL[0]]
            of = [{r.task.seed: metrics.classification_metrics(r.y, r.p)["auc"] for r in mine if w(r.task)}
                  for w in (wanted, after)]  # fmt: skip
            shared = sorted(of[0].keys() & of[1].keys())
            means = [np.mean([values[seed] for seed in shared]) for values in of]
            row = changes.loc[(REAL[0], setting)]
            found = row[["mean", "reference_mean", "difference"]].tolist()
            assert found == pytest.approx([*means, means[0] - means[1]])
            assert row["ci_low"] < row["difference"] < row["ci_high"] and row["seeds"] == len(shared)
    drift = space["run"].tables["control_changes"].query("first == 'further steps on bulk'").set_index("dataset")
    means = changes["mean"].xs("further steps on bulk", level="setting") - changes["mean"].xs(
        "before transfer", level="setting"
    )
    assert drift.loc[list(REAL), "difference"].tolist() == pytest.approx(means[list(REAL)].tolist())


def test_chapter_4_opens_with_what_transfer_adds_to_further_steps(grid_run):
    space = execute("04", ("grid", "changes", "gains", "gains-parts"), grid=grid_run)
    clusters = {"of_cluster_low": 0.9, "of_cluster_high": 1.0}  # of another cell
    made, shown = grid_run.made, text("04", "found", space["run"].glued | clusters)
    aucs = {
        (name, setting): [metrics.classification_metrics(r.y, r.p)["auc"] for r in made
                          if r.task.dataset == name and wanted(r.task)]
        for name in REAL for setting, wanted in TRANSFER.items()
    }  # fmt: skip
    after = {name: aucs[name, "after transfer"] for name in REAL}
    rows = space["run"].tables["transfer_changes"].set_index(["dataset", "setting"])
    for name in REAL:
        gain = np.mean(after[name]) - np.mean(aucs[name, "further steps on bulk"])
        row = rows.loc[(name, "further steps on bulk")]
        assert f"{gain:+.3f} ({-row['ci_high']:+.3f} to {-row['ci_low']:+.3f})" in shown
    for name, end in ((REAL[1], "after transfer, no MMD"), (REAL[2], "PC1, bulk sign")):
        row = rows.loc[(name, end)]
        assert f"{-row['difference']:+.3f} ({-row['ci_high']:+.3f} to {-row['ci_low']:+.3f})" in shown
    parts = ("no MMD", "no regulariser", "regulariser as printed")
    asked = (
        "before transfer",
        "further steps on bulk",
        *(f"after transfer, {part}" for part in parts),
        "PC1, bulk sign",
    )
    told = [(rows.xs(setting, level="setting").loc[list(REAL), "p_holm"] < 0.05).sum() for setting in asked]
    beside = space["run"].tables["control_changes"].set_index(["first", "dataset"])
    drift = beside.loc["further steps on bulk"].loc[list(REAL)]
    assert re.findall(r"\| (\d+) of 3 \|", shown) == [str(n) for n in ((drift["p_holm"] < 0.05).sum(), *told)]
    for row in drift.itertuples():
        assert f"{row.difference:+.3f} ({row.ci_low:+.3f} to {row.ci_high:+.3f})" in shown
    assert f"that of the control on {told[1]} of 3 data sets" in shown
    assert f"from that before transfer on {told[0]}." in shown
    stages = ("before transfer", "further steps on bulk", "after transfer")
    means = [" / ".join(f"{np.mean(aucs[n, s]):.2f}" for s in stages) for n in REAL]
    assert "of the control / after transfer (intervals below) | {} | {} | {} |".format(*means) in shown
    turned = [a < 0.5 for name in REAL for a in after[name]]
    assert f"In {sum(turned)} of {len(turned)} trainings the AUC after transfer is below 0.5" in shown
    gain = np.mean(after[REAL[0]]) - np.mean(aucs[REAL[0], "after transfer, no MMD"])
    assert f"after transfer minus the same without MMD (2 seeds) | {gain:+.3f} (" in shown


# --- chapters 5 and 17: balancing, Table 3, cells counted otherwise, where nothing is to be found ---------------------


def mean_of(table: pd.DataFrame, **where) -> float:
    """The mean AUC of the one row of a table."""
    rows = table[table["tier"] != "print"]
    for column, v in (where | {"metric": "auc"}).items():
        rows = rows[rows[column] == v]
    return rows["mean"].item()


def test_rows_of_tables_1_and_3_are_named_by_what_was_trained(grid_run, monkeypatch):
    names = [s.name for s in config.datasets("embedded", nulls=False)]
    nulls = [s.name for s in config.NULLS]
    results = {make.__name__: grid_run.run(make("embedded", "smoke")) for make in (tables.table1, tables.table3)}
    frames = {name: evaluate.scores(found) for name, found in results.items()}
    monkeypatch.setattr(inputs, "cells_of", lambda *a: SimpleNamespace(library_size=np.ones(3)))
    space = execute("05", ("table1", "table3"), frames=frames, results=results, names=names, nulls=nulls)
    made, found = grid_run.made, space["run"].tables

    def value(table, **where):
        return mean_of(found[table], **where)

    for d in ("A375-PLX4720", "DATA1-sim"):
        for how in config.BALANCING:
            for p in "SU":
                expected = auc(made, lambda t: (t.dataset, t.protocol, t.options) == (d, p, {"balance": how}))  # noqa: B023
                assert value("table1", dataset=d, setting=how, protocol=p) == pytest.approx(expected)
    d = "DATA1-sim"
    three = [r for r in made if r.task.dataset == d and "balance" not in r.task.options]
    for model, wanted in (
        (ATSDP, lambda t: t.protocol == "S" and not t.setting and t.model == ATSDP),
        ("label permutation", lambda t: t.options.get("permute")),
        ("majority class", lambda t: t.model == "Majority"),
        ("library size only", lambda t: t.model == "LibrarySize"),
    ):
        assert value("table3", dataset=d, model=model, protocol="S") == pytest.approx(auc(three, wanted))
    for k in config.profile("smoke").few:
        expected = auc(three, lambda t: t.options.get("k") == k)  # noqa: B023
        assert value("table3", dataset=d, setting=f"k={k}", protocol="F") == pytest.approx(expected)


def test_chapter_5_says_first_what_was_found_on_the_set_that_it_names(grid_run, monkeypatch):
    names = [s.name for s in config.datasets("embedded", nulls=False)]
    results = {make.__name__: grid_run.run(make("embedded", "smoke")) for make in (tables.table1, tables.table3)}
    frames = {name: evaluate.scores(found) for name, found in results.items()}
    monkeypatch.setattr(inputs, "cells_of", lambda *a: SimpleNamespace(library_size=np.ones(3)))
    cells = ("table1", "balancing-tests", "balancing-seeds", "table3", "seeds-and-cells")
    twins = [s.name for s in config.TWINS]
    space = execute("05", cells, frames=frames, results=results, names=names, nulls=[s.name for s in config.NULLS],
                    stand_ins=twins, others=REAL)  # fmt: skip
    glued, three = space["run"].glued, [r for r in grid_run.made if "balance" not in r.task.options]

    def network(*wanted, model=ATSDP, setting=()):
        return auc(grid_run.made, lambda t: (t.dataset, t.protocol, t.model, t.setting) == (*wanted, model, setting))

    for key, name in zip(("a375", "afatinib", "sorafenib"), REAL, strict=True):
        assert glued[f"{key}_s"] == pytest.approx(network(name, "S"))
        assert glued[f"{key}_u"] == pytest.approx(network(name, "U"))
        assert glued[f"{key}_pc1"] == pytest.approx(network(name, "U", model=tables.PC1))
        assert glued[f"{key}_u_low"] < glued[f"{key}_u"] < glued[f"{key}_u_high"]
    of_twins = {p: [network(d, p) for d in twins] for p in "SU"}
    assert [glued[f"own_s_{end}"] for end in ("low", "high")] == pytest.approx([min(of_twins["S"]), max(of_twins["S"])])
    assert [glued[f"own_u_{end}"] for end in ("low", "high")] == pytest.approx([min(of_twins["U"]), max(of_twins["U"])])
    tests = space["run"].tables["balancing_tests"]
    once = tests[(tests["protocol"] == "U") | (tests["dataset"] != REAL[2])]  # under S an axis has one name
    real = once["dataset"].isin(REAL)
    for key, of_kind in (("hits", once[real]), ("own_hits", once[~real])):
        for protocol, part in of_kind.groupby("protocol"):
            sure = part[part["p_holm"] < 0.05]
            limits = "({0.ci_low:+.2f} to {0.ci_high:+.2f})".format
            where = [f"{r.dataset}: {r.setting} {r.difference:+.2f} {limits(r)}" for r in sure.itertuples()]
            where = ", ".join(where)
            assert glued[f"{key}_{protocol}"] == f"{len(sure)} of {len(part)}" + f" ({where})" * bool(where)
    of_ways = [network(REAL[0], "U", setting=(("balance", how),)) for how in config.BALANCING]
    assert [glued["how_low"], glued["how_high"]] == pytest.approx([min(of_ways), max(of_ways)])
    of_few = {k: auc(three, lambda t, k=k: (t.dataset, t.protocol, dict(t.setting).get("k")) == (REAL[0], "F", k))
              for k in (1, 10)}  # fmt: skip
    assert [glued["few_first"], glued["few_last"]] == pytest.approx([*of_few.values()])
    said = " ".join(text("05", "found", glued | {"a375_right": 0.85, "balance": "one"}).split())
    assert f"labelled cells (S) | {glued['a375_s']:.3f} ({glued['a375_s_low']:.3f}–" in said
    assert f"no label of a cell (U), {glued['a375_seeds']} seeds | {glued['a375_u']:.3f} (" in said
    assert glued["seeds1"] == once.loc[real & once["protocol"].eq("U"), "pairs"].min()
    assert "85% of the A375 seeds have an AUC above 0.5" in said


def test_cells_that_are_counted_otherwise_are_those_of_their_name(grid_run):
    space = execute("17", ("trainings", "holiday", "wells"), grid=grid_run)
    made, found = grid_run.made, space["run"].tables
    literal = auc(made, lambda t: t.protocol == "U" and bool(t.options.get("all_wells")))
    labelled = auc(
        made, lambda t: (t.dataset, t.protocol, t.options) == ("DATA4-sim", "U", {"balance": "oversampling"})
    )
    assert mean_of(found["all_wells"], setting="all wells", protocol="U") == pytest.approx(literal)
    assert mean_of(found["all_wells"], setting="labelled cells", protocol="U") == pytest.approx(labelled)
    for d, how in (("DATA1-sim", "smote"), ("DATA2-sim", "oversampling")):
        strict = auc(made, lambda t: t.dataset == d and bool(t.options.get("strict")))  # noqa: B023
        counted = auc(made, lambda t: (t.dataset, t.protocol, t.options) == (d, "S", {"balance": how}))  # noqa: B023
        holiday = found["holiday_cells"]
        assert mean_of(holiday, dataset=d, setting="left out") == pytest.approx(strict)
        assert mean_of(holiday, dataset=d, setting="counted as sensitive") == pytest.approx(counted)


def test_controls_with_nothing_to_find_are_named_by_what_was_trained(grid_run):
    names = [s.name for s in config.datasets("embedded", nulls=False)]
    nulls = [s.name for s in config.NULLS]
    cells = ("trainings", "null", "null-models", "null-values")
    space = execute("17", cells, grid=grid_run, names=names, nulls=nulls, pools=evaluate.pools(names))
    made, table = grid_run.made, space["run"].tables["null_controls"].set_index(["dataset", "model", "protocol"])
    d = nulls[1]
    for (name, model, protocol), wanted in {
        (d, ATSDP, "S"): lambda t: t.model == ATSDP,
        (d, ATSDP, "U"): lambda t: t.model == ATSDP,
        (d, BULK_ONLY, "U"): lambda t: t.model == BULK_ONLY,
        (d, REGISTRY[tables.PC1].label, "U"): lambda t: t.model == tables.PC1,
        (d, "majority class", "S"): lambda t: t.model == "Majority",
        (REAL[0], "label permutation", "S"): lambda t: bool(t.options.get("permute")),
    }.items():
        expected = auc(made, lambda t: (t.dataset, t.protocol) == (name, protocol) and wanted(t))  # noqa: B023
        assert table.loc[(name, model, protocol), "mean"] == pytest.approx(expected)
    assert {d for d, model, _ in table.index if model == "label permutation"} == set(names)
    held = table["holds_half"]
    assert held.equals((table["ci_low"] <= 0.5) & (table["ci_high"] >= 0.5))
    counts = [held.loc[n, "label permutation", "S"] for n in (REAL[0], REAL[1])]  # an axis is counted once
    glued = space["run"].glued
    assert (glued["real_held"], glued["real_nulls"]) == (sum(counts), 2)
    assert space["run"].tables["null_controls"]["tier"].eq(table.index.get_level_values(0).map(config.TIERS)).all()
    said = text("17", "null-said", glued)
    assert f"{glued['all_held']} of {glued['all_nulls']} intervals include 0.5." in " ".join(said.split())


# --- chapter 6: heads -------------------------------------------------------------------------------------------------


def test_rows_of_the_heads_table_are_named_by_their_number_of_heads(grid_run):
    names = [s.name for s in config.datasets("embedded", nulls=False)]
    space = execute("06", ("ablation",), grid=grid_run, names=names)
    table = space["run"].tables["ablation_heads"].query("metric == 'auc'").set_index(["dataset", "setting"])["mean"]
    for d in ("A375-PLX4720", "DATA3-sim"):
        for h in config.profile("smoke").heads:
            expected = auc(grid_run.made, lambda t: (t.dataset, t.options) == (d, {"heads": h}))  # noqa: B023
            assert table[d, str(h)] == pytest.approx(expected)
        expected = auc(grid_run.made, lambda t: (t.dataset, t.options) == (d, {"attention": "linear"}))  # noqa: B023
        assert table[d, "linear"] == pytest.approx(expected)


def test_chapter_6_counts_comparisons_and_what_the_best_number_gains(grid_run):
    names = [s.name for s in config.datasets("embedded", nulls=False)]
    twins = [s.name for s in config.TWINS]
    cells = ("ablation", "tests", "tests-pools", "tests-values", "permutation", "selection", "selection-pools")
    about = {"grid": grid_run, "names": names, "pools": evaluate.pools(names), "stand_ins": twins}
    space = execute("06", cells, **about)
    glued, found = space["run"].glued, space["run"].tables
    tests = found["heads_tests"].query("metric == 'auc' and dataset != @REAL[2]")  # an axis has one name
    real = tests["dataset"].isin(REAL)
    for key, part in (("real", tests[real]), ("own", tests[~real])):
        sure = part.loc[part["p_holm"] < 0.05, "difference"]
        counts = len(part), (sure > 0).sum(), (sure < 0).sum()
        assert tuple(glued[f"{key}_{what}"] for what in ("tests", "favour", "against")) == counts
    best = found["heads_selection"].set_index("dataset")
    assert glued["own_gain"] == pytest.approx(best.loc[twins, "gain_over_mean"].mean())
    assert glued["own_luck"] == pytest.approx(best.loc[twins, "gain_if_equal"].mean())
    assert [glued["a375_gain"], glued["scc47_gain"]] == best.loc[REAL[:2], "gain_over_mean"].tolist()
    said = " ".join(text("06", "found", glued).split())
    counts = f"Of {glued['real_tests']} comparisons of AUC, {glued['real_favour']} favour the setting significantly"
    assert counts in said


def test_no_setting_can_be_told_to_be_better_where_one_of_five_folds_is_perfect_without_attention():
    code = source("06", "selection-pools")
    function = code[code.index("def least_p") : code.index("apart =")]
    space = {"np": np, "stats": stats, "profile": SimpleNamespace(folds=5)}
    exec(function, space)
    least_p = space["least_p"]
    assert least_p(pd.Series([1.0] * 5)) == 1
    assert least_p(pd.Series([0.9] * 5)) == 0  # every fold may gain as much as the others
    assert 0.05 < least_p(pd.Series([1.0, 0.9, 0.8, 0.7, 0.9])) < 0.06
    none, rng = pd.Series([0.99, 0.9, 0.8, 0.7, 0.9]), np.random.default_rng(0)
    others = (stats.mean_test(rng.uniform(-0.1, 1 - none), 5) for _ in range(500))
    assert 0.05 > least_p(none) and all(t.p >= least_p(none) for t in others if t.mean > 0)


# --- chapters 1 to 3: counts of labels --------------------------------------------------------------------------------


def test_cultures_are_counted_under_the_label_that_they_carry(monkeypatch):
    code = source("01", "cells-counts").split("\n\n\n")[0]
    space = {"datasets": datasets, "config": config}
    exec(code, space)
    obs = pd.DataFrame({
        "culture": pd.Categorical(["P"] * 3 + ["PCR"] * 2 + ["DH"] * 4 + ["EMPTY"]),
        "sensitive_paper": pd.array([True] * 3 + [False] * 2 + [True] * 4 + [None], "boolean"),
        "sensitive": pd.array([True] * 3 + [False] * 2 + [None] * 5, "boolean"),
    })  # fmt: skip
    monkeypatch.setattr(datasets, "load_cells", lambda name: SimpleNamespace(obs=obs))
    table = space["culture_counts"]("DATA1-sim").set_index("culture")
    assert table["cells"].to_dict() == {"P": 3, "PCR": 2, "DH": 4, "EMPTY": 1}
    words = table[["sensitive_paper", "sensitive"]].to_dict("index")
    assert words["P"] == {"sensitive_paper": "sensitive", "sensitive": "sensitive"}
    assert words["PCR"] == {"sensitive_paper": "resistant", "sensitive": "resistant"}
    assert words["DH"] == {"sensitive_paper": "sensitive", "sensitive": "no label"}
    assert words["EMPTY"] == {"sensitive_paper": "no label", "sensitive": "no label"}


def test_classes_are_counted_in_both_countings():
    y, strict = np.array([1, 1, 1, 0, -1]), np.array([1, -1, -1, 0, -1])
    cells = SimpleNamespace(name="DATA1-sim", tier="simulated", y=y, strict=strict)

    class Shown(Run):
        def table(self, frame, name, **about):
            self.tables[name] = frame
            return SimpleNamespace(style=SimpleNamespace(hide=lambda **o: SimpleNamespace(format=lambda f: None)))

    run = Shown()
    execute("02", ("classes",), prepared=[cells], run=run)
    table = run.tables["class_balance"].set_index("counting")
    assert table.loc["paper", ["sensitive", "resistant", "ratio"]].tolist() == [3, 1, 3.0]
    assert table.loc["strict", ["sensitive", "resistant", "ratio"]].tolist() == [1, 1, 1.0]


def test_held_out_scores_and_the_database_are_named_right(grid_run):
    space = execute("03", ("grid",), grid=grid_run)
    table = space["run"].tables["bulk_heldout"]
    for r, (_, row) in zip(grid_run.made, table.iterrows(), strict=True):
        expected = metrics.classification_metrics(r.y, r.p)
        assert (row["drug"], row["model"], row["seed"]) == (r.task.dataset, r.task.model, r.task.seed)
        assert row["balancing"] == r.task.options.get("balance", "as it is")
        assert (row["auc"], row["ap"]) == (expected["auc"], expected["ap"])
        assert row["auc_low"] < row["auc"] < row["auc_high"]
    space = execute("03", ("better-values",), **{k: space[k] for k in ("held_out", "drawn", "run")})
    means = table.groupby(["model", "balancing", "drug"]).auc.mean()
    gap = means[ATSDP, "smote"] - means["Logistic", "as it is"]
    shown = text("03", "found", space["run"].glued)
    copies = means[ATSDP, "oversampling"]
    for other, minus in {
        "without balancing": means[ATSDP, "none"], "logistic": means["Logistic", "as it is"],
        "random forest": means["RandomForest", "as it is"],
    }.items():  # fmt: skip
        (row,) = (line for line in text("03", "better-read", space["run"].glued).splitlines() if other in line)
        each = [(of - minus).mean() for of in (copies, means[ATSDP, "smote"])]
        assert [float(cell.split()[0]) for cell in row.split("|")[2:4]] == pytest.approx(each, abs=5e-4)
    assert f"{gap.mean():+.3f} on average" in shown and f"for {(gap > 0).sum()} of {len(gap)} drugs" in shown
    assert f"between {means[ATSDP, 'smote'].min():.2f} and {means[ATSDP, 'smote'].max():.2f}" in shown
    space = execute("03", ("confounding",), roc_auc_score=roc_auc_score)
    found = space["confounding"].set_index("drug")
    public = gdsc.labels_of_both_databases()["CISPLATIN"].dropna()
    used, ccle = gdsc.label_table()["CISPLATIN"].dropna(), public[public.index.str.startswith("ACH-")]
    shares = found.loc["CISPLATIN", ["sensitive in GDSC", "sensitive in CCLE"]].tolist()
    assert shares == pytest.approx([used.mean(), ccle.mean()])


# --- chapter 10: the root ---------------------------------------------------------------------------------------------


def test_the_root_without_labels_sees_lines_only_and_points_from_sensitive_to_resistant(monkeypatch):
    """The signature is high in cells that look like resistant lines; only the other root is given labels of cells."""
    rng = np.random.default_rng(0)
    genes = np.array([f"G{i}" for i in range(12)])
    y = np.tile([0, 1], 20).astype(np.int8)
    lines = rng.normal(size=(40, 12)).astype(np.float32)
    lines[:, :4] += 2 * (1 - y[:, None])  # four genes up in resistant lines
    held = np.arange(40) >= 32
    lines[held] = 1e3 * (2 * y[held, None] - 1)  # held-out lines say the opposite, loudly
    bulk = preprocess.Source(lines, y, genes, ~held)
    label = np.tile([1, 0], 15)
    expression = rng.normal(size=(30, 12)).astype(np.float32)
    expression[:, :4] += 2 * (1 - label[:, None])
    cells = anndata.AnnData(expression, var=pd.DataFrame(index=genes))
    cells.obsm["X_diffmap"] = np.c_[np.ones(30), (1 - label) + np.linspace(0, 0.1, 30)]
    cells.uns["diffmap_evals"] = np.array([1.0, 0.9])
    given = {}
    trajectory = SimpleNamespace(
        root_without_labels=lambda cells, signature: given.update(signature=signature) or given["root"],
        root_from_labels=lambda cells, sensitive: given.update(sensitive=sensitive) or 8,
        all_roots=lambda cells, values: given.update(values=values) or values,
    )
    monkeypatch.setattr(inputs, "source_of", lambda *a: bulk)
    cisplatin = SimpleNamespace(genes=genes, y=label, group=np.array(["first", "second"] * 15))
    about = {"trajectory": trajectory, "cells": cells, "cisplatin": cisplatin, "spearmanr": spearmanr, "sc": scanpy}
    given["root"] = int(np.flatnonzero(label)[0])  # the sensitive cell at the low end of the component
    space = execute(
        "10", ("signature", "root", "roots"), spec=config.DATASETS["DATA1-sim"], resistance=1 - label,
        pseudotime=lambda adata, root: np.full(30, root), **about,
    )  # fmt: skip
    assert metrics.classification_metrics(1 - label, 1 / (1 + np.exp(-given["signature"])))["auc"] > 0.95
    used = bulk.fit_rows
    weight = lines[used[y[used] == 0]].mean(0) - lines[used[y[used] == 1]].mean(0)
    standard = preprocess.Standardizer().fit_transform(expression)
    np.testing.assert_allclose(given["signature"], standard @ weight, rtol=1e-4)  # no label of a cell is in it
    np.testing.assert_array_equal(given["sensitive"], label == 1)
    np.testing.assert_array_equal(given["values"], 1 - label)
    assert space["roots"] == {"without labels": given["root"], "from labels": 8}
    assert {n: t[0] for n, t in space["times"].items()} == space["roots"]
    time = np.arange(30.0)
    more = execute(
        "10", ("root-table",), cv={}, spec=config.DATASETS["DATA1"], roots={"without labels": 0, "from labels": 1},
        cisplatin=cisplatin, resistance=time**2, times={"without labels": time, "from labels": -time}, signature=time,
        cells=SimpleNamespace(obsm={"X_pca": -np.stack([time, time], axis=1)}), spearmanr=spearmanr,
    )  # fmt: skip
    found = more["run"].tables["pseudotime_correlations"]
    table = found.set_index("root")
    assert table.loc["without labels", "rho"] > 0.99 and table.loc["from labels", "rho"] < -0.99
    assert table.loc["PC1", "rho"] > 0.99  # turned by the signature
    assert table["culture_of_root"].to_dict() == {"without labels": "first", "from labels": "second", "PC1": ""}


def test_what_is_said_of_the_trajectory_is_the_number_of_its_row():
    rows = [
        ("without labels", "P(resistant)", 0.7, 0.6, 0.8),
        ("from labels", "P(resistant)", 0.5, 0.4, 0.6),
        ("without labels", "planted progress", 0.9, 0.85, 0.95),
        ("from labels", "planted progress", 0.1, 0, 0.2),
        ("PC1", "P(resistant)", 0.65, 0.5, 0.7),
        ("PC1", "planted progress", 0.98, 0.97, 0.99),
    ]
    table = pd.DataFrame(rows, columns=["root", "with", "rho", "ci_low", "ci_high"])
    space = execute("10", ("root-glue",), roots_table=table, progress=np.ones(3))
    of_pc1 = {"pc1": 0.65, "planted_pc1": "0.980 (0.970 to 0.990)"}
    assert space["run"].glued == {"rho_from_labels": 0.5, "planted": "0.900 (0.850 to 0.950)"} | of_pc1
    space = execute("10", ("root-glue",), roots_table=table[table["with"] == "P(resistant)"], progress=None)
    assert "known" in space["run"].glued["planted"]
    rows = [
        ("resistant", "key", 0.5),
        ("resistant", "key", -0.5),
        ("sensitive", "key", -0.1),
        ("sensitive", "paper", 0.1),
    ]
    along = pd.DataFrame(rows, columns=["list", "named_by", "rho_with_pseudotime"])
    ranked = pd.DataFrame({"padj": [0.01, 0.2, 0.04]})
    glued = execute("10", ("along-glue",), along=along, ranked=ranked)["run"].glued
    said = text("10", "along-read", glued | {"tier": "simulated"})
    said = " ".join(said.split())
    assert "2 of 3 genes follow" in said and "2 of 3 key genes" in said and "0 of the 1 measured genes that the" in said
    interval = SimpleNamespace(mean=0.1, low=-0.1, high=0.3)
    planted = pd.DataFrame({"padj": [0.5, 0.01]})
    about = {"trajectory": SimpleNamespace(genes_along=lambda *given: planted), "empty_time": None,
             "graph": SimpleNamespace(X=None, var_names=None), "by_chance": interval}  # fmt: skip
    glued = execute("10", ("null-glue",), **about)["run"].glued
    assert "is 0.100 (-0.100 to\n0.300), and 1 of 2 genes" in text("10", "null-read", glued)


def test_probability_of_resistance_is_one_minus_that_of_sensitivity():
    cell = SimpleNamespace(p=np.array([0.2, 0.9]), group=np.array(["a", "b"]), cell_id=np.array(["x", "y"]))
    about = {"predictions": lambda *a, **k: cell, "parallel": {}}
    space = execute("10", ("cells",), spec=config.DATASETS["DATA1-sim"], **about)
    np.testing.assert_allclose(space["resistance"], [0.8, 0.1])


# --- chapters 8 and 9: scores of gene lists, planted genes ------------------------------------------------------------


def test_r_by_wrong_labels_is_the_smaller_median_of_its_set_and_tells_draws_without_a_list():
    def drawn(r, low, there):
        rows = {"wrong": [0.1, 0.1, 0.3, 0.3, 0.4, 0.4], "list": ["sensitive", "resistant"] * 3, "r": r, "r_low": low}
        return pd.DataFrame(rows | {"with_list": there})

    nan, reals, name = np.nan, ("A375-PLX4720", "SCC47-afatinib"), "DATA4-sim"
    of_first = drawn([0.98, 0.97, 0.9, 0.8, nan, nan], [0.9, 0.95, 0.7, 0.4, nan, nan], [1, 1, 0.5, 1, 0, 0])
    draws = {n: of_first.assign(r=of_first["r"] / i) for i, n in enumerate((*reals, name), 1)}
    glued = execute("08", ("wrong-glue",), draws=draws, errors=7)["run"].glued
    others = {m["name"]: 9 for m in GLUED.finditer(source("08", "found") + source("08", "end-text"))}
    said = " ".join(text("08", "found", others | glued).split())
    assert "smaller): 0.97 (0.90) with 10%, 0.80 (0.40) with 30% (a list in 50% of draws). " in said
    said = " ".join(text("08", "end-text", others | glued).split())
    assert "over 7 draws (5th percentile; of both lists the smaller) is 0.97 (0.90)" in said
    assert "and 0.48 (0.90) with 10%, 0.40 (0.40) with 30% (a list in 50% of draws) on SCC47" in said


def test_planted_genes_are_recovered_with_the_areas_of_the_table():
    names = ["IG, mean size", "EG, mean size", "expression, rank-sum test", "linear coefficients", "attention"]
    areas = [(0.9, 0.85, 0.95), (0.7, 0.65, 0.75), (0.7, 0.6, 0.8), (0.6, 0.5, 0.7), (0.5, 0.4, 0.6), (0.99, 0.98, 1)]
    recovered = pd.DataFrame(areas, columns=["auroc", "low", "high"])
    recovered = recovered.assign(ranking=[*names, "variance over bulk lines"])
    recovered = recovered.assign(
        difference=[0.2, -0.1, 0, -0.1, -0.2, 0.3], p_holm=[0.01, 0.2, np.nan, 0.001, 0.02, 0.01]
    )
    near = recovered.assign(auroc=recovered["auroc"] - 0.3, p_holm=[1, 0.01, np.nan, 0.001, 0.02, 0.01])
    glued = execute("09", ("truth-glue",), recovered=recovered, within=near.assign(genes=119))["run"].glued
    assert glued["could"] == 119
    others = ("real_cells", "k", "real_seeds", "real_chance", "real_shuffled")
    said = " ".join(text("09", "found", glued | dict.fromkeys(others, 9)).split())
    assert "finds planted genes with an AUROC of 0.700 (0.600 to 0.800). Of 3 rankings from inside the network" in said
    assert "1 are significantly worse and 1 better; the one behind" in said and "has 0.900 (0.850 to 0.950)." in said
    assert "has 0.990 (0.980 to 1.000):" in said
    others = ("tag", "name", "set_seeds", "set_shuffled", "entropy_low", "entropy_high", *others)
    said = " ".join(text("09", "end-text", glued | dict.fromkeys(others, 9)).split())
    assert "AUROC is 0.400 (0.600 to 0.800) for a rank-sum test of expression and 0.600 (0.850 to" in said
    assert "2 are significantly worse than this test and 0 better (paired, Holm-corrected)." in said


def test_rankings_are_compared_with_the_rank_sum_test_gene_by_gene():
    rng, sign = np.random.default_rng(0), np.repeat([1, 0], (20, 300))
    test = rng.normal(size=320) + 2 * sign
    scores = {"IG, mean size": rng.normal(size=320), "EG, mean size": test + rng.normal(0, 0.1, 320),
              "expression, rank-sum test": test}  # fmt: skip
    about = {"known": None, "twin": "DATA1-sim", "twin_scores": scores, "sign": sign}
    cell = source("09", "truth")
    space = {"np": np, "stats": stats, "norm": norm, "gene_lists": gene_lists, **about}
    exec(cell[cell.index("def found_among") : cell.index("recovered = ")], space)
    found = space["found_among"](np.full(320, True)).set_index("ranking")
    worse, alike, same = (found.loc[name] for name in scores)
    assert worse["p_holm"] < 1e-6 and worse["ci_high"] < 0 and alike["p_holm"] > 0.05 and np.isnan(same["p_holm"])
    assert alike["ci_low"] < 0 < alike["ci_high"] and same["difference"] == 0
    assert worse["difference"] == pytest.approx(worse["auroc"] - same["auroc"])


# --- every notebook ---------------------------------------------------------------------------------------------------


def test_one_is_called_sensitive_and_zero_resistant_in_every_notebook():
    found = 0
    for path in sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            code = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            for test, first, second in re.findall(
                r'np\.where\(([^()]*?), "(sens\w*|res\w*)[^"]*", "(\w+)[^"]*"\)', code
            ):
                sensitive = re.search(r"== 1$|>= 0\.5$", test)
                assert sensitive and (first, second) == ("sensitive", "resistant"), f"{path.name} {cell['id']}: {test}"
                found += 1
    assert found >= 5
