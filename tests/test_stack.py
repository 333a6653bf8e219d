"""Stacks of networks: each network of one computes and learns what it would alone."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from atsdp_utils import cache, grid, loop, losses, paths, preprocess, protocols, train
from atsdp_utils.config import Architecture, Training
from atsdp_utils.model import ATSDPNet, DenoisingAutoencoder
from atsdp_utils.protocols import ATSDP, NO_TRANSFER, Task
from atsdp_utils.stack import stack, unstack

#: Without draws a stack has nothing that a network alone has not; and all batches of these rows are of one size.
STILL = Architecture(bottleneck=16, encoder=(32, 16), predictor=(16,), dropout=0.0, heads=2, tokens=4, token_dim=4)
CFG = Training(
    noise=0.0, epochs_dae=12, epochs_predictor=12, epochs_transfer=12, epochs_tune=12, patience=2, batch_size=32,
    balance="oversampling", validation=0.2, learning_rate=3e-3,
)  # fmt: skip
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def networks(arch=STILL, genes=40):
    made = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        made.append(ATSDPNet(genes, arch))
    return made


def balanced(n, seed, shift=0.0, genes=40):
    """Rows whose first ten genes carry the label, half of them sensitive, and a constant shift between domains."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1], n // 2)).astype(np.int8)
    X = rng.normal(size=(n, genes))
    X[:, :10] += 1.2 * (2 * y[:, None] - 1) + shift
    return X.astype(np.float32), y


def lines(seed):
    """160 training lines, half of them sensitive: 128 and 32 after the split of a stage."""
    (X, y), (X_test, y_test) = balanced(160, seed), balanced(20, seed + 50)
    genes = np.array([f"G{i}" for i in range(X.shape[1])])
    return preprocess.Source(np.vstack([X, X_test]), np.append(y, y_test), genes, np.arange(180) < 160)


@pytest.mark.parametrize("reading", ["tokens", "single", "batch", "linear"])
@pytest.mark.parametrize("training", [True, False])
def test_a_stack_computes_what_its_networks_compute(reading, training):
    nets = networks(dataclasses.replace(STILL, attention=reading))
    x = torch.randn(3, 24, 40)
    whole = stack(nets).train(training)
    for domain in ("source", "target"):
        found = whole(x, domain)
        for net, rows, logits in zip(nets, x, found, strict=True):
            torch.testing.assert_close(net.train(training)(rows, domain), logits, rtol=1e-4, atol=1e-5)
    blank = networks(dataclasses.replace(STILL, attention=reading))
    unstack(whole, blank)
    for net, copied in zip(nets, blank, strict=True):  # statistics of batch norm too
        for (name, a), b in zip(net.state_dict().items(), copied.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, msg=name)


def test_a_loss_of_one_network_moves_no_other():
    whole = stack(networks()).train()
    whole(torch.randn(3, 24, 40))[1].sum().backward()
    for name, p in whole.named_parameters():
        if p.grad is not None:
            assert not p.grad[[0, 2]].any(), name
    assert whole.target[0].weight.grad[1].any()


def test_losses_of_a_stack_are_those_of_its_networks():
    x, y = torch.randn(3, 9, 4).double(), torch.randn(3, 7, 4).double()
    cluster = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3, 4], [0] * 9, list(range(9))])
    for scale in (None, 2.0):
        alone = torch.stack([losses.mmd2(a, b, scale) for a, b in zip(x, y, strict=True)])
        torch.testing.assert_close(losses.mmd2(x, y, scale), alone)
    alone = torch.stack([losses.cluster_dissimilarity(a, c) for a, c in zip(x, cluster, strict=True)])
    torch.testing.assert_close(losses.cluster_dissimilarity(x, cluster), alone)
    assert alone[0] > 0 and alone[2] == 0
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: losses.mmd2(a, y, 2.5), (x,))
    assert torch.autograd.gradcheck(lambda a: losses.cluster_dissimilarity(a, cluster), (x,))


def stages(kind, nets):
    """A stage of every network, each with lines and cells of its own."""
    for seed, net in zip(SEEDS, nets, strict=True):
        (X, y), src = balanced(120, seed + 20, shift=0.3), lines(seed)
        if kind == "denoising":
            yield train.Denoising(CFG, loop.Rows(train.tensor(X[:96])), train.tensor(X[96:]))
        elif kind == "classification":
            held = train.tensor(X), train.tensor(y, torch.long)
            weight = np.linspace(0.5, 1.5, 180, dtype=np.float32)[:160]
            yield train.Classification(CFG, train._labelled(src.X[:160], src.y[:160], weight), *held)
        elif kind == "transfer":
            yield train.Transfer.of(src, X, CFG, seed)
        else:
            yield train.FineTuning.of(net, X, y, CFG, seed, weight=None, source=src if kind == "fine-tuning" else None)


@pytest.fixture
def double(monkeypatch):
    """Networks and rows in float64: rounding, which a dozen epochs of Adam let grow, stays far below any difference."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(
        train, "tensor", lambda x, dtype=torch.float64: torch.as_tensor(np.ascontiguousarray(x), dtype=dtype)
    )
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["denoising", "classification", "transfer", "fine-tuning", "fine-tuning without bulk"])
def test_networks_learn_together_what_they_learn_alone(kind, double):
    def fresh():
        torch.manual_seed(9)
        return [DenoisingAutoencoder(40, STILL) for _ in SEEDS] if kind == "denoising" else networks()

    alone, together = fresh(), fresh()
    expected = []
    for seed, net, stage in zip(SEEDS, alone, stages(kind, alone), strict=True):
        torch.manual_seed(seed)
        expected.append(loop.fit(net, stage))
    before = copy.deepcopy(together[0].state_dict())
    found = loop.fit_together(together, [*stages(kind, together)], SEEDS)
    assert not all(torch.equal(a, b) for a, b in zip(before.values(), together[0].state_dict().values(), strict=True))
    for a, b in zip(expected, found, strict=True):
        assert len(a) == len(b)
        for row, other in zip(a, b, strict=True):
            assert row == pytest.approx(other, rel=1e-6, abs=1e-8)
    x = torch.from_numpy(balanced(60, 99)[0]).double()
    for a, b in zip(alone, together, strict=True):  # biases before batch norm do nothing, so weights may differ there
        torch.testing.assert_close(a(x), b(x), rtol=1e-5, atol=1e-6)


def test_a_network_that_stops_keeps_its_best_weights_while_others_go_on():
    class Drift(loop.Stage):
        """Weights grow by the rate each step; validation is best at a target of each network's own."""

        target = torch.tensor([2.0, 6.0])
        epochs = 9

        def epoch(self, net):
            yield -net[0].weight.sum((-1, -2)), {}

        def validate(self, net):
            return (net[0].weight[:, 0, 0] - self.target).abs()

    nets = [torch.nn.Sequential(torch.nn.Linear(1, 1)) for _ in range(2)]
    for net in nets:
        torch.nn.init.zeros_(net[0].weight)
    cfg = dataclasses.replace(CFG, learning_rate=1.0, weight_decay=0.0, patience=2)
    histories = loop.fit_together(nets, [Drift(cfg), Drift(cfg)], (0, 1))
    assert [round(net[0].weight.item()) for net in nets] == [2, 6]
    assert [len(h) for h in histories] == [4, 8]


NAME = "SCC47-afatinib"


@pytest.fixture
def folders(run_folders):
    preprocess.prepare(NAME)
    yield run_folders
    for cached in (protocols.cells_of, protocols.source_of, preprocess.load_prepared):
        cached.cache_clear()


@pytest.mark.parametrize(
    "task",
    [Task(NAME, "S", ATSDP, "smoke", folds=2), Task(NAME, "S", NO_TRANSFER, "smoke", folds=3),
     Task(NAME, "U", ATSDP, "smoke")],
    ids=["S", "S without bulk", "U"],
)  # fmt: skip
def test_a_stack_of_tasks_scores_the_rows_that_each_task_scores(task, folders):
    tasks = [task, dataclasses.replace(task, seed=1, repeat=1 if task.folds else 0)]
    for alone, stacked in zip(map(protocols.run_task, tasks), protocols.run_stack(tasks), strict=True):
        assert alone.task == stacked.task and alone.parameters == stacked.parameters
        for field in ("row", "y", "fold"):
            np.testing.assert_array_equal(getattr(alone, field), getattr(stacked, field))
        assert np.isfinite(stacked.p).all() and np.corrcoef(alone.p, stacked.p)[0, 1] > 0.3


def test_nothing_of_a_fold_reaches_its_network_in_a_stack(folders, monkeypatch):
    seen = []
    fit, balance = preprocess.Standardizer.fit, preprocess.balance
    monkeypatch.setattr(preprocess.Standardizer, "fit", lambda self, X: seen.append(X.copy()) or fit(self, X))
    monkeypatch.setattr(preprocess, "balance", lambda X, y, *a: seen.append(X.copy()) or balance(X, y, *a))
    task = Task(NAME, "S", NO_TRANSFER, "smoke", folds=2)
    X = protocols._features(task, protocols.source_of(NAME, "smoke", 0))
    for part in protocols._parts(task):
        raw, scaled = seen[-2:]
        assert len(raw) == len(scaled) == (protocols._labels(task) >= 0).sum() - len(part.row)
        for row in X[part.row]:
            assert not (raw == row).all(1).any()
        for row in part.X:
            assert not (scaled == row).all(1).any()
        assert len(part.stage.cells) + len(part.stage.x_held) >= len(raw)


def test_on_a_gpu_folds_and_seeds_are_grouped_and_a_resumed_run_trains_the_same_groups(folders, monkeypatch):
    monkeypatch.setattr(cache, "cuda", lambda: True)
    alike = [Task(NAME, "S", ATSDP, "smoke", folds=2, seed=s, repeat=s) for s in range(3)]
    other = [Task(NAME, "S", ATSDP, "smoke", (("heads", 4),), folds=2), Task(NAME, "U", ATSDP, "smoke")]
    alone = [Task(NAME, "S", "Logistic", "smoke", folds=2), Task(NAME, "F", ATSDP, "smoke", (("k", 3),))]
    monkeypatch.setattr(protocols, "STACK", 4)  # networks: two tasks of two folds
    keys = {protocols.key(t): t for t in (*alone, *alike, *other)}
    groups = [[*group.values()] for group in grid.stacks(keys)]
    assert sorted(map(len, groups)) == [1, 1, 1, 1, 1, 2] and alike[:2] in groups
    first = grid.run([*alike, *other])
    grid.result_path(protocols.key(alike[1])).unlink()
    kept = grid.result_path(protocols.key(alike[0])).stat().st_mtime_ns
    again = grid.run([*alike, *other])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.p, b.p)
    assert grid.result_path(protocols.key(alike[0])).stat().st_mtime_ns == kept
    assert list(paths.PRETRAINED.glob("transfer-*.pt"))  # few-shot learning starts from it


def test_a_cpu_build_of_torch_is_known_without_importing_it(monkeypatch):
    monkeypatch.setattr(cache, "version", lambda name: "2.13.0+cpu")
    monkeypatch.setattr(loop, "device", lambda: pytest.fail("torch was asked"))
    assert cache.cuda() is False
    monkeypatch.setenv("ATSDP_DEVICE", "cpu")
    assert cache.cuda() is False
