"""Rows are held out first and balanced after: no model stops or calibrates by a copy or a mixture of training rows."""

import numpy as np
import pytest

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.baselines.classical import PcaSvm
from atsdp_utils.baselines.graph import GCN
from atsdp_utils.baselines.networks import Transformer
from atsdp_utils.baselines.rows import split
from atsdp_utils.baselines.wrapper import TorchBaseline
from atsdp_utils.data import preprocess
from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import atsdp, stages

GENES = np.array([f"G{i}" for i in range(24)])
EXTRA = {"DrugCell": {"gene_sets": {"all": list(GENES)}}}
NETWORKS = [name for name, b in REGISTRY.items() if issubclass(type(b.make()), TorchBaseline)]


def rows(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Four rows of a class for each of the other."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, len(GENES))).astype(np.float32), (np.arange(n) % 5 == 0).astype(int)


def bulk() -> Source:
    X, y = rows(60)
    return Source(X + 1, y.astype(np.int8), GENES, np.arange(60) % 4 > 0)


def names(X: np.ndarray) -> set[bytes]:
    """Rows by their values, whatever the order of genes."""
    return {np.sort(row).tobytes() for row in np.asarray(X)}


@pytest.fixture
def sampled(monkeypatch):
    """Every call of the sampler: rows, strategy, seed and what came out."""
    calls, original = [], preprocess.balance

    def spy(X, y, how, seed):
        out = original(X, y, how, seed)
        calls.append((np.array(X), how, seed, np.array(out[0])))
        return out

    monkeypatch.setattr(preprocess, "balance", spy)
    return calls


@pytest.mark.parametrize("how", ["oversampling", "smote"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_baseline_stops_by_rows_that_its_sampler_never_saw(name, how, sampled, monkeypatch):
    X, y = rows()
    watched, original = [], TorchBaseline._held_rows
    monkeypatch.setattr(TorchBaseline, "_held_rows", lambda m, s: watched.append(s.held) or original(m, s))
    model = REGISTRY[name].make(seed=4, **EXTRA.get(name, {}))
    model.fit(X, y, balance=how, source=bulk()).predict_proba(X[:3])
    copies = not isinstance(model, GCN)  # a graph weighs classes: copies would be each other's neighbours
    (held,), ((given, _, seed, out),) = watched, [c for c in sampled if c[1] == (how if copies else "class_weight")]
    assert seed == 4 and len(held) == 12 and len(given) + len(held) == len(y)
    assert names(held) | names(given) == names(X)
    assert not names(held) & names(out) and (len(out) > len(given)) == copies


@pytest.mark.parametrize("how", ["oversampling", "smote"])
def test_atsdp_net_stops_by_cells_that_its_sampler_never_saw(how, sampled, monkeypatch):
    X, y = rows()
    fitted, original = [], stages.fit
    monkeypatch.setattr(stages, "fit", lambda net, stage: fitted.append(stage) or original(net, stage))
    cfg = Training(epochs_tune=1)
    model = atsdp.ATSDP(arch=Architecture(8, (8,), (8,), heads=0), cfg=cfg, pretrained=False)
    model.fit(X, y, balance=how)
    (given, _, _, out), held = sampled[0], fitted[-1].x_held.numpy()
    assert names(held) | names(given) == names(X) and len(given) + len(held) == len(y)
    assert not names(held) & names(out) and names(out) == names(fitted[-1].cells.values[0].numpy())


def test_a_support_vector_machine_is_calibrated_on_rows_that_its_sampler_never_saw(monkeypatch):
    X, y = rows()
    seen, original = [], PcaSvm._machine

    def spy(self, X, y, balance):
        machine = original(self, X, y, balance)
        learned, decide = names(X), machine.decision_function
        assert balance == "smote"
        monkeypatch.setattr(machine, "decision_function", lambda new: seen.append((learned, names(new))) or decide(new))
        return machine

    monkeypatch.setattr(PcaSvm, "_machine", spy)
    REGISTRY["PCA+SVM"].make().fit(X, y, balance="smote")
    assert len(seen) == 3 and set.union(*(new for _, new in seen)) == names(X)
    assert all(not learned & new and learned | new == names(X) for learned, new in seen)


def test_a_class_of_three_rows_is_not_split():
    X, y = rows(15)
    found = split(X, y, "oversampling", 0.15, 0)
    assert not len(found.held) and names(found.kept) == names(X) and np.bincount(found.y).tolist() == [12, 12]


def test_the_transformer_chooses_genes_without_the_labels_of_held_rows():
    X, y = rows(200)
    _, held = preprocess.hold_out(len(y), Transformer.validation, 0, y)
    before = Transformer(tokens=5, dim=4, heads=2, epochs=2).fit(X, y).net_.genes.tolist()
    other = next(g for g in range(len(GENES)) if g not in before)
    X[held, other] = 50.0 * y[held]  # tells the classes of held rows apart, and those of no other
    assert Transformer(tokens=5, dim=4, heads=2, epochs=2).fit(X, y).net_.genes.tolist() == before
