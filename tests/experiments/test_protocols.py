"""Protocols on the smallest profile: nothing fitted sees a test row, and every protocol runs as it says."""

import dataclasses

import numpy as np
import pytest

from atsdp_utils.data import datasets, preprocess
from atsdp_utils.experiments import inputs, keys, protocols
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, NO_TRANSFER, PROTOCOLS, Task, build
from atsdp_utils.foundation import cache

NAME = "SCC47-afatinib"


@pytest.fixture(autouse=True)
def _folders(run_folders):
    for cached in (inputs.cells_of, inputs.source_of, datasets.load_prepared):
        cached.cache_clear()
    datasets.prepare(NAME)
    yield
    for cached in (inputs.cells_of, inputs.source_of, datasets.load_prepared):
        cached.cache_clear()


def fold_inputs(model, how):
    task = Task(NAME, "S", model, "smoke", (("balance", how),), folds=2)
    cells, source = inputs.cells_of(NAME, "smoke"), inputs.source_of(NAME, "smoke", 0)
    X = preprocess.columns(cells.X, cells.genes, source.genes)
    fold = inputs.splits(cells, 2, 0)
    y = cells.y.copy()
    drop = np.flatnonzero((fold == 1) & (y == 1))[:15]  # unequal classes, so that samplers have something to do
    train = np.setdiff1d(np.flatnonzero(fold == 1), drop)
    return task, X, y, train, np.flatnonzero(fold == 0), source


@pytest.mark.parametrize(
    ("model", "how"),
    [(ATSDP, "smote"), (ATSDP, "class_weight"), ("Logistic", "oversampling"), ("kNN", "undersampling")],
)
def test_no_stage_of_a_fold_sees_a_test_row(model, how):
    """A planted test row, extreme in every gene and wrongly labelled, changes no other prediction.

    A scaler, sampler, feature selection, early stopping or threshold that saw it would move them: the control at the
    end fits the scaler on all rows and shows that.
    """
    task, X, y, train, test, source = fold_inputs(model, how)
    honest, _ = protocols.fit_fold(task, X, y, train, test, source)
    planted, wrong = X.copy(), y.copy()
    planted[test[0]] = 500.0
    wrong[test] = 1 - wrong[test]
    again, _ = protocols.fit_fold(task, planted, wrong, train, test, source)
    np.testing.assert_array_equal(honest[1:], again[1:])
    leaky = preprocess.Standardizer().fit_transform(planted)
    seen, _ = protocols.fit_fold(task, leaky, y, train, test, source)
    rows = preprocess.Standardizer().fit(X[train]).transform(X[train])
    assert np.abs(preprocess.Standardizer().fit_transform(planted)[train] - rows).max() > 0.1
    assert seen.shape == honest.shape


def test_labels_of_cells_never_reach_protocol_u():
    task = Task(NAME, "U", ATSDP, "smoke")
    honest = protocols.run_task(task)
    cells = inputs.cells_of(NAME, "smoke")
    flipped = dataclasses.replace(cells, y=(1 - cells.y).astype(np.int8))
    original = inputs.cells_of
    try:
        inputs.cells_of = lambda *a: flipped
        again = protocols.run_task(task)
    finally:
        inputs.cells_of = original
    np.testing.assert_array_equal(honest.p, again.p)
    np.testing.assert_array_equal(honest.y, 1 - again.y)


def test_splits_are_stratified_saved_and_shared():
    cells = inputs.cells_of(NAME, "smoke")
    fold = inputs.splits(cells, 3, 0)
    for i in range(3):
        assert abs(cells.y[fold == i].mean() - cells.y.mean()) < 0.05
    np.testing.assert_array_equal(fold, inputs.splits(cells, 3, 0))
    assert (fold != inputs.splits(cells, 3, 1)).any()
    with pytest.raises(ValueError, match="folds: got 99 for SCC47-afatinib, expected at most 45"):
        inputs.splits(cells, 99, 0)


def test_every_labelled_cell_is_predicted_once_under_s():
    r = protocols.run_task(Task(NAME, "S", NO_TRANSFER, "smoke", folds=3))
    cells = inputs.cells_of(NAME, "smoke")
    assert sorted(r.row.tolist()) == cells.labelled.tolist()
    assert set(r.fold) == {0, 1, 2} and np.isfinite(r.p).all() and ((r.p >= 0) & (r.p <= 1)).all()


def test_few_shot_scores_the_cells_that_it_was_not_given():
    r = protocols.run_task(Task(NAME, "F", ATSDP, "smoke", (("k", 5),)))
    cells = inputs.cells_of(NAME, "smoke")
    assert len(r.row) == len(cells.labelled) - 10
    assert (cells.y[r.row] == r.y).all()


def test_stress_split_tests_on_the_other_culture():
    cultures = np.unique(inputs.cells_of(NAME, "smoke").group)
    group = np.where(np.arange(len(inputs.cells_of(NAME, "smoke").y)) % 2, "A", "B")
    cells = dataclasses.replace(inputs.cells_of(NAME, "smoke"), group=group)
    original = inputs.cells_of
    try:
        inputs.cells_of = lambda *a: cells
        setting = (("train_cultures", ("A",)), ("test_cultures", ("B",)))
        r = protocols.run_task(Task(NAME, "S", "Logistic", "smoke", setting))
    finally:
        inputs.cells_of = original
    assert len(cultures) == 2 and set(group[r.row]) == {"B"} and len(r.row) == (group == "B").sum()


def test_bulk_protocol_scores_held_out_lines():
    r = protocols.run_task(Task("CISPLATIN", "B", BULK_ONLY, "smoke", (("max_genes", 150), ("balance", "none"))))
    assert 140 < len(r.y) < 180 and set(r.y) == {0, 1}


def test_permuted_labels_keep_the_class_sizes():
    task = Task(NAME, "S", "Logistic", "smoke", (("permute", True),), folds=2)
    cells = inputs.cells_of(NAME, "smoke")
    y = inputs.labels(task)
    assert (y != cells.y).any() and np.bincount(y).tolist() == np.bincount(cells.y).tolist()


def test_a_key_changes_with_setting_code_and_data_only(monkeypatch):
    task = Task(NAME, "S", ATSDP, "smoke", folds=2)
    key = keys.key(task)
    assert key == keys.key(Task(NAME, "S", ATSDP, "smoke", folds=2))
    others = [
        dataclasses.replace(task, seed=1),
        dataclasses.replace(task, setting=(("heads", 2),)),
        dataclasses.replace(task, folds=3),
        dataclasses.replace(task, model=NO_TRANSFER),
        dataclasses.replace(task, profile="quick"),
    ]
    assert len({key, *(keys.key(t) for t in others)}) == 6
    monkeypatch.setattr(cache, "code", lambda *roots, cut=(): "other")
    assert keys.key(task) != key


def test_the_code_of_the_search_counts_where_there_is_a_search(monkeypatch):
    monkeypatch.setattr(cache, "code", lambda *roots, cut=(): roots)
    plain = Task(NAME, "S", "Logistic", "smoke", folds=2)
    tuned = dataclasses.replace(plain, setting=(("tune", True),))
    assert "experiments.protocols.tuned" in keys.code_of(tuned)
    assert "experiments.protocols.tuned" not in keys.code_of(plain)


def test_unknown_names_are_listed():
    with pytest.raises(KeyError, match="model: got 'Oracle', expected ATSDP-NET"):
        build(Task(NAME, "S", "Oracle", "smoke"))
    with pytest.raises(ValueError, match="protocol: got 'X', expected one of"):
        protocols.run_task(Task(NAME, "X", ATSDP, "smoke"))


def test_all_wells_gives_a_label_to_every_well_and_leaves_the_folds_of_the_others(monkeypatch):
    """The literal count of ambiguity 19: wells without a label are sensitive, trained on and scored."""
    cells = inputs.cells_of(NAME, "smoke")
    y = cells.y.copy()
    y[[1, 3, 5]] = -1
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "cells_of", lambda *_: dataclasses.replace(cells, y=y))
        plain = protocols.run_task(Task(NAME, "S", "Majority", "smoke", folds=2))
        literal = protocols.run_task(Task(NAME, "S", "Majority", "smoke", (("all_wells", True),), folds=2))
        shared = protocols.run_task(Task(NAME, "U", "Logistic", "smoke", (("all_wells", True),)))
    assert len(plain.row) == len(y) - 3 and sorted(literal.row) == list(range(len(y)))
    added = np.isin(literal.row, [1, 3, 5])
    assert literal.y[added].tolist() == [1, 1, 1] and set(literal.fold[added]) == {0, 1}
    np.testing.assert_array_equal(literal.row[~added], plain.row)
    np.testing.assert_array_equal(literal.fold[~added], plain.fold)
    assert len(shared.row) == len(y) and shared.y[[1, 3, 5]].tolist() == [1, 1, 1]


def test_models_without_a_fold_neither_train_on_it_nor_predict_it():
    cells = inputs.cells_of(NAME, "smoke")
    task = Task(NAME, "S", ATSDP, "smoke", (("without", 1),), folds=2)
    fold, scored = inputs.splits(cells, 2, 0), []
    for _, test, train in inputs.folds_of(task, cells.y):
        assert (fold[[*test, *train]] == 0).all() and not set(test) & set(train)
        assert len(test) + len(train) == (fold == 0).sum() and set(cells.y[train]) == {0, 1}
        scored += test.tolist()
    assert sorted(scored) == np.flatnonzero(fold == 0).tolist()
    assert keys.key(task) != keys.key(dataclasses.replace(task, setting=(("without", 0),)))


def test_wells_are_a_task_of_the_set_that_has_them_and_of_no_other():
    from atsdp_utils.experiments import tables

    for data, name in (("embedded", "DATA4-sim"), ("geo", "DATA4")):
        tasks = tables.wells(data, "smoke")
        assert {t.dataset for t in tasks} == {name} and {t.protocol for t in tasks} == {"S", "U"}
        assert all(t.options == {"all_wells": True} for t in tasks)


def test_every_protocol_is_a_function_whose_code_is_in_the_key(monkeypatch):
    monkeypatch.setattr(cache, "code", lambda *roots, cut=(): roots)
    for letter, name in PROTOCOLS.items():
        assert callable(getattr(protocols, name))
        assert f"experiments.protocols.{name}" in keys.code_of(Task(NAME, letter, "Logistic", "smoke"))
