"""Training stages on small planted problems: gradients, learning, determinism, cache."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation import paths
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import stages
from atsdp_utils.models.atsdp import ATSDP

ARCH = Architecture(bottleneck=16, encoder=(32, 16), predictor=(16,), dropout=0.1, heads=2, tokens=4, token_dim=4)
CFG = Training(
    epochs_dae=8, epochs_predictor=25, epochs_transfer=10, epochs_tune=25, patience=25, batch_size=32, balance="none"
)


@pytest.fixture(autouse=True)
def _one_thread_and_own_cache(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path / "pretrained")


def planted(n=160, genes=40, shift=0.0, seed=0):
    """Rows whose first ten genes carry the label, and a constant shift between domains."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.int8)
    X = rng.normal(size=(n, genes))
    X[:, :10] += 1.2 * (2 * y[:, None] - 1) + shift
    return X.astype(np.float32), y


def source(seed=0):
    X, y = planted(seed=seed)
    return Source(X, y, np.array([f"G{i}" for i in range(X.shape[1])]), np.arange(len(y)) >= 30)


def test_autoencoder_learns_to_denoise():
    X, _ = planted()
    _, history = stages.pretrain_autoencoder(X, ARCH, dataclasses.replace(CFG, epochs_dae=30), 0)
    assert history[-1]["validation"] < 0.95 * history[0]["validation"]


@pytest.mark.slow
def test_bulk_stage_predicts_held_out_lines_and_shuffled_labels_do_not():
    src = source()
    net = stages.pretrain(src, ARCH, CFG, 0).net
    test = src.test_rows
    assert roc_auc_score(src.y[test], stages.predict(net, src.X[test], "source")) > 0.9
    # One network can land anywhere, because the planted axis dominates the data; the mean over weights cannot.
    shuffled = []
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(src.y)
        net = stages.pretrain(dataclasses.replace(src, y=labels), ARCH, CFG, seed).net
        shuffled.append(roc_auc_score(src.y[test], stages.predict(net, src.X[test], "source")))
    assert 0.25 < np.mean(shuffled) < 0.75


def test_transfer_updates_both_encoders_and_the_predictor_and_leaves_its_input_alone():
    src, (X, y) = source(), planted(120, seed=9, shift=0.5)
    before = stages.pretrain(src, ARCH, CFG, 0).net
    kept = {k: v.clone() for k, v in before.state_dict().items()}
    after, history = stages.transfer(before, src, X, CFG, 0)
    for k, v in before.state_dict().items():
        assert torch.equal(v, kept[k]), k
    for part in ("source.0.weight", "target.0.weight", "predictor.mlp.0.weight", "predictor.attention.mix.w_q.weight"):
        assert not torch.equal(after.state_dict()[part], kept[part]), part
    assert {"loss", "class", "mmd2", "regulariser"} <= set(history[0])
    assert len(history) == CFG.epochs_transfer  # nothing stops it
    assert roc_auc_score(y, stages.predict(after, X)) > 0.9


def test_without_mmd_and_regulariser_the_target_encoder_gets_no_gradient():
    src, (X, _) = source(), planted(120, seed=9)
    before = stages.pretrain(src, ARCH, CFG, 0).net
    cfg = dataclasses.replace(CFG, omega=0.0, theta=0.0, weight_decay=0.0, epochs_cells=0)
    after, _ = stages.transfer(before, src, X, cfg, 0)
    assert torch.equal(after.target[0].weight, before.target[0].weight)
    assert not torch.equal(after.source[0].weight, before.source[0].weight)


def test_stage_2_goes_on_with_the_autoencoder_of_the_lines_and_touches_nothing_else():
    src, (X, _) = source(), planted(120, seed=9, shift=0.5)
    net = stages.pretrain(src, ARCH, CFG, 0).net
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    history = stages.continue_on_cells(net, X, dataclasses.replace(CFG, epochs_cells=15), 0)
    assert min(h["validation"] for h in history) < history[0]["validation"]
    changed = {k.split(".")[0] for k, v in net.state_dict().items() if not torch.equal(v, kept[k])}
    assert changed == {"target", "decoder"}
    assert stages.continue_on_cells(net, X, dataclasses.replace(CFG, epochs_cells=0), 0) == []


def test_further_steps_see_the_batches_of_transfer_and_learn_nothing_from_the_cells(monkeypatch):
    src, (X, _), (other, _) = source(), planted(120, seed=9, shift=0.5), planted(120, seed=10, shift=3)
    before = stages.pretrain(src, ARCH, CFG, 0).net
    batches: list[list[torch.Tensor]] = []
    original = stages.cross_entropy
    monkeypatch.setattr(stages, "cross_entropy", lambda z, y, w: batches[-1].append(y.clone()) or original(z, y, w))
    trained = []
    for train, cells in ((stages.transfer, X), (stages.further_steps, X), (stages.further_steps, other)):
        batches.append([])
        trained.append(train(before, src, cells, dataclasses.replace(CFG, epochs_cells=0), 0)[0].state_dict())
    assert all(torch.equal(a, b) for a, b in zip(batches[0], batches[1], strict=True))
    assert len(batches[0]) >= CFG.epochs_transfer
    for k, v in trained[1].items():
        assert torch.equal(v, trained[2][k]) or k.startswith("decoder"), k
        if k.startswith("target"):
            assert torch.equal(v, trained[1][k.replace("target", "source")])
    assert not torch.equal(trained[0]["target.0.weight"], trained[1]["target.0.weight"])


@pytest.mark.slow
def test_fine_tuning_freezes_the_source_encoder_and_learns():
    src, (X, y) = source(), planted(150, seed=3)
    start = stages.pretrain(src, ARCH, CFG, 0).net
    tuned, _ = stages.fine_tune(start, X[:100], y[:100], CFG, 0, source=src)
    for a, b in zip(start.source.parameters(), tuned.source.parameters(), strict=True):
        assert torch.equal(a, b)
    assert roc_auc_score(y[100:], stages.predict(tuned, X[100:])) > 0.9


@pytest.mark.slow
def test_fine_tuning_on_two_cells_works():
    src, (X, y) = source(), planted(150, seed=3)
    few = [int(np.flatnonzero(y == 0)[0]), int(np.flatnonzero(y == 1)[0])]
    model = ATSDP(seed=0, arch=ARCH, cfg=CFG).fit_few(X, X[few], y[few], source=src)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.slow
def test_a_regulariser_outside_the_graph_trains_the_network_that_has_none(monkeypatch):
    """Ambiguity 14: the ablation of the ledger is the row without the term."""
    src, (X, _) = source(), planted(120, seed=9, shift=0.5)
    before = stages.pretrain(src, ARCH, CFG, 0).net

    def weights(theta):
        return stages.transfer(before, src, X, dataclasses.replace(CFG, theta=theta), 0)[0].state_dict()

    without, inside = weights(0.0), weights(2.0)
    whole = stages.losses.cluster_dissimilarity
    monkeypatch.setattr(stages.losses, "cluster_dissimilarity", lambda z, cluster: whole(z.detach(), cluster))
    outside = weights(2.0)
    assert all(torch.equal(outside[k], without[k]) for k in without)
    assert not all(torch.equal(inside[k], without[k]) for k in without)


@pytest.mark.slow
def test_a_shared_transfer_is_the_one_that_is_trained_and_is_trained_once(monkeypatch):
    src, (X, _) = source(), planted(120, seed=9)
    trained = ATSDP(seed=0, arch=ARCH, cfg=CFG).fit_transfer(X, src).predict_proba(X)
    first = ATSDP(seed=0, arch=ARCH, cfg=CFG).fit_transfer(X, src, keep=True).predict_proba(X)
    monkeypatch.setattr(stages, "fit", None)  # the second time nothing may be trained
    again = ATSDP(seed=0, arch=ARCH, cfg=dataclasses.replace(CFG, epochs_tune=1)).fit_transfer(X, src, keep=True)
    np.testing.assert_array_equal(first, trained)
    np.testing.assert_array_equal(again.predict_proba(X), trained)


@pytest.mark.slow
def test_same_seed_same_result_other_seed_another():
    src, (X, _) = source(), planted(120, seed=9)

    def run(seed):
        return ATSDP(seed=seed, arch=ARCH, cfg=CFG).fit_transfer(X, src).predict_proba(X)

    first = run(1)
    for path in paths.PRETRAINED.glob("*.pt"):
        path.unlink()
    np.testing.assert_array_equal(first, run(1))
    assert np.abs(first - run(2)).max() > 1e-3


@pytest.mark.slow
def test_cached_stage_gives_the_same_network_and_a_damaged_file_is_replaced():
    src = source()
    first = stages.pretrain(src, ARCH, CFG, 0).net.state_dict()
    for path in paths.PRETRAINED.glob("*.pt"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = stages.pretrain(src, ARCH, CFG, 0).net.state_dict()
    for k, v in first.items():
        assert torch.equal(v, again[k]), k
    cached = stages.pretrain(src, ARCH, CFG, 0).net.state_dict()
    assert all(torch.equal(v, cached[k]) for k, v in first.items())


@pytest.mark.slow
def test_balancing_strategies_share_one_autoencoder():
    src = source()
    for how in ("none", "smote", "class_weight"):
        stages.pretrain(src, ARCH, dataclasses.replace(CFG, balance=how), 0)
    assert len(list(paths.PRETRAINED.glob("dae-*.pt"))) == 1
    assert len(list(paths.PRETRAINED.glob("bulk-*.pt"))) == 3


def test_validation_rows_never_enter_training(monkeypatch):
    """Early stopping watches rows that the optimiser and the sampler do not see."""
    src, seen = source(), []
    original = stages.preprocess.balance

    def spy(X, y, how, seed):
        seen.append(X.copy())
        return original(X, y, how, seed)

    monkeypatch.setattr(stages.preprocess, "balance", spy)
    stages.pretrain(src, ARCH, CFG, 0)
    rows = src.fit_rows
    _, held = stages.hold_out(len(rows), CFG.validation, 0, src.y[rows])
    assert len(seen) == 1
    balanced = {r.tobytes() for r in seen[0]}
    assert not balanced & {r.tobytes() for r in src.X[rows[held]]}
    assert not balanced & {r.tobytes() for r in src.X[~src.train]}


def test_bulk_is_required_unless_switched_off():
    X, y = planted()
    with pytest.raises(ValueError, match="source: got None, expected bulk rows"):
        ATSDP(arch=ARCH, cfg=CFG).fit(X, y)
    ATSDP(arch=ARCH, cfg=CFG, pretrained=False).fit(X, y)
