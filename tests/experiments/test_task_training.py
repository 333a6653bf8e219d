"""What a task trains on and scores: a spy takes the place of the model, and rows carry a code that names them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.data import preprocess
from atsdp_utils.experiments import inputs, protocols
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, NO_TRANSFER, PLUS, Task, budget, build, searched
from atsdp_utils.foundation import config, paths
from atsdp_utils.foundation.config import TABLE2, Architecture, Training

NAME = "SCC47-afatinib"  # its cells are replaced; balanced by oversampling unless a task says otherwise
CELLS, LINES, CODE, GENES = 72, 90, 30, 44
_rng = np.random.default_rng(5)
CELL_CODE, LINE_CODE = (_rng.choice([-1.0, 1.0], (n, CODE)) for n in (CELLS, LINES))
GENE_NAMES = np.array([f"G{i}" for i in range(GENES)])


def _cells() -> preprocess.Cells:
    """Unequal classes in both cultures, some cells without a label, some only without a strict one."""
    rng = np.random.default_rng(1)
    X = np.hstack([CELL_CODE, rng.normal(size=(CELLS, GENES - CODE))]).astype(np.float32)
    y = np.where(np.arange(CELLS) % 3 == 0, 1, 0).astype(np.int8)
    y[[5, 40, 41]] = -1
    strict = y.copy()
    strict[[0, 1, 2, 3, 50]] = -1
    group = np.where(np.arange(CELLS) < 40, "A", "B")
    size = 1000.0 + np.arange(CELLS)
    names = np.array([f"c{i}" for i in range(CELLS)])
    return preprocess.Cells(NAME, "real", "AFATINIB", X, GENE_NAMES, y, strict, group, size, names)


def _source(seed: int) -> preprocess.Source:
    rng = np.random.default_rng(seed)
    X = np.hstack([LINE_CODE, rng.normal(size=(LINES, GENES - CODE))]).astype(np.float32)
    y = np.where(np.arange(LINES) % 4 == 0, 1, 0).astype(np.int8)
    y[7:12] = -1
    return preprocess.Source(X, y, GENE_NAMES, np.random.default_rng([seed, 3]).random(LINES) < 0.8)


def rows_of(X: np.ndarray, code: np.ndarray = CELL_CODE) -> np.ndarray:
    """Which cells (or lines) the rows of X are: standardising leaves the signs of their code."""
    agree = np.sign(X[:, :CODE]) @ code.T
    assert (agree.max(1) >= CODE - 2).all(), "rows that are none of the cells or lines"
    return agree.argmax(1)


class Spy:
    """In place of a model: notes what it is given; P(sensitive) of cell i is i / 1000, of line i too."""

    n_parameters = 7

    def __init__(self, task):
        self.task, self.fits, self.scored, self.code = task, [], [], CELL_CODE

    def fit(self, X, y, *, balance="none", source=None):
        self.fits.append(SimpleNamespace(how="fit", X=X, y=np.asarray(y), balance=balance, source=source))

    def fit_few(self, X_all, X, y, *, source):
        self.fits.append(SimpleNamespace(how="few", all=X_all, X=X, y=np.asarray(y), source=source))

    def fit_bulk(self, source):
        self.fits.append(SimpleNamespace(how="bulk", source=source))

    def fit_transfer(self, X, source, *, keep=False):
        self.fits.append(SimpleNamespace(how="once" if keep else "transfer", X=X, source=source))

    def predict_proba(self, X):
        self.scored.append(rows_of(X, self.code))
        return self.scored[-1] / 1000


@pytest.fixture
def spies(monkeypatch, tmp_path):
    """Run tasks on spies; returns the spies made, in order, with the seeds asked of the bulk side."""
    made, seeds, cells = [], [], _cells()

    def make(task):
        made.append(Spy(task))
        return made[-1]

    def source_of(dataset, profile, seed):
        seeds.append(seed)
        return _source(seed)

    monkeypatch.setattr(protocols, "build", make)
    monkeypatch.setattr(inputs, "cells_of", lambda *a: cells)
    monkeypatch.setattr(inputs, "source_of", source_of)
    monkeypatch.setattr(paths, "SPLITS", tmp_path / "splits")
    return SimpleNamespace(made=made, seeds=seeds, cells=cells)


def run(spies, protocol, model, setting=(), **more):
    """Result of a task, the spies that it made and the bulk side that they saw."""
    del spies.made[:], spies.seeds[:]
    result = protocols.run_task(Task(NAME, protocol, model, "smoke", tuple(setting), **more))
    assert set(spies.seeds) == {result.task.seed}
    return result, list(spies.made), _source(result.task.seed)


def same_source(a, b):
    """Whether two bulk sides hold the same rows, labels and split."""
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("X", "y", "genes", "train"))


# --- S: cross-validation and stress splits ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ATSDP, NO_TRANSFER, "Logistic", "kNN", "CNN", "GAT"])
def test_each_fold_is_trained_on_the_labelled_rest_and_scored_once(spies, model):
    result, models, source = run(spies, "S", model, [("balance", "none")], folds=4, seed=2, repeat=1)
    y, labelled = spies.cells.y, spies.cells.labelled
    assert len(models) == 4 and result.row.tolist() == labelled.tolist()
    for i, m in enumerate(models):
        (fit,), (scored,) = m.fits, m.scored
        trained = rows_of(fit.X)
        assert fit.how == "fit" and fit.balance == "none" and same_source(fit.source, source)
        assert sorted(trained) == np.setdiff1d(labelled, scored).tolist()
        np.testing.assert_array_equal(fit.y, y[trained])
        assert set(result.row[result.fold == i]) == set(scored)
        np.testing.assert_allclose(fit.X.mean(0), 0, atol=1e-5)  # standardised on the rows of the fit alone
    np.testing.assert_array_equal(result.y, y[result.row])
    np.testing.assert_array_equal(result.p, result.row / 1000)
    assert result.parameters == 7


def test_all_models_seeds_and_settings_share_the_folds_of_a_repeat(spies):
    asked = [(ATSDP, ()), (NO_TRANSFER, ()), ("Logistic", ()), ("Majority", ()), (ATSDP, (("heads", 2),)),
             ("kNN", (("balance", "undersampling"),))]  # fmt: skip
    folds = {tuple(run(spies, "S", m, s, folds=3, seed=i)[0].fold) for i, (m, s) in enumerate(asked)}
    assert len(folds) == 1
    assert tuple(run(spies, "S", ATSDP, folds=3, repeat=1)[0].fold) not in folds


def test_a_stress_split_trains_on_one_culture_and_scores_the_other(spies):
    group, y = spies.cells.group, spies.cells.y
    for train, test in ("AB", "BA"):
        setting = [("train_cultures", (train,)), ("test_cultures", (test,)), ("balance", "none")]
        result, (model,), _ = run(spies, "S", ATSDP, setting)
        assert set(group[rows_of(model.fits[0].X)]) == {train} and set(group[result.row]) == {test}
        assert len(model.fits[0].X) == ((group == train) & (y >= 0)).sum()
        assert result.row.tolist() == np.flatnonzero((group == test) & (y >= 0)).tolist()
    both = [("train_cultures", ("A", "B")), ("test_cultures", ("B",))]
    assert not len(run(spies, "S", ATSDP, both)[0].row)  # a culture in both parts is trained on, and not scored


def test_shuffled_labels_are_learned_and_scored_alike_and_depend_on_the_seed(spies):
    found = {}
    for seed in (0, 1):
        result, models, _ = run(spies, "S", "kNN", [("permute", True), ("balance", "none")], folds=3, seed=seed)
        dealt = dict(zip(result.row.tolist(), result.y.tolist(), strict=True))
        for m in models:
            assert [dealt[r] for r in rows_of(m.fits[0].X)] == m.fits[0].y.tolist()
        assert result.row.tolist() == spies.cells.labelled.tolist()
        assert np.bincount(result.y).tolist() == np.bincount(spies.cells.y[result.row]).tolist()
        assert (result.y != spies.cells.y[result.row]).mean() > 0.2
        found[seed] = result.y
    assert (found[0] != found[1]).any()


def test_the_strict_reading_leaves_cells_out_of_training_and_score(spies):
    result, models, _ = run(spies, "S", "Logistic", [("strict", True), ("balance", "none")], folds=3)
    wanted = np.flatnonzero(spies.cells.strict >= 0)
    assert result.row.tolist() == wanted.tolist() and len(wanted) < len(spies.cells.labelled)
    for m in models:
        assert set(rows_of(m.fits[0].X)) | set(m.scored[0]) == set(wanted)


def test_all_wells_are_dealt_to_the_folds_as_sensitive(spies):
    plain, _, _ = run(spies, "S", ATSDP, [("balance", "none")], folds=3)
    result, models, _ = run(spies, "S", ATSDP, [("all_wells", True), ("balance", "none")], folds=3)
    added = np.flatnonzero(spies.cells.y < 0)
    assert result.row.tolist() == list(range(CELLS)) and (result.y[added] == 1).all()
    known = spies.cells.labelled
    assert result.fold[known].tolist() == plain.fold.tolist() and result.y[known].tolist() == plain.y.tolist()
    for m in models:
        rows = rows_of(m.fits[0].X)
        assert sorted([*rows, *m.scored[0]]) == list(range(CELLS)) and m.fits[0].y.tolist() == result.y[rows].tolist()


def test_library_size_is_the_only_column_of_its_model(spies, monkeypatch):
    monkeypatch.setattr(Spy, "predict_proba", lambda self, X: np.full(len(X), 0.5))
    _, (model, *_), _ = run(spies, "S", "LibrarySize", folds=2)
    task = Task(NAME, "S", "LibrarySize", "smoke", folds=2)
    np.testing.assert_allclose(inputs.features(task, _source(0))[:, 0], np.log1p(1000 + np.arange(CELLS)), rtol=1e-6)
    assert model.fits[0].X.shape[1] == 1


# --- balancing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", config.BALANCING)
@pytest.mark.parametrize("model", [ATSDP, "Logistic"])
def test_a_model_gets_its_rows_as_measured_and_the_strategy_of_the_task(spies, model, how):
    """A model that stops early holds rows out before it balances the others."""
    _, models, _ = run(spies, "S", model, [("balance", how)], folds=2, seed=4)
    for m in models:
        (fit,) = m.fits
        rows = rows_of(fit.X)
        assert fit.balance == how and len(set(rows)) == len(rows)
        assert not set(rows) & set(m.scored[0]) and fit.y.tolist() == spies.cells.y[rows].tolist()


def test_without_a_word_rows_are_balanced_as_the_paper_chose_and_the_majority_class_never(spies):
    spec = config.DATASETS[NAME]
    assert spec.balance == "oversampling" and config.DATASETS["DATA1-sim"].balance == "smote"
    for model, how in (("Logistic", "oversampling"), (ATSDP, "oversampling"), ("Majority", "none")):
        _, models, _ = run(spies, "S", model, folds=2)
        assert {m.fits[0].balance for m in models} == {how}


# --- U, F, B ----------------------------------------------------------------------------------------------------------


def test_transfer_sees_all_cells_without_labels_and_scores_the_labelled(spies):
    for model, setting, how in ((ATSDP, (), "once"), (ATSDP, [("omega", 0.0)], "transfer"), (PLUS, (), "transfer"),
                                (BULK_ONLY, (), "bulk")):  # fmt: skip
        result, (m,), source = run(spies, "U", model, setting, seed=3)
        (fit,) = m.fits
        assert fit.how == how and same_source(fit.source, source)
        if how != "bulk":
            assert rows_of(fit.X).tolist() == list(range(CELLS))
        assert result.row.tolist() == m.scored[0].tolist() == spies.cells.labelled.tolist()
        assert result.y.tolist() == spies.cells.y[result.row].tolist() and (result.p == result.row / 1000).all()


def test_a_separate_gene_space_holds_the_cells_own_most_variable_genes(spies, monkeypatch):
    wide = np.hstack([spies.cells.X, 30 * np.random.default_rng(0).normal(size=(CELLS, 1))]).astype(np.float32)
    cells = dataclasses.replace(spies.cells, X=wide, genes=np.append(GENE_NAMES, "OWN"))
    monkeypatch.setattr(inputs, "cells_of", lambda *a: cells)
    monkeypatch.setattr(Spy, "predict_proba", lambda self, X: np.full(len(X), 0.5))
    _, (m,), _ = run(spies, "U", ATSDP, [("gene_space", "separate")])
    assert m.fits[0].how == "transfer" and m.fits[0].X.shape == (CELLS, GENES)
    own = preprocess.Standardizer().fit(wide[:, -1:]).transform(wide[:, -1:])
    np.testing.assert_allclose(m.fits[0].X[:, -1:], own, rtol=1e-5)


def test_only_a_separate_gene_space_has_an_encoder_of_its_own():
    for setting, separate in (((), False), ((("gene_space", "separate"),), True)):
        task = Task(NAME, "U", ATSDP, "smoke", setting)
        assert build(task).own_start is separate


def test_own_genes_of_equal_variance_come_in_an_order_that_no_rounding_draws(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 40)).astype(np.float32)
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)  # as a set that was published z-scored by gene
    found, task = [], Task(NAME, "U", ATSDP, "smoke", (("gene_space", "separate"),))
    for scale in (1, 1 + 1e-6):
        cells = SimpleNamespace(X=X * np.float32(scale), genes=np.arange(40))
        monkeypatch.setattr(inputs, "cells_of", lambda *_, c=cells: c)
        monkeypatch.setattr(inputs, "features", lambda task, source: np.zeros((30, 10)))
        found.append(inputs.unlabelled(task, None))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_no_setting_that_is_searched_is_without_effect():
    grid = searched(Task(NAME, "S", NO_TRANSFER, "smoke")).grid
    assert set(grid) == {"noise", "learning_rate"} and all(a != b for a, b in grid.values())


@pytest.mark.parametrize("how", ["none", "undersampling"])
def test_a_baseline_under_u_learns_from_training_lines_with_a_label(spies, how):
    result, (m,), source = run(spies, "U", "Logistic", [("balance", how)], seed=1)
    lines = rows_of(m.fits[0].X, LINE_CODE)
    assert set(lines) <= set(source.fit_rows) and m.fits[0].y.tolist() == source.y[lines].tolist()
    assert len(lines) == len(source.fit_rows) and m.fits[0].balance == how
    assert result.row.tolist() == spies.cells.labelled.tolist()


@pytest.mark.parametrize("model", [ATSDP, BULK_ONLY, "Logistic"])
def test_permuted_lines_keep_all_but_the_places_of_their_labels(spies, model):
    dealt = set()
    for seed in range(3):
        result, (m,), source = run(spies, "U", model, [("permute_lines", True), ("balance", "none")], seed=seed)
        (fit,) = m.fits
        given = fit.source
        assert fit.how != "once" and result.y.tolist() == spies.cells.y[result.row].tolist()
        assert all(np.array_equal(getattr(given, f), getattr(source, f)) for f in ("X", "genes", "train"))
        assert ((given.y < 0) == (source.y < 0)).all() and (given.y != source.y).any()
        assert np.bincount(given.y[given.y >= 0]).tolist() == np.bincount(source.y[source.y >= 0]).tolist()
        if fit.how == "fit":
            assert fit.y.tolist() == given.y[given.fit_rows].tolist()
        dealt.add(tuple(given.y))
    assert len(dealt) == 3


@pytest.mark.parametrize(("protocol", "model", "more"), [("F", ATSDP, [("k", 1)]), ("S", ATSDP, []), ("U", PLUS, []),
                                                         ("U", "SA", [("tune", True)])])  # fmt: skip
def test_lines_are_permuted_only_where_all_that_learns_from_them_sees_it(spies, protocol, model, more):
    with pytest.raises(ValueError, match="permute_lines needs protocol U, a model of one drug and no search"):
        run(spies, protocol, model, [("permute_lines", True), *more], folds=2)


def test_the_ensemble_has_no_training_with_a_few_labels(spies):
    with pytest.raises(ValueError, match=r"plus_study\.joined"):
        run(spies, "F", PLUS, [("k", 1)])


def test_a_search_under_u_reads_lines_of_the_first_seed_and_no_cell(spies, monkeypatch):
    asked = []

    def tuned(task, X, y, source):
        asked.append((task, rows_of(X, LINE_CODE), y))
        return SimpleNamespace(chosen_={"dropout": 0.25})

    monkeypatch.setattr(protocols, "tuned", tuned)
    for seed in (0, 3):
        del spies.made[:]
        result = protocols.run_task(Task(NAME, "U", "SA", "smoke", (("tune", True),), seed=seed))
        (m,), of_search, source = spies.made, _source(0), _source(seed)
        assert m.task.options == {"tune": True, "dropout": 0.25} and m.task.seed == seed
        assert result.chosen == ({"dropout": 0.25},)
        assert rows_of(m.fits[0].X, LINE_CODE).tolist() == source.fit_rows.tolist()
    for task, rows, y in asked:
        assert task.seed == 0 and rows.tolist() == of_search.fit_rows.tolist()
        assert y.tolist() == of_search.y[of_search.fit_rows].tolist()


@pytest.mark.parametrize("model", [ATSDP, "Logistic"])
@pytest.mark.parametrize("k", [1, 4])
def test_few_shot_learns_k_cells_of_each_class_with_their_labels_and_scores_the_others(spies, model, k):
    drawn = set()
    for seed in range(3):
        result, (m,), source = run(spies, "F", model, [("k", k)], seed=seed)
        (fit,) = m.fits
        rows = rows_of(fit.X)
        assert fit.y.tolist() == spies.cells.y[rows].tolist()
        assert np.bincount(fit.y).tolist() == [k, k] and len(set(rows)) == 2 * k
        assert set(result.row) == set(spies.cells.labelled) - set(rows) and same_source(fit.source, source)
        assert result.y.tolist() == spies.cells.y[result.row].tolist()
        if fit.how == "few":
            assert rows_of(fit.all).tolist() == list(range(CELLS))
        drawn.add(tuple(rows))
    assert len(drawn) == 3


@pytest.mark.parametrize("how", [None, "oversampling", "undersampling"])
def test_held_out_lines_are_scored_and_never_fitted(spies, monkeypatch, how):
    source = _source(6)
    monkeypatch.setattr(inputs, "bulk_side", lambda task: source)
    monkeypatch.setattr(Spy, "predict_proba", lambda self, X: rows_of(X, LINE_CODE) / 1000)
    setting = [("balance", how)] if how else []
    for model in (ATSDP, BULK_ONLY, "Logistic"):
        result = protocols.run_task(Task("CISPLATIN", "B", model, "smoke", tuple(setting), seed=6))
        assert result.row.tolist() == source.test_rows.tolist() == np.round(1000 * result.p).astype(int).tolist()
        assert result.y.tolist() == source.y[result.row].tolist()
        (fit,) = spies.made[-1].fits
        if model != "Logistic":
            assert fit.how == "bulk" and fit.source is source
            continue
        lines = rows_of(fit.X, LINE_CODE)
        assert set(lines) <= set(source.fit_rows) and fit.y.tolist() == source.y[lines].tolist()
        assert len(lines) == len(source.fit_rows) and fit.balance == (how or "none")


def test_the_bulk_side_of_a_held_out_task_is_split_by_its_seed():
    task = Task("CISPLATIN", "B", ATSDP, "smoke", (("max_genes", 120),))
    zero, one = (inputs.bulk_side(dataclasses.replace(task, seed=s)) for s in (0, 1))
    assert len(zero.genes) == 120 and (zero.train != one.train).any()
    assert set(zero.train[~one.train]) == {True, False}


# --- what is built: seeds and options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [ATSDP, NO_TRANSFER, BULK_ONLY, PLUS, *REGISTRY])
def test_the_seed_of_a_task_is_the_seed_of_its_model(model):
    for seed in (0, 13):
        made = build(Task(NAME, "U", model, "smoke", seed=seed))
        assert getattr(made, "model", made).seed == seed


@pytest.mark.parametrize("paper", TABLE2)
@pytest.mark.parametrize("protocol", ["S", "U"])
def test_networks_have_the_sizes_of_their_set_and_the_settings_of_the_profile(paper, protocol):
    spec = config.DATASETS[f"{paper}-sim"]
    for model in (ATSDP, NO_TRANSFER, BULK_ONLY, PLUS):
        made = build(Task(spec.name, protocol, model, "quick"))
        assert made.arch == TABLE2[paper]
        assert made.cfg == dataclasses.replace(config.PROFILES["quick"].training, balance=spec.balance)
        if model != PLUS:
            assert made.pretrained == (model != NO_TRANSFER)


OTHER = {
    "bottleneck": 64, "encoder": (20,), "predictor": (9,), "dropout": 0.11, "heads": 2, "attention": "linear",
    "tokens": 8, "token_dim": 64, "noise": 0.31, "learning_rate": 0.02, "weight_decay": 0.3, "batch_size": 17,
    "epochs_dae": 3, "epochs_predictor": 4, "epochs_transfer": 5, "epochs_tune": 6, "patience": 7, "omega": 0.9,
    "theta": 0.8, "validation": 0.3, "epochs_cells": 8, "mmd_scale": 30.0, "align": "coral", "stopping": "last epoch",
}  # fmt: skip


@pytest.mark.parametrize("option", OTHER)
def test_every_size_and_training_setting_of_a_task_reaches_its_network(option):
    for model in (ATSDP, NO_TRANSFER, PLUS):
        plain = build(Task(NAME, "U", model, "smoke"))
        made = build(Task(NAME, "U", model, "smoke", ((option, OTHER[option]),)))
        part = "arch" if hasattr(made.arch, option) else "cfg"
        assert getattr(made, part) == dataclasses.replace(getattr(plain, part), **{option: OTHER[option]})
        other = {"arch": "cfg", "cfg": "arch"}[part]
        assert getattr(made, other) == getattr(plain, other)


def test_the_options_above_are_all_there_are():
    names = {f.name for c in (Architecture, Training) for f in dataclasses.fields(c)}
    assert names - {"balance"} == set(OTHER)


def test_lines_are_balanced_by_the_option_under_u_and_b_and_by_the_papers_choice_under_s():
    for name in ("DATA1-sim", "DATA2-sim"):
        spec = config.DATASETS[name]
        for protocol, expected in (("U", "undersampling"), ("B", "undersampling"), ("S", spec.balance)):
            task = Task(name, protocol, ATSDP, "smoke", (("balance", "undersampling"),))
            assert build(task).cfg.balance == expected


@pytest.mark.parametrize("model", REGISTRY)
def test_hyperparameters_of_a_baseline_are_the_registrys_with_the_tasks_changes(model):
    seen, entry = [], REGISTRY[model]
    spy = dataclasses.replace(entry, factory=lambda **given: seen.append(given))
    own = {"depth": 3} | {name: 0.5 for name in [*entry.hyperparameters][:1]}
    task = Task(NAME, "S", model, "smoke", (("balance", "none"), ("permute", True), *own.items()), seed=5, folds=2)
    original = dict(REGISTRY)
    try:
        REGISTRY[model] = spy
        build(task)
    finally:
        REGISTRY.update(original)
    defaults = REGISTRY[entry.variant_of or model].hyperparameters
    assert seen == [{"seed": 5} | defaults | budget(task) | own]


def test_recipe_and_members_reach_the_ensemble():
    task = Task(NAME, "U", PLUS, "smoke", (("recipe", "joint-linear"), ("members", 3)))
    made = build(task)
    assert made.recipe == config.RECIPES["joint-linear"] and made.members == 3


def test_parts_of_a_seed_go_where_they_are_drawn(monkeypatch):
    asked = []
    monkeypatch.setattr(inputs, "source_of", lambda dataset, profile, seed: asked.append(seed))
    task = Task(NAME, "U", ATSDP, "smoke", seed=3, seeds=(("lines", 4), ("weights", 5), ("batches", 6)))
    inputs.bulk_side(task)
    model = build(task)
    assert (asked, model.weights_seed, model.seed) == ([4], 5, 6)
    plain = build(Task(NAME, "U", ATSDP, "smoke", seed=3))
    assert (plain.weights_seed, plain.seed) == (3, 3)
