"""Rows that are held out touch nothing: extreme values and other labels there change not one bit of what is trained.

And the other side: a stored stage is not taken for one with other labels, rows, seed or settings.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.data.preprocess import Source
from atsdp_utils.evaluation import plus_study
from atsdp_utils.experiments import inputs, protocols
from atsdp_utils.experiments.task import ATSDP, PLUS, Result, Task
from atsdp_utils.foundation import config, paths
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import atsdp, calibration, joint, plus, stages
from atsdp_utils.models.plus import ATSDPPlus

ARCH = Architecture(bottleneck=16, encoder=(16,), predictor=(8,), dropout=0.1, heads=2, tokens=4, token_dim=4)
CFG = Training(
    epochs_dae=2,
    epochs_predictor=2,
    epochs_transfer=2,
    epochs_tune=2,
    patience=2,
    batch_size=32,
    balance="smote",
    stopping="last epoch",
)
N, GENES, DRUGS = 120, 20, 4
HELD = np.arange(N) % 5 == 0


@pytest.fixture(autouse=True)
def _one_thread_and_own_cache(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "pretrained")


def lines(*, spoiled: bool) -> Source:
    """Lines of which a fifth is held out; `spoiled`: these have extreme values and the other label."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N, GENES)).astype(np.float32)
    others = (rng.random((N, DRUGS)) < 0.3).astype(np.int8)
    others[rng.random(others.shape) < 0.2] = -1
    if spoiled:
        X[HELD] = rng.choice([-1e4, 1e4], (HELD.sum(), GENES))
        others[HELD] = np.where(others[HELD] < 0, -1, 1 - others[HELD])
    return Source(X, others[:, 1], np.array([f"G{i}" for i in range(GENES)]), ~HELD, others)


def cells(n=60):
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, GENES)).astype(np.float32), (np.arange(n) % 3 == 0).astype(np.int8)


def bits(net) -> dict[str, bytes]:
    """The weights as they are, bit by bit."""
    return {k: v.numpy().tobytes() for k, v in net.state_dict().items()}


def _bulk(source):
    return stages.pretrain(source, ARCH, CFG, 0).net


def _autoencoder(source):
    return stages.pretrain_autoencoder(source.X[source.train], ARCH, CFG, 0)[0]


def _transfer(source):
    return atsdp.ATSDP(arch=ARCH, cfg=CFG).fit_transfer(cells()[0], source).net_


def _separate(source):
    return atsdp.ATSDP(arch=ARCH, cfg=CFG, own_start=True).fit_transfer(cells()[0], source).net_


def _few(source):
    X, y = cells()
    few = [0, 1, 3, 4]
    return atsdp.ATSDP(arch=ARCH, cfg=CFG).fit_few(X, X[few], y[few], source=source).net_


def _supervised(source):
    return atsdp.ATSDP(arch=ARCH, cfg=CFG).fit(*cells(), source=source).net_


def _joint(source):
    return joint.joint_stage(source, ARCH, CFG, 0, 0)


def _plus(recipe):
    def fit(source):
        model = ATSDPPlus(recipe=recipe, members=1, arch=ARCH, cfg=CFG)
        return model.networks(model._features(cells()[0]), dataclasses.replace(source, X=model._features(source.X)))[0]

    return fit


STAGES = {
    "autoencoder": _autoencoder, "bulk stage": _bulk, "transfer": _transfer, "separate genes": _separate,
    "few-shot": _few, "supervised": _supervised, "joint": _joint,
    **{recipe: _plus(recipe) for recipe in config.RECIPES if recipe != "plain"},
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_held_out_lines_change_no_bit_of_a_training(stage, tmp_path, monkeypatch):
    found = []
    for spoiled in (False, True):
        monkeypatch.setattr(paths, "PRETRAINED", tmp_path / f"spoiled-{spoiled}")  # nothing is taken from a cache
        found.append(bits(STAGES[stage](lines(spoiled=spoiled))))
    assert found[0] == found[1]


def test_a_training_does_depend_on_the_lines_that_it_may_see(tmp_path, monkeypatch):
    whole = lines(spoiled=False)
    changed = dataclasses.replace(whole, X=np.where((np.arange(N) == 1)[:, None], 9, whole.X).astype(np.float32))
    for name in ("bulk stage", "transfer", "joint"):
        assert bits(STAGES[name](whole)) != bits(STAGES[name](changed)), name


def test_the_linear_path_of_the_ensemble_is_fitted_on_training_lines():
    coefficients = []
    for spoiled in (False, True):
        model = ATSDPPlus(recipe="ensemble-linear", members=1, arch=ARCH, cfg=CFG)
        model.fit_transfer(cells()[0], lines(spoiled=spoiled))
        coefficients.append(model.linear_.coef_.tobytes() + model.linear_.intercept_.tobytes())
    assert coefficients[0] == coefficients[1]


def test_lines_are_standardised_on_the_training_lines(monkeypatch):
    rng = np.random.default_rng(0)
    names = np.array([f"L{i}" for i in range(50)])
    X = rng.normal(3, 2, (50, 6)).astype(np.float32)
    monkeypatch.setattr(gdsc, "all_labels", lambda given: np.zeros((len(given), 1), np.int8))
    found = []
    for extreme in (0, 1e5):
        bulk = gdsc.Bulk(X.copy(), names, np.array(list("abcdef")), np.zeros(50, np.int8))
        monkeypatch.setattr(gdsc, "load_bulk", lambda *a, b=bulk: b)
        test = np.isin(names, gdsc.held_out_lines(3))
        assert test.sum() == 10
        bulk.X[test] += extreme
        source = gdsc.bulk_source(bulk, bulk.genes, 3)
        assert source.train.tolist() == (~test).tolist()
        np.testing.assert_allclose(source.X[source.train].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(source.X[source.train].std(0), 1, atol=1e-4)
        found.append(source.X[source.train].tobytes())
    assert found[0] == found[1]


def test_cells_of_a_test_fold_change_no_bit_of_its_network(tmp_path, monkeypatch):
    """The whole of a fold: scaler, balancing, bulk anchor and network; a planted test cell is extreme in every gene."""
    X, y = cells(80)
    train_rows, test_rows = np.arange(60), np.arange(60, 80)
    found = []
    for spoiled in (False, True):
        X_now, y_now = X.copy(), y.copy()
        if spoiled:
            X_now[test_rows], y_now[test_rows] = 1e4, 1 - y[test_rows]
        monkeypatch.setattr(protocols, "build", lambda task: atsdp.ATSDP(arch=ARCH, cfg=CFG))
        task = Task("SCC47-afatinib", "S", ATSDP, "smoke", (("balance", "smote"),), folds=2)
        _, model = protocols.fit_fold(task, X_now, y_now, train_rows, test_rows, lines(spoiled=False))
        found.append(bits(model.net_))
    assert found[0] == found[1]


def test_the_calibration_is_of_the_held_out_lines_only(monkeypatch):
    asked = []
    original = calibration.Calibration.__init__

    def spy(self, z, y):
        asked.append((z, y))
        original(self, z, y)

    monkeypatch.setattr(plus.Calibration, "__init__", spy)
    source = lines(spoiled=False)
    model = ATSDPPlus(recipe="ensemble-rank", members=1, arch=ARCH, cfg=CFG).fit_transfer(cells()[0], source)
    ((z, y),) = asked
    assert y.tolist() == source.y[source.test_rows].tolist()
    np.testing.assert_allclose(z, model.line_logits(source.X[source.test_rows]), rtol=1e-4, atol=1e-5)


def test_few_labels_join_by_the_cells_that_are_not_scored(monkeypatch):
    """ATSDP-NET+ with k labelled cells takes the labels of those the other model was given, never of the scored."""
    X, y = cells()
    prepared = preprocess.Cells("A375-PLX4720", "real", "PLX.4720", X, np.array([f"G{i}" for i in range(GENES)]), y, y,
                                y.astype(str), np.zeros(60), np.arange(60).astype(str))  # fmt: skip
    monkeypatch.setattr(inputs, "cells_of", lambda *a: prepared)
    monkeypatch.setattr(inputs, "source_of", lambda *a: lines(spoiled=False))
    seen, original = [], plus.FewLabels.__init__

    def spy(self, zero, X_all, X_few, y_few):
        seen.append((X_few, y_few))
        original(self, zero, X_all, X_few, y_few)

    monkeypatch.setattr(plus.FewLabels, "__init__", spy)
    few, scored = np.array([0, 1, 3, 4]), np.setdiff1d(np.arange(60), [0, 1, 3, 4])
    task = Task("A375-PLX4720", "U", PLUS, "smoke")
    p = np.linspace(0.1, 0.9, 60)
    zero = Result(task, np.arange(60), y, p, np.zeros(60, int), 1.0, 1)
    other = dataclasses.replace(zero, row=scored, y=y[scored], p=p[scored], fold=np.zeros(56, int))
    joined = plus_study.joined(zero, dataclasses.replace(other, task=dataclasses.replace(task, protocol="F")))
    ((X_few, y_few),) = seen
    standard = preprocess.Standardizer().fit_transform(X)
    np.testing.assert_allclose(X_few, plus.ranks(standard)[few], rtol=1e-5)
    assert y_few.tolist() == y[few].tolist() and joined.row.tolist() == scored.tolist()


# --- stored stages ----------------------------------------------------------------------------------------------------


def changes() -> dict[str, object]:
    """One input changed at a time: of the lines, of the seed, of the settings."""
    source = lines(spoiled=False)
    flipped = source.y.copy()
    row = source.fit_rows[0]
    flipped[row] = 1 - flipped[row]
    X = source.X.copy()
    X[row, 0] += 0.5
    mask = source.train.copy()
    mask[row] = False
    others = source.others.copy()
    others[row] = np.where(others[row] < 0, -1, 1 - others[row])
    more = {name: (source, ARCH, dataclasses.replace(CFG, **{name: value}), 0) for name, value in (
        ("noise", 0.4), ("learning_rate", 0.01), ("weight_decay", 0.5), ("batch_size", 20), ("epochs_dae", 0),
        ("epochs_predictor", 1), ("balance", "none"), ("validation", 0.3))}  # fmt: skip
    return {
        "labels": (dataclasses.replace(source, y=flipped, others=others), ARCH, CFG, 0),
        "values": (dataclasses.replace(source, X=X), ARCH, CFG, 0),
        "rows": (dataclasses.replace(source, train=mask), ARCH, CFG, 0),
        "seed": (source, ARCH, CFG, 1),
        "sizes": (source, dataclasses.replace(ARCH, dropout=0.5), CFG, 0),
        **more,
    }


CHANGES = changes()


@pytest.mark.parametrize("what", CHANGES)
def test_a_stored_bulk_stage_is_not_taken_for_another(what, tmp_path, monkeypatch):
    """After a change of one input the network is the one that an empty cache gives, and differs from the stored one."""
    first = bits(stages.pretrain(lines(spoiled=False), ARCH, CFG, 0).net)
    beside = bits(stages.pretrain(*CHANGES[what]).net)
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "empty")
    assert beside == bits(stages.pretrain(*CHANGES[what]).net)
    assert beside != first


@pytest.mark.parametrize("what", ["labels", "values", "rows", "seed", "sizes", "learning_rate"])
def test_a_stored_joint_stage_is_not_taken_for_another(what, tmp_path, monkeypatch):
    first = bits(joint.joint_stage(lines(spoiled=False), ARCH, CFG, 0, 0))
    source, arch, cfg, seed = CHANGES[what]
    beside = bits(joint.joint_stage(source, arch, cfg, seed, seed))
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "empty")
    assert beside == bits(joint.joint_stage(source, arch, cfg, seed, seed)) and beside != first


OF_TRANSFER = {"omega": 0.9, "theta": 0.7, "epochs_transfer": 1, "epochs_cells": 1, "mmd_scale": 9.0, "align": "coral"}


@pytest.mark.parametrize("what", ["cells", "labels", "rows", "seed", "sizes", *OF_TRANSFER])
def test_a_stored_transfer_is_not_taken_for_another(what, tmp_path, monkeypatch):
    def fit(source, arch, cfg, seed, X):
        return bits(atsdp.ATSDP(seed=seed, arch=arch, cfg=cfg).fit_transfer(X, source, keep=True).net_)

    X = cells()[0]
    if what == "cells":
        changed = (*(lines(spoiled=False), ARCH, CFG, 0), np.vstack([X[1:], X[:1] + 3]))
    elif what in OF_TRANSFER:
        changed = (lines(spoiled=False), ARCH, dataclasses.replace(CFG, **{what: OF_TRANSFER[what]}), 0, X)
    else:
        changed = (*CHANGES[what], X)
    first = fit(lines(spoiled=False), ARCH, CFG, 0, X)
    beside = fit(*changed)
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "empty")
    assert beside == fit(*changed) and beside != first


def test_an_autoencoder_of_other_rows_seed_or_noise_is_trained_anew():

    def autoencoder(source, *settings):
        return stages.pretrain_autoencoder(source.X[source.train], *settings)

    source = lines(spoiled=False)
    autoencoder(source, ARCH, CFG, 0)
    count = lambda: len(list(paths.PRETRAINED.glob("dae-*.pt")))  # noqa: E731
    for i, what in enumerate(("values", "rows", "seed", "sizes", "noise", "learning_rate", "epochs_dae"), start=1):
        autoencoder(*CHANGES[what])
        assert count() == i + 1, what
    autoencoder(*CHANGES["labels"])  # it sees no label
    some = np.where(np.arange(N) % 7 == 1, -1, source.y).astype(np.int8)
    stages.pretrain(dataclasses.replace(source, y=some), ARCH, CFG, 0)  # nor whether there is one
    assert count() == i + 1


def test_the_bulk_stage_of_a_network_has_its_seed_and_both_encoders_start_alike():
    source = lines(spoiled=False)
    started = [atsdp.ATSDP(seed=seed, arch=ARCH, cfg=CFG).fit_bulk(source).net_ for seed in (0, 3)]
    assert bits(started[1]) == bits(stages.pretrain(source, ARCH, CFG, 3).net) != bits(started[0])
    before = bits(stages.pretrain_autoencoder(source.X[source.train], ARCH, CFG, 0)[0].encoder)
    for net in (started[0], joint.joint_stage(source, ARCH, CFG, 0, 0)):
        assert bits(net.source) == bits(net.target) != before


def test_members_that_share_an_autoencoder_have_joint_stages_of_their_own():
    source = lines(spoiled=False)
    one, two = (joint.joint_stage(source, ARCH, CFG, seed, 0) for seed in (0, 1))
    assert bits(one) != bits(two)


def test_few_labels_count_by_the_rarer_class():
    X, y = cells()
    few = [0, 1, 2, 4, 5, 7]  # one sensitive cell, five resistant ones
    assert np.bincount(y[few]).tolist() == [5, 1]
    assert plus.FewLabels(np.linspace(-1, 1, 60), X, X[few], y[few]).share_ == 1 / (1 + plus.FEW_HALF)


def test_an_own_start_has_first_weights_of_its_own_and_four_steps_a_pass(monkeypatch):
    X, source = cells()[0], lines(spoiled=False)
    asked, original = [], stages.pretrain_autoencoder

    def spy(X, arch, cfg, seed):
        asked.append((len(X), cfg.batch_size, seed))
        return original(X, arch, cfg, seed)

    monkeypatch.setattr(stages, "pretrain_autoencoder", spy)
    atsdp.ATSDP(arch=ARCH, cfg=dataclasses.replace(CFG, batch_size=128), own_start=True).fit_transfer(X, source)
    (_, of_lines, first), (n, of_cells, second) = asked
    assert (of_lines, first) == (128, 0) and n == len(X) and second != first and round(n / of_cells) >= 4


def test_members_of_an_ensemble_share_the_autoencoder_and_nothing_else(monkeypatch):
    seeds = []
    original = stages.pretrain
    monkeypatch.setattr(
        stages,
        "pretrain",
        lambda *a, autoencoder_seed=None: (
            seeds.append((a[3], autoencoder_seed)) or original(*a, autoencoder_seed=autoencoder_seed)
        ),
    )
    model = ATSDPPlus(seed=2, recipe="ensemble-adabn", members=2, arch=ARCH, cfg=CFG)
    model.fit_transfer(cells()[0], lines(spoiled=False))
    assert seeds == [(2000, 2), (2001, 2)]
    assert bits(model.nets_[0]) != bits(model.nets_[1])


def test_results_of_other_seeds_cells_and_settings_are_computed_and_not_read(run_folders, monkeypatch):
    """What a user sees of the grid: every task that differs in anything is run, and gets its own result back."""
    from atsdp_utils.experiments import grid
    from atsdp_utils.experiments.task import Result, Task

    ran = []

    def fake(task):
        ran.append(task)
        p = np.full(4, np.random.default_rng(len(ran)).random())
        return Result(task, np.arange(4), np.array([0, 1, 0, 1]), p, np.zeros(4, int), 1.0, 1)

    y = np.tile([0, 1], 10).astype(np.int8)
    ready = SimpleNamespace(y=y, labelled=np.arange(20), name="SCC47-afatinib", tier="real", drug="AFATINIB",
                            group=np.zeros(20), strict=1 - y, key="a" * 64)  # fmt: skip
    monkeypatch.setattr(datasets, "is_prepared", lambda name: True)
    monkeypatch.setattr(datasets, "prepare", lambda name: None)
    monkeypatch.setattr(inputs, "cells_of", lambda *a: ready)
    monkeypatch.setattr(protocols, "run_task", fake)
    monkeypatch.setattr(grid, "_prepare_bulk", lambda task: None)
    base = Task("SCC47-afatinib", "S", "Logistic", "smoke", folds=2)
    options = [("balance", "smote"), ("permute", True), ("strict", True), ("C", 0.1), ("tune", True)]
    tasks = [base, *(dataclasses.replace(base, setting=(o,)) for o in options)]
    tasks += [dataclasses.replace(base, **c) for c in ({"seed": 1}, {"repeat": 1}, {"folds": 3}, {"model": "kNN"},
                                                       {"protocol": "U", "folds": 0})]  # fmt: skip
    first = grid.run(tasks)
    assert len(ran) == len(tasks) == len({r.p[0] for r in first})
    again = grid.run(tasks[::-1])
    assert len(ran) == len(tasks) and [r.p[0] for r in again[::-1]] == [r.p[0] for r in first]
    ready.key = "b" * 64  # other values of cells
    grid.run([base])
    assert len(ran) == len(tasks) + 1
