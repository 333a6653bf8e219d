"""ATSDP-NET+: learning a planted transfer, ensembles, joint stage, calibration, and a choice blind to the cells."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from atsdp_utils.data import datasets, preprocess, real_cells
from atsdp_utils.data.preprocess import Source
from atsdp_utils.evaluation import plus_study
from atsdp_utils.experiments import inputs, protocols, pseudo, tables
from atsdp_utils.foundation import config, paths
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import joint, plus, stages
from atsdp_utils.models.calibration import Calibration
from atsdp_utils.models.plus import ATSDPPlus

ARCH = Architecture(bottleneck=16, encoder=(32, 16), predictor=(16,), dropout=0.1, heads=2, tokens=4, token_dim=4)
CFG = Training(epochs_dae=4, epochs_predictor=20, epochs_transfer=6, patience=20, batch_size=32, balance="oversampling")
GENES, DRUGS = 40, 6


@pytest.fixture(autouse=True)
def _one_thread_and_own_cache(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "pretrained")


def rows(n, seed, effect=1.0, positive=0.3):
    """Rows whose first ten genes carry the label, standardised."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < positive).astype(np.int8)
    X = rng.normal(size=(n, GENES)) * rng.uniform(0.5, 2, GENES)
    X[:, :10] += effect * (2 * y[:, None] - 1)
    return preprocess.Standardizer().fit_transform(X), y


def source(seed=0):
    """Lines with labels of six drugs that share the planted axis; some labels are missing."""
    X, y = rows(200, seed)
    rng = np.random.default_rng(seed)
    others = np.where(rng.random((200, DRUGS)) < 0.1, 1 - y[:, None], y[:, None]).astype(np.int8)
    others[rng.random(others.shape) < 0.2] = -1
    others[:, 2] = y
    return Source(X, y, np.array([f"G{i}" for i in range(GENES)]), np.arange(200) >= 60, others)


def fitted(recipe, seed=0, members=2):
    X, y = rows(120, 99, positive=0.6)
    return ATSDPPlus(seed=seed, recipe=recipe, members=members, arch=ARCH, cfg=CFG).fit_transfer(X, source()), X, y


@pytest.mark.parametrize("recipe", config.RECIPES)
@pytest.mark.slow
def test_every_recipe_learns_a_planted_transfer(recipe):
    model, X, y = fitted(recipe)
    assert roc_auc_score(y, model.predict_proba(X)) > 0.9
    assert model.member_proba(X).shape == (2, 120)


@pytest.mark.slow
def test_the_ensemble_is_the_mean_logit_of_its_members_and_deterministic():
    model, X, _ = fitted("ensemble")
    members = model.member_proba(X)
    expected = 1 / (1 + np.exp(-np.log(members / (1 - members)).mean(0)))
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)
    for path in paths.PRETRAINED.glob("*"):  # not by way of the cache
        path.unlink()
    np.testing.assert_array_equal(fitted("ensemble")[0].predict_proba(X), model.predict_proba(X))


@pytest.mark.slow
def test_ensembles_of_two_seeds_share_no_member():
    (a, X, _), (b, _, _) = fitted("ensemble-adabn", 0), fitted("ensemble-adabn", 1)
    p = np.vstack([a.member_proba(X), b.member_proba(X)])
    assert len(np.unique(p.round(6), axis=0)) == 4


@pytest.mark.slow
def test_linear_share_moves_the_logit_towards_the_logistic_regression():
    (network, X, _), (mixed, _, _) = fitted("ensemble"), fitted("ensemble-linear")
    path = mixed.linear_.decision_function(X)
    corr = [np.corrcoef(m.logits(X), path)[0, 1] for m in (network, mixed)]
    assert corr[1] > corr[0]


def test_the_joint_stage_is_trained_once_for_all_drugs():
    src = source()
    labels, column = joint.joint_labels(src)
    assert column == 2 and labels.shape == (200, DRUGS)
    joint.joint_stage(src, ARCH, CFG, 5, 0)
    joint.joint_stage(dataclasses.replace(src, y=src.others[:, 4]), ARCH, CFG, 5, 0)
    assert len(list(paths.PRETRAINED.glob("joint-*"))) == 1


def test_a_drug_outside_the_table_gets_a_column_of_its_own():
    src = source()
    unknown = dataclasses.replace(src, y=(1 - src.y).astype(np.int8))
    labels, column = joint.joint_labels(unknown)
    assert column == 0 and labels.shape == (200, DRUGS + 1)
    alone, column = joint.joint_labels(dataclasses.replace(src, others=None))
    assert column == 0 and alone.shape == (200, 1)


def test_joint_training_ignores_missing_labels():
    src = source()
    net = joint.joint_stage(src, ARCH, CFG, 5, 0)
    test = src.test_rows
    assert roc_auc_score(src.y[test], stages.predict(net, src.X[test], "source")) > 0.9


def test_the_joint_stage_keeps_its_epoch_by_the_rule_of_the_bulk_stage():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(-1, 2, 200), rng.integers(0, 2, 200), np.full(200, -1)], 1)
    stage = joint.JointClassification.of(rng.normal(size=(200, 3)).astype(np.float32), labels, CFG, 0)
    known = [(stage.x_held[:, d], stage.y_held[:, d], stage.weight_held[:, d] > 0) for d in (0, 1)]
    wrong = np.mean([1 - roc_auc_score(y[rows], x[rows]) for x, y, rows in known])
    assert stage.validate(lambda x, domain: x).item() == pytest.approx(wrong, abs=1e-6)
    stage.cfg = dataclasses.replace(CFG, stopping="last epoch")
    assert stage.validate(lambda x, domain: x) is None


def test_adabn_takes_the_statistics_of_the_cells_and_nothing_else():
    net = stages.pretrain(source(), ARCH, CFG, 0).net
    X, _ = rows(80, 7)
    adapted = plus.adabn(net, source(), 3 * X + 1, CFG, 0)
    with torch.no_grad():
        hidden = adapted.target[0](torch.tensor(3 * X + 1))
    np.testing.assert_allclose(adapted.target[1].running_mean, hidden.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adapted.target[0].weight, net.target[0].weight)
    torch.testing.assert_close(adapted.source[1].running_mean, net.source[1].running_mean)
    assert not torch.allclose(net.target[1].running_mean, adapted.target[1].running_mean)


def test_ranks_ignore_any_monotone_distortion_of_a_sample():
    X, _ = rows(5, 3)
    np.testing.assert_allclose(plus.ranks(np.exp(X) * 7), plus.ranks(X))
    assert plus.ranks(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


@pytest.mark.slow
def test_few_labels_can_turn_a_wrong_sign():
    X, y = rows(150, 99)
    wrong = source()
    wrong = dataclasses.replace(wrong, y=(1 - wrong.y).astype(np.int8), others=None)
    few = np.concatenate([np.flatnonzero(y == c)[:20] for c in (0, 1)])
    rest = np.setdiff1d(np.arange(150), few)
    model = ATSDPPlus(recipe="ensemble-adabn", members=2, arch=ARCH, cfg=CFG)
    zero = model.fit_transfer(X, wrong).logits(X)
    both = plus.FewLabels(zero, X, X[few], y[few])
    assert both.share_ == pytest.approx(20 / 25)
    assert roc_auc_score(y[rest], zero[rest]) < 0.2 and roc_auc_score(y[rest], both.join(zero, X)[rest]) > 0.8


def test_targets_compare_with_the_best_simple_model_of_each_set():
    names, sets = list(plus_study.LABEL.values()), ["A375-PLX4720", "SCC47-afatinib"]
    auc = {
        "ATSDP-NET+": (0.9, 0.6),
        "ATSDP-NET": (1.0, 1.0),
        "bulk only": (1.0, 1.0),
        "further steps on bulk": (1.0, 1.0),
    }
    auc |= {names[4]: (0.7, 0.5), names[5]: (0.5, 0.6)}
    auc[names[6]] = (0.4, 0.7)  # the best simple model: the first of one set, the last of the other
    rows = [(d, "real", m, auc[m][i], 0.04 + 0.02 * i) for i, d in enumerate(sets) for m in names]
    table = pd.DataFrame(rows, columns=["dataset", "tier", "model", "mean", "std"])
    reached = plus_study.targets(table, 0.85, 0.05)
    assert reached.met.to_list() == [True, True, True, False, False, False]
    assert reached.reached.to_list() == pytest.approx([0.9, 0.04, 0.9, 0.6, 0.06, 0.6])
    above = reached[reached.target.str.contains("simple")]
    assert above.wanted.to_list() == pytest.approx([0.7, 0.7])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="recipe: got 'best'.*ensemble"):
        ATSDPPlus(recipe="best")


# --- calibration ------------------------------------------------------------------------------------------------------


def test_conformal_sets_by_hand():
    z, y = np.array([-3.0, -2, -1, 0, 1, 2, 3]), np.array([0, 0, 0, 0, 1, 1, 1])
    # Resistant: p = (1 + #{-3, -2, -1, 0 >= z}) / 5; sensitive: p = (1 + #{1, 2, 3 <= z}) / 4.
    sets = Calibration(z, y).sets(np.array([-2.0, 0.5, 5.0]), alpha=0.3)
    assert sets.tolist() == [[True, False], [False, False], [False, True]]
    both = Calibration(z, y).sets(np.array([0.5]), alpha=0.19)
    assert both.tolist() == [[True, True]]


def test_conformal_sets_cover_exchangeable_rows_as_promised():
    rng = np.random.default_rng(0)

    def draw(n):
        y = (rng.random(n) < 0.2).astype(int)
        return rng.normal(1.5 * y), y

    covered = []
    for _ in range(200):
        calibration, (z, y) = Calibration(*draw(200)), draw(500)
        inside = calibration.sets(z, 0.1)[np.arange(500), y]
        covered.append([inside[y == c].mean() for c in (0, 1)])
    resistant, sensitive = np.mean(covered, axis=0)
    # Exact expectation: ceil(0.9 (n + 1)) / (n + 1) for n lines of the class, between 0.9 and 0.9 + 1 / (n + 1).
    assert 0.89 < resistant < 0.92 and 0.89 < sensitive < 0.935


def test_isotonic_probabilities_are_the_shares_among_lines():
    z, y = np.repeat([-1.0, 0.0, 1.0], 10), np.concatenate([[0] * 9 + [1], [0] * 5 + [1] * 5, [0] + [1] * 9])
    np.testing.assert_allclose(Calibration(z, y).proba(np.array([-1.0, 0, 1, 9])), [0.1, 0.5, 0.9, 0.9])


def test_calibration_needs_both_classes_and_a_rate():
    with pytest.raises(ValueError, match="both classes"):
        Calibration(np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match="alpha"):
        Calibration(np.arange(2.0), np.array([0, 1])).sets(np.zeros(1), 1.5)


def test_without_held_out_lines_there_is_no_calibration():
    X, _ = rows(40, 1)
    everything = dataclasses.replace(source(), train=np.ones(200, bool))
    model = ATSDPPlus(recipe="ensemble-adabn", members=1, arch=ARCH, cfg=CFG).fit_transfer(X, everything)
    with pytest.raises(ValueError, match="held-out lines"):
        model.calibration_.proba(model.logits(X))


@pytest.mark.slow
def test_calibration_sees_held_out_lines_only():
    model, _, _ = fitted("ensemble-adabn")
    held = source().test_rows
    assert sum(map(len, model.calibration_.scores_.values())) == len(held) == 60


# --- choice -----------------------------------------------------------------------------------------------------------


def table(**auc):
    """Two tasks of each kind; `auc` gives each candidate's six values."""
    places = [
        ("a", "lines"),
        ("b", "lines"),
        ("a", "pseudo-cells"),
        ("b", "pseudo-cells"),
        ("c", "twin"),
        ("d", "twin"),
    ]
    rows = [(p, k, 0, name, v) for name, values in auc.items() for (p, k), v in zip(places, values, strict=True)]
    return pd.DataFrame(rows, columns=["place", "kind", "seed", "candidate", "auc"])


def test_the_rule_takes_the_simplest_of_the_tied_and_never_a_reference():
    clear = table(plain=[0.6] * 6, joint=[0.7] * 6, Logistic=[0.9] * 6)
    assert plus_study.choose(clear)[0] == "joint"
    # A mean difference of 0.01 whose standard error counts the two kinds of a drug together: tied.
    noisy = table(plain=[0.7] * 6, joint=[0.74, 0.68] * 3)
    name, summary = plus_study.choose(noisy)
    row = summary.set_index("candidate").loc["plain"]
    assert name == "plain" and row.behind == pytest.approx(0.01) and row.behind_se == pytest.approx(0.02236, abs=1e-4)


def test_the_rule_weighs_kinds_alike_and_refuses_gaps():
    with pytest.raises(ValueError, match="missing for joint"):
        plus_study.choose(table(plain=[0.6] * 6, joint=[0.7] * 6).iloc[:-1])
    _, summary = plus_study.choose(table(plain=[0.5, 0.5, 0.6, 0.6, 0.9, 0.9]))
    assert summary.score[0] == pytest.approx((0.5 + 0.6 + 0.9) / 3)


@pytest.mark.slow
def test_evidence_drugs_and_clusters_come_from_the_bulk():
    drugs = pseudo.drugs()
    assert 12 <= len(drugs) <= 16
    target = pseudo.make(drugs[0], "lines", 0, 120)
    assert len(target.X) + len(target.source.X) == 975 and target.source.others.shape[1] == 83
    counts = np.bincount(target.y[target.y >= 0])
    assert counts.min() >= pseudo.MIN_CLASS
    cells = pseudo.make(drugs[0], "pseudo-cells", 0, 120)
    assert len(cells.X) == pseudo.CELLS_PER_LINE * counts.sum()


@pytest.mark.slow
def test_the_choice_never_reads_a_real_cell_or_its_label(monkeypatch, run_folders):
    """Real cells with permuted labels, or no real cells at all, leave the evidence as it is, to the last digit."""
    tasks = [
        t for t in tables.plus_selection("embedded", "smoke") if t.options.get("recipe") in ("plain", "joint-linear")
    ]

    def run():
        return plus_study.evidence([protocols.run_task(t) for t in tasks])

    before = run()
    real = real_cells.load

    def permuted(name):
        adata = real(name)
        order = np.random.default_rng(0).permutation(adata.n_obs)
        adata.obs = adata.obs.iloc[order].set_index(adata.obs_names)
        return adata

    monkeypatch.setattr(real_cells, "load", permuted)
    datasets.load_prepared.cache_clear()
    inputs.cells_of.cache_clear()
    after = run()
    pd.testing.assert_frame_equal(before, after)
    assert plus_study.choose(before)[0] == plus_study.choose(after)[0]

    def refused(name):
        raise AssertionError(f"the choice read {name}")

    monkeypatch.setattr(datasets, "load_cells", refused)
    monkeypatch.setattr(datasets, "load_prepared", refused)
    pd.testing.assert_frame_equal(before, run())


def test_a_mix_holds_the_share_and_the_whole_scarce_class():
    y = np.array([1] * 40 + [0] * 60 + [-1] * 5)
    rows = pseudo.mix(y, 0.1, 0)
    assert (y[rows] == 0).sum() == 60 and (y[rows] == 1).sum() == 7 and len(rows) == len(set(rows.tolist()))
    rows = pseudo.mix(y, 0.8, 0)
    assert (y[rows] == 1).sum() == 40 and (y[rows] == 0).sum() == 10
