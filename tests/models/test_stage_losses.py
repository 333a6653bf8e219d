"""The losses of every stage, the attention block, the optimiser and early stopping, against values made by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from atsdp_utils.data import preprocess
from atsdp_utils.foundation import config
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import discrepancy, loop, losses, network, stages, stopping

CFG = Training(noise=0.0, omega=0.5, theta=0.25, batch_size=64, balance="none", patience=3)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def draws(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def labels(n):
    return torch.from_numpy(RNG.permutation(np.arange(n) % 3 == 0).astype(np.int64))


def by_hand(logits, y, weight=None, balanced=False):
    """Cross-entropy: mean, mean of weighted rows, or mean of the two classes' means."""
    y = y.numpy()
    loss = -log_softmax(np.asarray(logits, float), axis=1)[np.arange(len(y)), y]
    if balanced:
        return (loss[y == 0].mean() + loss[y == 1].mean()) / 2
    return (loss if weight is None else loss * weight.numpy()).mean()


def mmd2(x, y):
    """Equation 15 in numpy, squared, with the median of the pooled squared distances as scale."""
    z = np.vstack([x, y]).astype(float)
    d = ((z[:, None] - z[None]) ** 2).sum(-1)
    scale = np.sort(d[np.triu_indices(len(z), 1)])[(len(z) * (len(z) - 1) // 2 - 1) // 2]
    k = np.mean([np.exp(-d / (b * scale)) for b in (0.25, 0.5, 1, 2, 4)], axis=0)
    n = len(x)
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


def dissimilarity(z, cluster):
    """Equation 17: mean over clusters of the mean of 1 - cos over pairs."""
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for c in np.unique(cluster):
        own = u[cluster == c]
        if len(own) > 1:
            found.append(np.mean([1 - a @ b for i, a in enumerate(own) for j, b in enumerate(own) if i != j]))
    return np.mean(found)


class Net(torch.nn.Module):
    """E_g multiplies by 2 and E_t by 3, P keeps the first two values; what comes in is noted."""

    def __init__(self):
        super().__init__()
        self.source, self.target = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.predictor = torch.nn.Identity()
        self.predictor.forward = lambda z: z[..., :2]
        self.seen = []

    def embed(self, x, domain="target"):
        self.seen.append((domain, x))
        return x * {"source": 2, "target": 3}[domain]

    def forward(self, x, domain="target"):
        return self.predictor(self.embed(x, domain))


def only(steps):
    """The one step of a pass."""
    ((loss, named),) = steps
    return loss.item(), {k: v.item() for k, v in named.items()}


# --- the autoencoder --------------------------------------------------------------------------------------------------


def test_the_autoencoder_reconstructs_the_clean_rows_from_corrupted_ones():
    clean = torch.arange(1.0, 13.0).repeat(40, 1)
    seen = []
    net = lambda x: seen.append(x) or x + 0.5  # noqa: E731
    stage = stages.Denoising(dataclasses.replace(CFG, noise=0.4), loop.Rows(clean), clean[:5])
    loss, _ = only(stage.epoch(net))
    (given,) = seen
    assert 0.3 < (given == 0).float().mean() < 0.5 and ((given == 0) | (given == clean)).all()
    assert loss == pytest.approx(((given + 0.5 - clean) ** 2).mean().item(), rel=1e-6)
    assert stage.validate(net).item() == pytest.approx(0.25)  # held rows are not corrupted
    assert (stage.epochs, stage.trained(1)) == (CFG.epochs_dae, [1])


# --- bulk predictor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_the_predictor_minimises_cross_entropy_on_lines_by_the_source_encoder(weighted):
    x, y, weight = draws(48, 3), labels(48), torch.linspace(0.2, 2, 48)
    x_held, y_held = draws(20, 3), labels(20)
    rows = loop.Rows(x, y, weight if weighted else None)
    stage, net = stages.Classification(CFG, rows, x_held, y_held), Net()
    loss, _ = only(stage.epoch(net))
    assert loss == pytest.approx(by_hand(2 * x[:, :2], y, weight if weighted else None), rel=1e-5)
    held = 2 * x_held[:, :2]
    crossed = by_hand(held, y_held, balanced=True)
    area = roc_auc_score(y_held, held[:, 1] - held[:, 0])
    for rule, expected in {"auc": 1 - area, "cross-entropy": crossed}.items():
        stage.cfg = dataclasses.replace(CFG, stopping=rule)
        assert stage.validate(net).item() == pytest.approx(expected, rel=1e-5)
    stage.cfg = dataclasses.replace(CFG, stopping="last epoch")
    assert stage.validate(net) is None
    assert {k: v.item() for k, v in stage.watch(net).items()} == pytest.approx(
        {"auc": area, "cross_entropy": crossed}, rel=1e-5
    )
    assert stage.trained(net) == [net.source, net.predictor] and stage.epochs == CFG.epochs_predictor


def test_pairs_ranked_the_wrong_way_are_one_minus_auc_with_ties_half():
    z = torch.tensor([0.0, 1.0, 1.0, 2.0, -1.0])
    y = torch.tensor([0, 1, 0, 1, 1])
    logits = torch.stack([torch.zeros(5), z], dim=1)
    # of the six pairs (1, 2, -1 against 0, 1): 1 < 1 is a tie, -1 is below both
    assert stopping.misranked(logits, y).item() == pytest.approx(2.5 / 6)
    assert stopping.misranked(logits[:1], y[:1]).item() == 0.5
    assert set(stopping.STOPPING) == set(config.STOPPING)


def test_lines_and_cells_are_corrupted_at_the_rate_of_the_settings(monkeypatch):
    rates = []
    monkeypatch.setattr(stages, "corrupt", lambda x, p: rates.append(p) or x)
    cfg = dataclasses.replace(CFG, noise=0.35)
    x, y = draws(40, 3), labels(40)
    only(stages.Denoising(cfg, loop.Rows(x), x).epoch(lambda v: v))
    only(stages.Classification(cfg, loop.Rows(x, y, None), x, y).epoch(Net()))
    only(stages.FineTuning(cfg, loop.Rows(x, y, None, None), None, 64, x, y).epoch(Net()))
    assert rates == [0.35] * 3


# --- transfer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("omega", [0.0, 0.5])
@pytest.mark.parametrize("theta", [0.0, 0.25])
def test_transfer_adds_mmd_and_regulariser_to_the_class_loss(omega, theta):
    cfg = dataclasses.replace(CFG, omega=omega, theta=theta)
    x, y, weight = draws(30, 3), labels(30), torch.linspace(0.5, 1.5, 30)
    cells, cluster = draws(50, 3), torch.arange(50) % 4
    cells_of = loop.Rows(cells, cluster if theta else None)
    stage = stages.Transfer(cfg, loop.Rows(x, y, weight), cells_of, discrepancy.MMD())
    net = Net()
    loss, named = only(stage.epoch(net))
    assert [(d, len(v)) for d, v in net.seen] == [("source", 30), ("target", 50)]
    parts = {"class": by_hand(2 * x[:, :2], y, weight)}
    if omega:
        parts["mmd2"] = mmd2(2 * x.numpy(), 3 * cells.numpy())
        assert parts["mmd2"] > 0.01
    if theta:
        parts["regulariser"] = dissimilarity(3 * cells.numpy(), cluster.numpy())
    assert named == pytest.approx(parts, rel=1e-4)
    scale = {"class": 1, "mmd2": omega, "regulariser": theta}
    assert loss == pytest.approx(sum(scale[k] * v for k, v in parts.items()), rel=1e-4)
    assert stage.validate(net) is None  # all epochs run
    assert stage.trained(net)[:-1] == [net.source, net.target, net.predictor] and stage.epochs == cfg.epochs_transfer


def test_coral_is_the_distance_of_covariances_and_the_adversary_trains_critic_and_encoders_against_each_other():
    x, y = draws(30, 3), 2 * draws(40, 3)
    gap = np.cov(x.numpy().T) - np.cov(y.numpy().T)
    assert discrepancy.Coral()(x, y).item() == pytest.approx((gap**2).sum() / 36, rel=1e-4)
    apart = discrepancy.Adversary(3)
    x.requires_grad_()
    value = apart(x, y)
    told = [torch.sigmoid(apart.critic(z).squeeze(1)) for z in (x, y)]
    assert value.item() == pytest.approx(-(told[0].log().mean() + (1 - told[1]).log().mean()).item() / 2, rel=1e-4)
    value.backward()
    plain = (apart.critic[0].weight.grad, x.grad)
    (of_critic, of_lines) = torch.autograd.grad(
        (torch.nn.functional.softplus(-apart.critic(x)).mean() + torch.nn.functional.softplus(apart.critic(y)).mean())
        / 2, (apart.critic[0].weight, x))  # fmt: skip
    torch.testing.assert_close(plain[0], of_critic)
    torch.testing.assert_close(plain[1], -of_lines)  # the encoders see the other sign


def test_mmd_is_larger_the_further_apart_and_its_gradient_pulls_together():
    x, y = draws(30, 4), (draws(30, 4) + 2).requires_grad_()
    value = losses.mmd2(x, y)
    assert value.item() == pytest.approx(mmd2(x.numpy(), y.detach().numpy()), rel=1e-4)
    (gradient,) = torch.autograd.grad(value, y)
    assert losses.mmd2(x, y - 0.5 * gradient / gradient.norm()).item() < value.item()


def test_the_regulariser_is_one_minus_cosine_within_clusters():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0], [5.0, 5.0]])
    # cluster 0: a right angle, 1 - cos = 1; cluster 1: opposite, 2; cluster 2 holds one row and does not count
    assert losses.cluster_dissimilarity(z, torch.tensor([0, 0, 1, 1, 2])).item() == pytest.approx(1.5)


def test_transfer_takes_clusters_only_where_they_count():
    X, y = RNG.normal(size=(60, 5)).astype(np.float32), (np.arange(60) % 3 == 0).astype(np.int8)
    source = preprocess.Source(X, y, np.array(list("abcde")), np.arange(60) < 50)
    net = network.ATSDPNet(5, Architecture(16, (8,), (8,), heads=0))
    with_, without = (stages.Transfer.of(net, source, X, dataclasses.replace(CFG, theta=t), 0) for t in (0.1, 0.0))
    assert with_.cells.values[1] is not None and without.cells.values[1] is None
    assert len(with_.cells) == 60
    assert len(with_.lines) == len(preprocess.hold_out(50, CFG.validation, 0)[0])


def test_transfer_learns_from_no_line_that_chose_the_epoch_of_the_bulk_stage():
    X, y = RNG.normal(size=(60, 5)).astype(np.float32), (np.arange(60) % 3 == 0).astype(np.int8)
    source, cfg = (
        preprocess.Source(X, y, np.array(list("abcde")), np.arange(60) < 50),
        dataclasses.replace(CFG, balance="none"),
    )
    net, rows = network.ATSDPNet(5, Architecture(16, (8,), (8,), heads=0)), source.fit_rows
    for seed in range(3):
        held = stages.Classification.of(X[rows], y[rows], cfg, seed).x_held
        learned = stages.Transfer.of(net, source, X, cfg, seed).lines.values[0]
        both = {r.tobytes() for r in held.numpy()}, {r.tobytes() for r in learned.numpy()}
        assert not both[0] & both[1] and len(both[0]) + len(both[1]) == len(rows)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_fine_tuning_adds_the_lines_and_the_alignment_to_the_loss_of_cells():
    x, y, weight, cluster = draws(32, 3), labels(32), torch.linspace(0.5, 1.5, 32), torch.arange(32) % 3
    z_g, y_g = draws(16, 3), labels(16)
    stage = stages.FineTuning(CFG, loop.Rows(x, y, weight, cluster), loop.Rows(z_g, y_g), 32, x, y)
    net = Net()
    loss, named = only(stage.epoch(net))
    assert [d for d, _ in net.seen] == ["target"]
    expected = {
        "class": by_hand(3 * x[:, :2], y, weight),
        "mmd2": mmd2(z_g.numpy(), 3 * x.numpy()),
        "regulariser": dissimilarity(3 * x.numpy(), cluster.numpy()),
    }
    assert named == pytest.approx(expected, rel=1e-4)
    lines = by_hand(z_g[:, :2], y_g)
    whole = expected["class"] + lines + 0.5 * expected["mmd2"] + 0.25 * expected["regulariser"]
    assert loss == pytest.approx(whole, rel=1e-4)
    z = 3 * x[:, :2]
    ranked = 1 - roc_auc_score(y, z[:, 1] - z[:, 0]) + 1e-4 * by_hand(z, y, balanced=True)
    assert stage.validate(net).item() == pytest.approx(ranked, rel=1e-5) and stage.better == 0
    assert stage.trained(net) == [net.target, net.predictor] and stage.epochs == CFG.epochs_tune


def test_fine_tuning_without_lines_is_the_loss_of_cells_alone():
    x, y = draws(32, 3), labels(32)
    stage = stages.FineTuning(CFG, loop.Rows(x, y, None, None), None, 32, None, None)
    loss, named = only(stage.epoch(Net()))
    assert loss == pytest.approx(by_hand(3 * x[:, :2], y), rel=1e-5) and set(named) == {"class"}
    assert stage.validate(Net()) is None


def test_lines_of_fine_tuning_are_balanced_training_lines_as_the_frozen_encoder_sees_them():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(60, 5)).astype(np.float32), (np.arange(60) % 4 == 0).astype(np.int8)
    y[3] = -1
    source = preprocess.Source(X, y, np.array(list("abcde")), np.arange(60) < 44)
    cells, labels_ = rng.normal(size=(40, 5)).astype(np.float32), (np.arange(40) % 2).astype(np.int8)
    net = Net()
    labels_[:15] = 0
    stage = stages.FineTuning.of(net, cells, labels_, CFG, 0, balance="class_weight", source=source)
    z, y_g = (v.numpy() for v in stage.lines.values)
    assert np.bincount(y_g).tolist() == [np.bincount(y[source.fit_rows])[0]] * 2
    known = {tuple(np.float32(2) * X[i]): y[i] for i in source.fit_rows}
    assert all(known[tuple(row)] == label for row, label in zip(z, y_g, strict=True))
    keep, held = stages.hold_out(40, CFG.validation, 0, labels_)
    x, y_c, w, _ = (v.numpy() for v in stage.cells.values)
    weight = (len(keep) / (2 * np.bincount(labels_[keep])))[labels_[keep]].astype(np.float32)
    for found, expected in ((x, cells[keep]), (y_c, labels_[keep]), (w, weight), (stage.x_held, cells[held]),
                            (stage.y_held, labels_[held])):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("how", ["oversampling", "smote", "undersampling", "none"])
def test_clusters_of_fine_tuning_are_those_of_the_cells_before_balancing(how, monkeypatch):
    """A copy has its cell's cluster, a mixture that of its nearest cell; no copy takes part in finding clusters."""
    rng, seen = np.random.default_rng(4), []
    y = (np.arange(60) % 5 == 0).astype(np.int8)
    cells = (rng.normal(size=(60, 5)) + 9 * (np.arange(60) % 3)[:, None]).astype(np.float32)

    def of_three(X, seed):
        seen.append(X)
        return (X.mean(axis=1) / 9).round().astype(np.int64)

    monkeypatch.setattr(preprocess, "louvain", of_three)
    stage = stages.FineTuning.of(Net(), cells, y, CFG, 0, balance=how, source=None)
    keep, _ = stages.hold_out(60, CFG.validation, 0, y)
    np.testing.assert_array_equal(seen[0], cells[keep])
    x, y_cells, _, clusters = stage.cells.values
    nearest = ((x.numpy()[:, None] - cells[keep]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(clusters.numpy(), of_three(cells[keep], 0)[nearest])
    assert (len(x) == len(keep)) == (how == "none") and len(set(np.bincount(y_cells))) == (1 if how != "none" else 2)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_rows_are_drawn_where_they_are(monkeypatch):
    """Baselines keep their rows in memory, also beside a GPU, whose indices memory does not take."""
    monkeypatch.setattr(loop, "device", lambda: torch.device("meta"))
    rows = loop.Rows(torch.arange(20))
    assert {batch.device.type for batch in rows.batches(8)} == {"cpu"}


class Falling(loop.Stage):
    """The weight grows by the rate each step; the validation loss is its distance from 3."""

    epochs = 50

    def epoch(self, net):
        yield -net.weight.sum(), {}

    def validate(self, net):
        return (net.weight - 3).abs().sum()


def test_training_stops_after_patience_and_returns_to_the_best_weights():
    net = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(net.weight)
    cfg = dataclasses.replace(CFG, learning_rate=1.0, weight_decay=0.0, patience=4)
    history = loop.fit(net, Falling(cfg))
    assert round(net.weight.item()) == 3 and len(history) == 3 + 4
    assert min(h["validation"] for h in history) == pytest.approx((net.weight - 3).abs().item(), abs=1e-5)
    assert not net.training


class Humped(Falling):
    """The loss falls to 2, rises for five epochs, and falls to 1."""

    least = 6

    def validate(self, net):
        i = round(net.weight.item())
        return torch.tensor([9.0, 2, 3, 4, 5, 4, 3, 2, 1.5, 1, *[1.2] * 50][i - 1])


def test_patience_counts_after_the_least_epochs():
    cfg = dataclasses.replace(CFG, learning_rate=1.0, weight_decay=0.0, patience=4)
    nets = []
    for stage in (Humped(cfg), type("Short", (Humped,), {"least": 0})(cfg)):
        net = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(net.weight)
        nets.append((len(loop.fit(net, stage)), round(net.weight.item())))
    assert nets == [(10 + 4, 10), (2 + 4, 2)]


def test_optimiser_and_batches_take_the_settings(monkeypatch):
    made = []
    original = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda p, **o: made.append((list(p), o)) or original(made[-1][0], **o))
    net = network.ATSDPNet(5, Architecture(16, (8,), (8,), heads=2, tokens=4, token_dim=4))
    cfg = dataclasses.replace(CFG, learning_rate=0.007, weight_decay=0.33, batch_size=16, epochs_tune=2)
    X, y = RNG.normal(size=(100, 5)).astype(np.float32), (np.arange(100) % 2).astype(np.int8)
    sizes, epoch = [], stages.FineTuning.epoch
    monkeypatch.setattr(
        stages.FineTuning,
        "epoch",
        lambda self, n: (sizes.append(1) or s for s in epoch(self, n)),
    )
    frozen = net.source[0].weight.clone()
    tuned, history = stages.fine_tune(net, X, y, cfg, 0)
    ((parameters, options),) = made
    assert (options["lr"], options["weight_decay"]) == (0.007, 0.33)
    assert len(parameters) == len([*net.target.parameters(), *net.predictor.parameters()])
    assert len(history) == 2 and len(sizes) == 2 * round(85 / 16)
    assert torch.equal(tuned.source[0].weight, frozen) and not torch.equal(tuned.target[0].weight, frozen)


def test_every_row_is_drawn_once_a_pass():
    rows = loop.Rows(torch.arange(23.0)[:, None])
    drawn = torch.cat([rows[b][0] for b in rows.batches(5)]).flatten()
    assert sorted(drawn.tolist()) == list(range(23)) and drawn.tolist() != list(range(23))
    endless = torch.cat([rows[rows.draw(5)][0] for _ in range(2 * round(23 / 5))]).flatten()
    assert np.bincount(endless.long()).tolist() == [2] * 23


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2])
def test_the_attention_block_by_hand(heads):
    """LayerNorm(x + W_o concat_h softmax(Q K^T / sqrt(d_k)) V), with tokens of an embedding, in numpy."""
    arch = Architecture(bottleneck=12, encoder=(8,), predictor=(4,), heads=heads, tokens=3, token_dim=4)
    block = network.AttentionBlock(arch).eval()
    for p in block.parameters():
        torch.nn.init.normal_(p)
    z = draws(5, 12)
    w = {k: v.detach().numpy().astype(float) for k, v in block.named_parameters()}
    x = z.numpy().astype(float).reshape(5, 3, 4) + w["position"]

    def linear(name, v):
        return v @ w[f"mix.{name}.weight"].T + w[f"mix.{name}.bias"]

    q, k, v = (linear(name, x).reshape(5, 3, heads, 4 // heads) for name in ("w_q", "w_k", "w_v"))
    weights = softmax(np.einsum("nthd,nshd->nhts", q, k) / math.sqrt(4 / heads), axis=-1)
    mixed = linear("w_o", np.einsum("nhts,nshd->nthd", weights, v).reshape(5, 3, 4))
    h = x + mixed
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    expected = (h * w["norm.weight"] + w["norm.bias"]).reshape(5, 12)
    np.testing.assert_allclose(block(z).detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(block.weights(z).detach().numpy(), weights, rtol=1e-3, atol=1e-5)


def test_a_hidden_layer_is_linear_batch_norm_relu_dropout():
    arch = Architecture(bottleneck=16, encoder=(8, 6), predictor=(5,), dropout=0.37, heads=0)
    names = [type(m).__name__ for m in network.Encoder(10, arch)]
    assert names == ["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [m.p for m in network.Encoder(10, arch) if hasattr(m, "p")] == [0.37, 0.37]
    shapes = [tuple(m.weight.shape) for m in network.Decoder(10, arch) if isinstance(m, torch.nn.Linear)]
    assert shapes == [(6, 16), (8, 6), (10, 8)]
    assert [type(m).__name__ for m in network.Predictor(arch).mlp] == ["Linear", "ReLU", "Dropout", "Linear"]


def test_probability_is_that_of_the_second_logit_by_the_encoder_asked_for():
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    net = Net()
    for domain, factor in (("target", 3), ("source", 2)):
        expected = softmax(factor * x[:, :2].astype(float), axis=1)[:, 1]
        np.testing.assert_allclose(stages.predict(net, x, domain), expected, rtol=1e-5)
    np.testing.assert_allclose(stages.predict(net, x), stages.predict(net, x, "target"))
    np.testing.assert_allclose(stages.embed(net, x, "source"), 2 * x)
