"""Baselines: each learns what is planted, finds nothing in shuffled labels, repeats itself, and cannot cheat."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from atsdp_utils import baselines
from atsdp_utils.baselines import REGISTRY, Baseline, graph, networks
from atsdp_utils.baselines.classical import Logistic
from atsdp_utils.baselines.drugcell import DrugCell, set_mask
from atsdp_utils.baselines.graph import cell_graph
from atsdp_utils.baselines.networks import Block, GeneTransformer, ShuffledCNN, ShuffledGenes
from atsdp_utils.baselines.rows import split
from atsdp_utils.baselines.wrapper import reproducible
from atsdp_utils.data import datasets, preprocess
from atsdp_utils.data.preprocess import Source
from atsdp_utils.evaluation import evaluate
from atsdp_utils.evaluation.metrics import classification_metrics
from atsdp_utils.experiments import inputs, keys, protocols, tables
from atsdp_utils.experiments.task import ATSDP, NO_TRANSFER, Task, build, searched
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import cost

N, GENES, PLANTED = 120, 48, 24
GENE_NAMES = np.array([f"G{i}" for i in range(GENES)])
SETS = {f"set{i}": [f"G{j}" for j in range(12 * i, 12 * i + 12)] for i in range(4)}
EIGHT = ["SA", "ResNet18", "CNN", "Transformer", "GCN", "GAT", "DeepDR", "DrugCell"]
CONSTANT = {"Majority"}
NETWORKS = [name for name, b in REGISTRY.items() if b.network]
#: Models that learn; a shuffled order is tested once, with a model that trains fast.
LEARNERS = [n for n in REGISTRY if n not in CONSTANT and not n.endswith("-shuffled")]


def planted(seed: int = 0, shift: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Cells whose planted genes, a fixed half with mixed signs, differ between classes by `shift`."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(2 * N) % 2)
    X = rng.normal(size=(2 * N, GENES)).astype(np.float32)
    sign = np.where(np.random.default_rng(99).random(PLANTED) < 0.5, -1, 1)
    X[:, ::2] += shift * sign * (y[:, None] - 0.5)
    return X, y


def bulk(seed: int = 7) -> Source:
    X, y = planted(seed)
    return Source(X, y.astype(np.int8), GENE_NAMES, np.arange(len(y)) % 5 > 0)


def make(name: str, seed: int = 0):
    extra = {"gene_sets": SETS} if name == "DrugCell" else {}
    return REGISTRY[name].make(seed=seed, **extra)


def fit_predict(name: str, X, y, seed: int = 0) -> np.ndarray:
    """P(sensitive) of the second half of the rows after training on the first."""
    if REGISTRY[name].features == "library_size":
        X = X[:, :1] if X.shape[1] > 1 else X
    return make(name, seed).fit(X[:N], y[:N], source=bulk()).predict_proba(X[N:])


def auc(y, p) -> float:
    return classification_metrics(y, p)["auc"]


def test_registry_holds_the_papers_eight_and_what_it_left_out():
    assert [b.paper_name for b in REGISTRY.values() if b.paper_name] == EIGHT
    assert {"Majority", "LibrarySize", "Logistic", "PCA+SVM", "RandomForest", "Boosting", "kNN"} <= set(REGISTRY)
    assert all("expression-only adaptation" in REGISTRY[name].label for name in ("DeepDR", "DrugCell"))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_entry_has_the_interface_and_the_same_tuning_budget(name):
    entry = REGISTRY[name]
    model = entry.make(seed=3)
    assert list(inspect.signature(model.fit).parameters) == ["X", "y", "balance", "source"]
    assert inspect.getdoc(type(model))
    if entry.variant_of:
        task = Task("DATA1-sim", "S", name, "quick")
        assert entry.settings() == [{}] and searched(task).name == entry.variant_of
    elif name not in CONSTANT and entry.under_s:
        assert len(entry.settings()) == 4
        defaults = entry.settings()[0]
        shown = {k: v for k, v in entry.hyperparameters.items() if k in defaults}
        assert shown.items() <= defaults.items(), "the first setting of the search is the default"


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.slow
def test_learns_a_planted_problem(name):
    X, y = planted()
    if REGISTRY[name].features == "library_size":
        X = X[:, :1] + 5 * y[:, None]
    p = fit_predict(name, X, y)
    assert p.shape == (N,) and p.dtype == np.float64 and 0 <= p.min() and p.max() <= 1
    assert auc(y[N:], p) > 0.95


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.slow
def test_scores_half_on_shuffled_labels(name):
    """Mean AUC over problems within three standard errors of 0.5, and not because it is constant."""
    areas = []
    for seed in range(4):
        X, y = planted(seed)
        y = np.random.default_rng(seed + 50).permutation(y)
        p = fit_predict(name, X, y, seed)
        assert np.ptp(p) > 0
        areas.append(auc(y[N:], p))
    # null variance of the AUC of 60 against 60 cells
    error = np.sqrt((N + 1) / (12 * 60 * 60) / len(areas))
    assert abs(np.mean(areas) - 0.5) < 3 * error


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.slow
def test_is_deterministic_whatever_ran_before(name):
    X, y = planted(shift=0.3)
    first = fit_predict(name, X, y, seed=1)
    torch.manual_seed(12345)
    np.random.seed(12345)
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(fit_predict(name, X, y, seed=1), first)
    assert torch.equal(torch.random.get_rng_state(), before), "a model leaves the global generator as it found it"


@pytest.mark.parametrize("name", ["SA", "CNN", "GCN", "DrugCell", "Logistic", "PCA+SVM", "Boosting"])
def test_weights_move_the_prediction(name):
    X, y = planted(shift=0.2)
    few = np.r_[np.flatnonzero(y[:N] == 0), np.flatnonzero(y[:N] == 1)[:12]]
    plain, weighted = (make(name).fit(X[few], y[few], balance=w, source=bulk()) for w in ("none", "class_weight"))
    assert weighted.predict_proba(X[N:]).mean() > plain.predict_proba(X[N:]).mean() + 0.015


def test_majority_is_the_share_of_the_training_rows():
    X, y = planted()
    y[: N // 4] = 1
    np.testing.assert_allclose(fit_predict("Majority", X, y), y[:N].mean())


def test_bad_rows_are_named():
    X, y = planted()
    with pytest.raises(ValueError, match=r"expected both 0 \(resistant\) and 1"):
        REGISTRY["Logistic"].make().fit(X, np.ones(len(y)))
    with pytest.raises(ValueError, match="expected \\(n, 1\\), the log library size"):
        REGISTRY["LibrarySize"].make().fit(X, y)
    with pytest.raises(ValueError, match="not finite"):
        REGISTRY["CNN"].make().fit(np.full_like(X, np.nan), y)


# --- inner rows -------------------------------------------------------------------------------------------------------


def test_tuning_scores_every_setting_on_rows_that_it_did_not_train_on():
    seen, given = [], []

    class Spy:
        def __init__(self, *, seed=0, a=0, b=0):
            self.a, self.b = a, b

        def fit(self, X, y, *, balance="none", source=None):
            self.rows = {r.tobytes() for r in X}
            given.append((len(X), balance))
            return self

        def predict_proba(self, X):
            seen.append((self.a, self.b))
            assert not self.rows & {r.tobytes() for r in X}
            return (self.a + self.b) * X[:, 0]  # setting (1, 1) ranks best only if column 0 says the label

    X, y = planted()
    X[:, 0] = y
    entry = Baseline("spy", Spy, {}, {"a": (0, 1), "b": (0, -1)})
    found = baselines.tune(entry, X, y, balance="smote")
    assert seen == [(0, 0), (0, -1), (1, 0), (1, -1)] and found == {"a": 1, "b": 0}
    assert given == [(3 * len(y) // 4, "smote")] * 4
    del seen[:]
    assert baselines.tune(entry, X, y, most=2) == {"a": 0, "b": 0}, "a tie goes to the earlier setting"
    assert seen == [(0, 0), (1, -1)]


@pytest.fixture
def prepared(run_folders):
    """One real set, in folders of this test alone."""
    cached = (inputs.cells_of, inputs.source_of, datasets.load_prepared)
    for function in cached:
        function.cache_clear()
    datasets.prepare("A375-PLX4720")
    yield "A375-PLX4720"
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("model", [ATSDP, NO_TRANSFER, "Logistic", "GCN", "DrugCell"])
@pytest.mark.slow
def test_search_inside_a_fold_sees_no_test_row(prepared, model):
    """Planted test rows with wrong labels change neither the chosen setting nor another prediction."""
    task = Task(prepared, "S", model, "smoke", (("tune", True),), folds=2)
    cells, source = inputs.cells_of(prepared, "smoke"), inputs.source_of(prepared, "smoke", 0)
    X = preprocess.columns(cells.X, cells.genes, source.genes)
    fold, y = inputs.splits(cells, 2, 0), cells.y.copy()
    train, test = np.flatnonzero(fold == 1), np.flatnonzero(fold == 0)
    honest, model = protocols.fit_fold(task, X, y, train, test, source)
    X, y = X.copy(), y.copy()
    X[test[0]], y[test] = 500.0, 1 - y[test]
    again, planted_model = protocols.fit_fold(task, X, y, train, test, source)
    np.testing.assert_allclose(again[1:], honest[1:], rtol=0, atol=1e-6)
    assert planted_model.chosen_ == model.chosen_ and model.chosen_ in searched(task).settings(2)


def test_a_control_takes_the_setting_that_its_model_chose(prepared, monkeypatch):
    cells, source = inputs.cells_of(prepared, "smoke"), inputs.source_of(prepared, "smoke", 0)
    X = preprocess.columns(cells.X, cells.genes, source.genes)
    fold = inputs.splits(cells, 2, 0)
    train, test = np.flatnonzero(fold == 1), np.flatnonzero(fold == 0)

    def fit(model):
        task = Task(prepared, "S", model, "smoke", (("tune", True),), folds=2)
        return protocols.fit_fold(task, X, cells.y, train, test, source)[1]

    highest = max(REGISTRY["CNN"].settings(), key=lambda setting: setting["dropout"])
    monkeypatch.setattr(protocols, "tune", lambda *args, **how: highest)
    chosen = fit("CNN").chosen_
    assert chosen == highest and chosen["dropout"] != REGISTRY["CNN"].defaults["dropout"]
    monkeypatch.setattr(protocols, "tune", None)  # found on disk: nothing is searched again
    control = fit("CNN-shuffled")
    assert control.chosen_ == chosen and control.dropout == chosen["dropout"]


@pytest.mark.parametrize("name", [n for n, b in REGISTRY.items() if (REGISTRY.get(b.variant_of) or b).network])
@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_a_network_has_the_epochs_and_the_patience_of_atsdp_net(name, profile):
    cfg = config.profile(profile).training
    for protocol, epochs in (("S", cfg.epochs_tune), ("U", cfg.epochs_predictor)):
        task = Task("DATA1-sim", protocol, name, profile, (("tune", True),))
        model, trial = build(task), searched(task).trial
        assert (model.epochs, model.patience, model.pretraining) == (epochs, cfg.patience, cfg.epochs_dae)
        assert (model.validation, model.batch_size) == (cfg.validation, cfg.batch_size)
        assert trial == {"epochs": epochs // 4, "pretraining": cfg.epochs_dae // 4}


def test_a_key_holds_the_epochs_that_a_profile_gives_a_network(monkeypatch):
    monkeypatch.setattr(keys, "_values", lambda task: "")
    task, other = (Task("DATA1-sim", "S", name, "quick") for name in ("CNN", "Logistic"))
    before = keys.key(task), keys.key(other)
    quick = config.profile("quick")
    longer = replace(quick, training=replace(quick.training, epochs_tune=21))
    monkeypatch.setitem(config.PROFILES, "quick", longer)
    assert keys.key(task) != before[0] and keys.key(other) == before[1]


def test_every_network_is_searched_over_rates():
    assert NETWORKS == EIGHT
    assert all(len(REGISTRY[name].grid["learning_rate"]) == 2 for name in NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_every_network_can_fit_its_training_rows_at_the_budget_of_quick(name):
    X, y = planted(shift=0.9)
    few = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:60]]
    model = make(name).fit(X[few], y[few], balance="oversampling", source=bulk())
    assert auc(y[few], model.predict_proba(X[few])) >= 0.99
    assert len(model.history_) <= config.profile("quick").training.epochs_tune


def test_no_position_is_skipped_by_a_shortcut():
    """With its branch at zero a block is its shortcut: every position reaches its output."""
    with reproducible(0):
        block = Block(3, 6, 2)
    block.train()
    x = torch.randn(5, 3, 9, requires_grad=True)
    block(x).square().sum().backward()
    assert block(x).shape == (5, 6, 5) and (x.grad.abs().sum((0, 1)) > 0).all()


@pytest.mark.parametrize("model", [ATSDP, NO_TRANSFER])
def test_atsdp_is_searched_with_the_same_budget(model):
    task = Task("DATA1-sim", "S", model, "quick", folds=5)
    entry, cfg = searched(task), config.profile("quick").training
    assert len(entry.settings()) == 4
    assert all(getattr(cfg, name) == value for name, value in entry.settings()[0].items())


@pytest.mark.parametrize("data", ["embedded", "geo"])
@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_table4_trains_every_row_of_the_papers(data, profile):
    tasks = tables.table4(data, profile)
    assert len(set(tasks)) == len(tasks)
    for paper, rows in evaluate.paper_table("table4").groupby("dataset"):
        for protocol in "SU":
            here = [t for t in tasks if (t.dataset, t.protocol) == (config.stand_in(paper, data).name, protocol)]
            assert set(rows["model"]) <= {t.model for t in here}
    size = config.profile(profile)
    assert {t.protocol for t in tasks if t.model == tables.PC1} == {"U"}
    assert {t.folds for t in tasks if t.protocol == "S"} == {size.folds}
    of_real = {t.model: [] for t in tasks}
    for t in (t for t in tasks if t.protocol == "U"):
        of_eight = t.model in REGISTRY and REGISTRY[t.model].paper_name
        on_others = size.seeds_ablation if of_eight else size.seeds
        assert t.seed < (size.seeds_real if t.dataset.startswith(("A375", "SCC47")) else on_others)
        of_real[t.model] += [t.seed] if t.dataset == "A375-PLX4720" else []
    assert all(of_real[model] == list(range(size.seeds_real)) for model in (ATSDP, "Logistic", "CNN", "GAT"))
    assert all(t.options.get("tune") for t in tasks if t.protocol == "S") or profile == "smoke"


def test_cost_of_a_call():
    result, (seconds, megabytes) = cost.measure(lambda: np.ones(4 * 2**20).sum())  # 32 MiB
    assert result == 4 * 2**20 and seconds > 0
    assert np.isnan(megabytes) or 30 < megabytes < 60


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_graph_of_four_cells_at_the_threshold():
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, -1, -1, 1])
    cells = torch.tensor(np.stack([a, 2 * a + 3, b, b + 7]), dtype=torch.float32)
    found = cell_graph(cells)  # correlation over genes ignores scale and offset: 0 with 1, 2 with 3
    assert found.rule == "threshold"
    assert {tuple(e) for e in found.edges.T.tolist()} == {
        (0, 1),
        (1, 0),
        (2, 3),
        (3, 2),
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
    }
    assert found.degree(4).tolist() == [1, 1, 1, 1]


def test_nearest_neighbours_where_the_threshold_isolates_or_joins_all():
    X, _ = planted()
    lonely = cell_graph(torch.from_numpy(X), neighbours=3)
    assert lonely.rule == "neighbours" and lonely.threshold_degree.max() == 0
    assert lonely.degree(len(X)).min() >= 3
    same = torch.from_numpy(X[:1] + 0.01 * X)
    joined = cell_graph(same, neighbours=3)
    assert joined.rule == "neighbours" and joined.threshold_degree.min() == len(X) - 1


@pytest.mark.parametrize("name", ["GCN", "GAT"])
def test_inductive_graph_has_no_edge_between_test_cells(name):
    X, y = planted(shift=0.5)
    model = make(name).fit(X[:N], y[:N])
    to, source = cell_graph(model.train_, torch.from_numpy(X[N:])).edges
    assert ((source < N) | (source == to)).all()
    before = model.predict_proba(X[N:])
    changed = X[N:].copy()
    changed[0] += 5 * planted(seed=3)[0][0]
    after = model.predict_proba(changed)
    np.testing.assert_allclose(after[1:], before[1:], rtol=0, atol=1e-6)
    assert abs(after[0] - before[0]) > 1e-3
    np.testing.assert_allclose(model.predict_proba(X[N : N + 1]), before[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["GCN-transductive", "GAT-transductive"])
def test_transductive_reading_depends_on_the_other_test_cells(name):
    X, y = planted(shift=0.5)
    model = make(name).fit(X[:N], y[:N])
    before = model.predict_proba(X[N:])
    changed = X[N:].copy()
    changed[:60] = planted(seed=3)[0][:60]
    assert np.abs(model.predict_proba(changed)[60:] - before[60:]).max() > 1e-3


def test_graph_convolution_by_hand():
    layer = graph.GraphConvolution(1, 1)
    layer.linear.weight.data.fill_(1), layer.linear.bias.data.fill_(0)
    edges = torch.tensor([[0, 1, 0, 1, 2], [1, 0, 0, 1, 2]])  # 0 - 1, and 2 alone
    np.testing.assert_allclose(layer(torch.tensor([[2.0], [4.0], [5.0]]), edges).detach().ravel(), [3, 3, 5], rtol=1e-6)


def test_graph_attention_is_a_softmax_over_neighbours():
    with reproducible(0):
        layer = graph.GraphAttention(3, 2, heads=2)
        H = torch.randn(4, 3)
    edges = torch.tensor([[0, 0, 0, 1, 2, 3], [0, 1, 2, 1, 2, 3]])
    W = layer.linear(H).view(4, 2, 2)
    expected = torch.zeros(2)
    for head in range(2):
        score = [(W[0, head] * layer.receive[head]).sum() + (W[j, head] * layer.send[head]).sum() for j in (0, 1, 2)]
        a = torch.softmax(torch.nn.functional.leaky_relu(torch.stack(score), 0.2), 0)
        expected = expected + (a[:, None] * W[:3, head]).sum(0) / 2
    torch.testing.assert_close(layer(H, edges)[0], expected)
    torch.testing.assert_close(layer(H, edges)[3], W[3].mean(0))


# --- what single models can and cannot see ----------------------------------------------------------------------------


def test_transformer_without_gene_identity_sees_only_the_multiset_of_values():
    X = torch.from_numpy(planted()[0])
    order = torch.from_numpy(np.random.default_rng(0).permutation(GENES))
    with reproducible(0), torch.no_grad():
        blind = GeneTransformer(torch.arange(GENES), 8, 2, 0.0, identity=False).eval()
        named = GeneTransformer(torch.arange(GENES), 8, 2, 0.0).eval()
        torch.testing.assert_close(blind(X[:, order]), blind(X), rtol=0, atol=1e-5)
        assert (named(X[:, order]) - named(X)).abs().max() > 0.01


def test_shuffled_genes_are_one_fixed_order_for_training_and_test():
    X, y = planted()

    class ShuffledLogistic(ShuffledGenes, Logistic):
        """Blind to the order of genes."""

    model = ShuffledLogistic(**REGISTRY["Logistic"].hyperparameters).fit(X[:N], y[:N])
    plain = REGISTRY["Logistic"].make().fit(X[:N], y[:N])
    np.testing.assert_allclose(model.predict_proba(X[N:]), plain.predict_proba(X[N:]), atol=1e-5)
    order = model.shuffle(np.arange(GENES)[None])[0]
    assert sorted(order) == list(range(GENES)) and (order != np.arange(GENES)).any()
    np.testing.assert_array_equal(ShuffledCNN(seed=9).shuffle(np.arange(GENES)[None])[0], order)


def test_mask_of_gene_sets():
    names, mask = set_mask(["A", "B", "C"], {"both": ["B", "C", "X"], "one": ["A"], "all": ["C", "B", "A"]}, 2)
    assert names == ["both", "all"] and mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="none of 1 has 10 or more of the 3 genes"):
        set_mask(["A", "B", "C"], {"one": ["A"]}, 10)


def test_a_gene_outside_a_set_has_no_weight_into_its_module():
    X, y = planted()
    model = DrugCell(gene_sets=SETS | {"small": ["G0"]}, min_genes=10, width=3).fit(X[:N], y[:N], source=bulk())
    assert model.sets_ == list(SETS) and model.coverage_ == 1.0
    x = torch.from_numpy(X[:4]).requires_grad_()
    auxiliary, _ = model.net_.modules_and_logit(x)
    for i in range(len(SETS)):
        gradient = torch.autograd.grad(auxiliary[:, i].sum(), x, retain_graph=True)[0].abs().sum(0)
        assert (gradient[12 * i : 12 * i + 12] > 0).all()
        gradient[12 * i : 12 * i + 12] = 0
        assert (gradient == 0).all()
    inside = 4 * 12 * 3
    assert model.n_parameters == inside + sum(
        p.numel() for name, p in model.net_.named_parameters() if name != "weight"
    )


def test_drugcell_needs_gene_names():
    X, y = planted()
    with pytest.raises(ValueError, match="source: got None, but DrugCell needs the 48 gene names"):
        DrugCell().fit(X, y)


@pytest.mark.slow
def test_deepdr_pretrains_on_the_training_lines_only():
    X, y = planted(shift=0.5)
    source = bulk()
    p = REGISTRY["DeepDR"].make().fit(X[:N], y[:N], source=source).predict_proba(X[N:])
    source.X[~source.train] = 1e6
    np.testing.assert_array_equal(REGISTRY["DeepDR"].make().fit(X[:N], y[:N], source=source).predict_proba(X[N:]), p)
    source.X[source.train] *= -1
    assert (REGISTRY["DeepDR"].make().fit(X[:N], y[:N], source=source).predict_proba(X[N:]) != p).any()


def test_deepdr_pretrains_once_for_drugs_and_folds_and_anew_for_another_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PRETRAINED", tmp_path)
    trained, pretrain = [], networks._pretrain

    def counted(model, *args):
        trained.append(model.learning_rate)
        return pretrain(model, *args)

    monkeypatch.setattr(networks, "_pretrain", counted)
    X, y = planted(shift=0.5)
    short = {"pretraining": 3, "epochs": 2}

    def fit(rows, **changed):
        return networks.DeepDR(**short | changed).fit(X[rows], y[rows], source=bulk()).predict_proba(X[N:])

    first = fit(slice(0, N))
    np.testing.assert_array_equal(fit(slice(0, N)), first)  # from the file
    assert (fit(slice(0, N - 9)) != first).any() and trained == [2e-3]  # other labelled rows, the same lines
    assert (fit(slice(0, N), dropout=0.5) != first).any() and len(trained) == 1
    fit(slice(0, N), learning_rate=1e-3)
    fit(slice(0, N), seed=1)
    fit(slice(0, N), encoder=(16, 8))
    assert trained == [2e-3, 1e-3, 2e-3, 2e-3]


def two_groups(apart: float, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Cells in two groups that lie `apart` along the planted direction; y is the group."""
    X, y = planted(seed, shift=0.0)
    sign = np.where(np.random.default_rng(99).random(PLANTED) < 0.5, -1, 1)
    X[:, ::2] += apart * sign * (y[:, None] - 0.5)
    return X, y


@pytest.mark.parametrize("data", ["embedded", "geo"])
def test_first_component_stands_in_every_table_of_protocol_u_and_in_no_other(data):
    lists = tables.all_tables(data, "quick")
    shown = ("transfer", "table3", "table4", "plus_score", "peers", "permuted")
    for name, tasks in lists.items():
        mine = [t for t in tasks if t.model == tables.PC1]
        assert {t.protocol for t in mine} == ({"U"} if name in shown else set()), name
        if name in shown:
            rivals = {(t.dataset, t.seed) for t in tasks if (t.model, t.protocol, t.setting) == (ATSDP, "U", ())}
            assert {(t.dataset, t.seed) for t in mine} == rivals, name


def test_first_component_takes_its_end_from_the_bulk_alone():
    """Bulk labels turned round turn every score round; groups that the bulk calls the other way score below chance."""
    X, y = planted()
    cells, group = two_groups(2.0)
    right = REGISTRY["PC1Sign"].make().fit(X, y).predict_proba(cells)
    wrong = REGISTRY["PC1Sign"].make().fit(X, 1 - y).predict_proba(cells)
    assert auc(group, right) > 0.99
    np.testing.assert_allclose(wrong, 1 - right, rtol=0, atol=1e-12)
    against, group = two_groups(-2.0)
    assert auc(group, REGISTRY["PC1Sign"].make().fit(X, y).predict_proba(against)) < 0.01


def test_first_component_ignores_order_place_and_scale_of_cells_and_how_far_the_bulk_boundary_lies():
    X, y = planted()
    cells, _ = two_groups(1.5)
    model = REGISTRY["PC1Sign"].make().fit(X, y)
    p = model.predict_proba(cells)
    order = np.random.default_rng(0).permutation(len(cells))
    np.testing.assert_allclose(model.predict_proba(cells[order]), p[order], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(3 * cells + 100), p, atol=1e-4)
    model.model_.intercept_ += 50
    np.testing.assert_allclose(model.predict_proba(cells), p, atol=1e-12)
    assert 0 < p.min() and p.max() < 1 and np.isfinite(p).all()


def test_first_component_is_that_of_the_cells_and_not_the_regression():
    """The scores follow the largest axis of the cells, whatever the regression makes of single cells."""
    from sklearn.decomposition import PCA

    X, y = planted()
    cells, _ = two_groups(0.2)
    cells[:, 1] += 6 * np.random.default_rng(1).normal(size=len(cells))  # a large axis that the bulk knows nothing of
    p = REGISTRY["PC1Sign"].make().fit(X, y).predict_proba(cells)
    axis = PCA(1).fit_transform(cells.astype(float))[:, 0]
    assert abs(np.corrcoef(np.log(p / (1 - p)), axis)[0, 1]) > 1 - 1e-9


@pytest.mark.parametrize("n", [1, 5])
def test_first_component_of_cells_that_do_not_differ_says_nothing(n):
    X, y = planted()
    assert (REGISTRY["PC1Sign"].make().fit(X, y).predict_proba(np.repeat(X[:1], n, axis=0)) == 0.5).all()


def test_importing_the_registry_imports_neither_torch_nor_sklearn():
    code = "import sys, atsdp_utils.baselines; print([m for m in ('torch', 'sklearn', 'scanpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_entry_names_a_class_of_this_package():
    for entry in REGISTRY.values():
        model = entry.make(seed=4)
        assert model.seed == 4 and type(model).__module__.startswith("atsdp_utils.baselines.")
        assert entry.factory.endswith(f":{type(model).__name__}")


@pytest.mark.parametrize("name", ["CNN", "ResNet18"])
def test_a_control_has_the_defaults_of_its_model(name):
    control, own = vars(REGISTRY[f"{name}-shuffled"].make()), vars(REGISTRY[name].make())
    assert control == own and REGISTRY[name].hyperparameters.items() <= own.items()


@pytest.mark.parametrize("how", ["oversampling", "smote", "class_weight"])
@pytest.mark.parametrize("name", ["GCN", "GAT"])
def test_nodes_of_a_graph_are_the_rows_as_measured_and_classes_weigh_the_same(name, how):
    X, y = planted(shift=0.5)
    rows = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:8]]
    model = REGISTRY[name].make(epochs=1, neighbours=3).fit(X[rows], y[rows], balance=how)
    nodes = model.train_.numpy()
    assert len(np.unique(nodes, axis=0)) == len(nodes) == len(split(X[rows], y[rows], "none", 0.15, 0).kept)
    assert model.graph_.rule == "neighbours"  # a copy of a node would be closer than the threshold
    degree = model._graph(model.train_, torch.from_numpy(X[:5])).degree(len(nodes) + 5)
    assert degree.min() >= 3


def test_votes_of_neighbours_have_the_weights_of_their_classes():
    X, y = np.r_[np.zeros(6), 1, 1].astype(np.float32)[:, None], np.r_[np.zeros(6, int), 1, 1]
    near = np.array([[0.0]], np.float32)
    plain = REGISTRY["kNN"].make(neighbours=8, metric="euclidean")
    assert plain.fit(X, y).predict_proba(near) == pytest.approx([2 / 8])
    assert plain.fit(X, y, balance="oversampling").predict_proba(near) == pytest.approx([0.5])
