"""Cells that write the method out say that the package does the same: a fault planted in the package makes them fail.

Cells with the tag ``method``, ``setup`` and ``setup-values`` of a chapter run here in order, without its other cells.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch.nn.functional import normalize

from atsdp_utils.data import preprocess
from atsdp_utils.evaluation import two_way
from atsdp_utils.experiments.task import build as build_model
from atsdp_utils.foundation import paths
from atsdp_utils.models import losses, network, stages
from book import build

pytestmark = pytest.mark.slow
LOSSES, NETWORK, STAGES = (m.__name__ for m in (losses, network, stages))


def method_of(number: str) -> list[tuple[str, str]]:
    """Names and code of the cells that write out the method of a chapter, after its parameters and its setup."""
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    setup = ("setup", "setup-values")
    wanted = [c for c in cells if c["id"] in setup or "method" in c["metadata"].get("tags", [])]
    smoke = build.PARAMETERS.replace('"quick"', '"smoke"')
    return [("parameters", smoke), *((c["id"], "".join(c["source"])) for c in wanted)]


def run_method(number: str) -> dict:
    """Run them as one program."""
    space = {"__name__": f"method_of_{number}", "display": lambda *shown: None}
    for name, code in method_of(number):
        exec(compile(code, f"{number}:{name}", "exec"), space)
    return space


class Fault(NamedTuple):
    """A wrong version of a name of the package, which the method cells of a chapter must notice."""

    chapter: str
    module: str
    name: str
    wrong: Callable


# --- chapter 3: attention, balance, corruption ---------------------------------------------------------------------


def _attention(power: float = 0.5, over: int = -1) -> Callable:
    """Weights that are divided by another power of d, or a softmax over another axis."""

    def weights(self, x):
        q, k = self._by_head(self.w_q(x)), self._by_head(self.w_k(x))
        scores = torch.einsum("nthd,nshd->nhts", q, k) / q.shape[-1] ** power
        return torch.softmax(scores, dim=over)

    return weights


def _balance_before_the_split(cls, X, y, cfg, seed):
    X, y, _ = preprocess.balance(X, y, cfg.balance, seed)
    return _CLASSIFICATION(X, y, replace(cfg, balance="none"), seed)


def _held_rows_too(hold_out):
    """A split whose training rows hold the rows put aside, so that balancing touches them."""
    return lambda n, share, seed, y=None: (np.arange(n), hold_out(n, share, seed, y)[1])


def _reconstructs_the_noise(self, net):
    for batch in self.rows.batches(self.cfg.batch_size):
        noisy = network.corrupt(self.rows[batch][0], self.cfg.noise)
        yield torch.nn.functional.mse_loss(net(noisy), noisy), {}


_CLASSIFICATION = stages.Classification.of

# --- chapter 4: the terms of equation 16 ------------------------------------------------------------------------------


def _mmd2(sign: float = -1.0, cross: float = 2.0, power: float = 1.0) -> Callable:
    """MMD with another sign in the kernel's exponent, another weight of the cross term, or another power."""

    def mmd2(x, y, scale=None):
        z, n = torch.cat([x, y]), len(x)
        squared = losses._squared_distances(z)
        scale = losses._median(squared) if scale is None else scale
        k = sum(torch.exp(sign * squared / (b * scale)) for b in losses.BANDWIDTHS) / len(losses.BANDWIDTHS)
        found = k[:n, :n].mean() - cross * k[:n, n:].mean() + k[n:, n:].mean()
        return found.clamp_min(0) ** power

    return mmd2


def _weights(**changes):
    """The sum of equation 16 with other weights of its terms."""

    def of(sum_up):
        return lambda loss, z_g, z_t, clusters, cfg, apart, also=0: sum_up(
            loss, z_g, z_t, clusters, replace(cfg, **changes), apart, also
        )

    return of


def _similarity(z, cluster):
    """Equation 17 as printed: the cosine itself."""
    return 1 - _DISSIMILARITY(z, cluster)


_DISSIMILARITY = losses.cluster_dissimilarity


# --- chapters 1, 2 and 16: counts, scales, intervals ------------------------------------------------------------------


def with_ribosomes_as_mitochondria(cells):
    """Cells whose ribosomal genes are named like mitochondrial ones."""
    cells = cells.copy()
    ribosomal = cells.var_names.str.startswith("RPS")
    cells.var["ortholog"] = np.where(ribosomal, "MT-RPS", cells.var["ortholog"])
    return cells


def with_sample_scales(right):
    """A fit that divides by n - 1."""

    def fit(self, X):
        right(self, X).scale_ *= np.sqrt(len(X) / (len(X) - 1))
        return self

    return fit


def scaled_with_held_out_lines(right):
    """A bulk side whose scales are those of all lines."""

    def bulk_source(bulk, genes, seed):
        X = preprocess.columns(bulk.X, bulk.genes, genes)
        return replace(right(bulk, genes, seed), X=preprocess.Standardizer().fit_transform(X))

    return bulk_source


# --- chapter 5: folds, balance and scores; chapter 6: heads -----------------------------------------------------------


def _balanced_before_rows_are_held_out(original):
    """A fold whose training rows are balanced first: copies and mixtures of them then decide when learning stops."""

    def fit_fold(task, X, y, train, test, source):
        x_more, y_more, _ = preprocess.balance(X[train], y[train], task.balance, task.seed)
        rows = np.arange(len(x_more) + len(test))
        at = rows[: len(x_more)], rows[len(x_more) :]
        return original(task, np.concatenate([x_more, X[test]]), np.concatenate([y_more, y[test]]), *at, source)

    return fit_fold


def _trained_on_its_test_rows(original):
    return lambda task, y: ((i, test, np.union1d(train, test)) for i, test, train in original(task, y))


def _with(change):
    """Scores of which some are replaced by ``change(y, p)``."""
    return lambda original: lambda y, p, *more: original(y, p, *more) | change(y, p)


def _f1_of_classes_alike(y, p):
    return {"f1": sklearn.metrics.f1_score(y, p >= 0.5, average="macro")}


def _auc_of_turned_labels(y, p):
    return {"auc": 1 - sklearn.metrics.roc_auc_score(y, p)}


def _heads_interleaved(attention, x):
    """Every h-th value in a head, where a head is a slice."""
    return x.unflatten(-1, (-1, attention.heads)).transpose(-1, -2)


# --- chapter 7: a fold by hand, a network, the corrected test; chapter 18: what a baseline sees -----------------------


def scaled_on_all_rows(real):
    """The scaler of a fold sees its test rows."""

    def fit_fold(task, X, y, train, test, source):
        X = preprocess.Standardizer().fit_transform(X)
        model = build_model(task).fit(X[train], y[train], balance=task.balance, source=source)
        return model.predict_proba(X[test]), model

    return fit_fold


def balanced_before_held_out(real):
    """Rows are held out after copies of them were made."""
    return lambda X, y, how, share, seed: real(*preprocess.balance(X, y, how, seed)[:2], "none", share, seed)


def not_centred(real):
    """The cosine in place of the correlation."""
    return lambda A, B: normalize(A, dim=1) @ normalize(B, dim=1).T


def _gradients_alone(attributed):
    """Of chapter 9: integrated gradients without the factor x - b."""

    def wrong(net, X, baseline):
        found = attributed(net, X, baseline)
        return found._replace(values=found.values / (X - baseline).numpy())

    return wrong


def _macro_f1(scores):
    """Of chapter 11: the F1 called weighted is the mean of both classes."""

    def wrong(sensitive, resistant):
        right, averaged, balanced = scores(sensitive, resistant)
        averaged[2, 1] = averaged[2, -1]
        return right, averaged, balanced

    return wrong


def _accuracy(scores):
    """Of chapter 11: the share of all cells called right stands for the balanced accuracy."""

    def wrong(sensitive, resistant):
        right, averaged, _ = scores(sensitive, resistant)
        return right, averaged, right.sum(axis=0) / (sensitive + resistant)

    return wrong


def _without_the_new_one(sets):
    """Of chapter 12: the new sample does not count itself in its conformal p-value."""

    def wrong(self, z, alpha=0.1):
        strange = {0: z, 1: -z}
        p = [(len(s) - np.searchsorted(s, strange[c])) / (len(s) + 1) for c, s in self.scores_.items()]
        return np.column_stack(p) > alpha

    return wrong


def _added(to_parts):
    """Of chapter 12: the variance of each part of a square, and that of the rest, changed by `to_parts`."""

    def wrong_of(square):
        def wrong(table):
            found = square(table)
            part = found.index != "rest"
            rest = found.loc["rest", "variance"]
            found.loc[part, "variance"] = to_parts(found.loc[part, "variance"], rest, table["lines"].nunique())
            return found

        return wrong

    return wrong_of


def _unweighted(adata):
    """Of chapter 10: an AnnData whose diffusion components weigh the same, for lambda / (1 - lambda) is one."""
    adata = adata.copy()
    adata.uns["diffmap_evals"] = adata.uns["diffmap_evals"] * 0 + 0.5
    return adata


PSEUDOTIME = "atsdp_utils.interpretation.pseudotime"


# --- chapter 14: CORAL and the adversary; chapter 15: pairs of lines --------------------------------------------------


def _uncentred(self, z_g, z_t):
    """CORAL without the means taken off."""
    second = [z.T @ z / (len(z) - 1) for z in (z_g, z_t)]
    return (second[0] - second[1]).square().sum() / (4 * z_g.shape[1] ** 2)


def _ties_count_as_right(right: Callable) -> Callable:
    def counts(scores, labels, lines=None):
        return right(np.asarray(scores) + 1e-9 * (np.asarray(labels) == 1), labels, lines)

    return counts


def _pairs_of_one_class_count(right: Callable) -> Callable:
    def counts(scores, labels, lines=None):
        won, there = right(scores, labels, lines)
        of_class = [(np.asarray(labels) == c).sum(0) for c in (0, 1)]
        same = sum(n * (n - 1) / 2 for n in of_class)
        return won + same / 2, there + same

    return counts


SCORES, LISTS, MAPS, SHARES = (
    f"atsdp_utils.interpretation.{name}" for name in ("gene_scores", "gene_lists", "embedding", "attribution")
)
AUDIT, VERDICT = "atsdp_utils.reporting.audit", "atsdp_utils.reporting.verdict"
CALIBRATION, VARIANCE = "atsdp_utils.models.calibration", "atsdp_utils.evaluation.variance"
PLUS_STUDY = "atsdp_utils.evaluation.plus_study"
DISCREPANCY, LINE_PAIRS = "atsdp_utils.models.discrepancy", "atsdp_utils.evaluation.line_pairs"
#: Each replaces ``module.name`` by ``wrong(original)``; a row a fault, in the order of chapters.
FAULTS: list[Fault] = [
    # A recorded hash that is not the file's.
    Fault("01", "atsdp_utils.foundation.checksums", "register",
          lambda right: lambda: right() | {"drug_names.csv": "0" * 64}),
    # Key genes that small profiles do not read; a direction the wrong way; the levels of other genes; Poisson counts.
    Fault("01", "atsdp_utils.data.twins", "GENE_SPACE", lambda right: 10 * right),
    Fault("01", "atsdp_utils.data.twins", "direction", lambda right: lambda drug: -right(drug)),
    Fault("01", "atsdp_utils.data.twins", "baseline", lambda right: lambda lines: tuple(x[::-1] for x in right(lines))),
    Fault("01", "atsdp_utils.data.twins", "draw_counts",
          lambda right: lambda level, phi, *rest: right(level, 1e-3 * phi, *rest)),
    Fault("01", "atsdp_utils.data.preprocess", "MIN_GENES", lambda right: 0),
    # More genes are taken for mitochondrial ones; another cut-off; another total.
    Fault("02", "atsdp_utils.data.preprocess", "quality_control",
          lambda right: lambda cells: right(with_ribosomes_as_mitochondria(cells))),
    Fault("02", "atsdp_utils.data.preprocess", "MAX_MITO", lambda right: 0.2),
    Fault("02", "atsdp_utils.data.preprocess", "TARGET_SUM", lambda right: 1e6),
    # Genes as they come, not the most variable ones.
    Fault("02", "atsdp_utils.data.gdsc", "shared_genes",
          lambda right: lambda bulk, genes, most: bulk.genes[np.isin(bulk.genes, genes)][:most]),
    # Scales with n - 1; scales of all lines, held-out ones with them.
    Fault("02", "atsdp_utils.data.preprocess", "Standardizer.fit", with_sample_scales),
    Fault("02", "atsdp_utils.data.gdsc", "bulk_source", scaled_with_held_out_lines),
    # Copies instead of mixtures; balance before the split.
    Fault("02", "atsdp_utils.data.preprocess", "balance",
          lambda right: lambda X, y, how, seed: right(X, y, "oversampling", seed)),
    Fault("02", "atsdp_utils.baselines.rows", "split", balanced_before_held_out),
    Fault("03", NETWORK, "MultiHeadAttention.weights", lambda right: _attention(power=0)),
    Fault("03", NETWORK, "MultiHeadAttention.weights", lambda right: _attention(over=-2)),
    Fault("03", NETWORK, "AttentionBlock.forward", lambda right: lambda self, z: self.mix(self.tokens(z)).flatten(1)),
    Fault("03", NETWORK, "corrupt", lambda right: lambda x, p, generator=None: right(x, 1 - p, generator)),
    Fault("03", STAGES, "Denoising.epoch", lambda right: _reconstructs_the_noise),
    Fault("03", STAGES, "Classification.of", lambda right: classmethod(_balance_before_the_split)),
    Fault("03", "atsdp_utils.data.preprocess", "hold_out", _held_rows_too),
    Fault("03", LOSSES, "cross_entropy", lambda right: lambda logits, y, weight=None: right(logits, 1 - y, weight)),
    Fault("04", LOSSES, "mmd2", lambda right: _mmd2(sign=1.0)),
    Fault("04", LOSSES, "mmd2", lambda right: _mmd2(cross=0.0)),
    Fault("04", LOSSES, "mmd2", lambda right: _mmd2(power=0.5)),
    Fault("04", STAGES, "_with_alignment", _weights(theta=1.0)),
    Fault("04", STAGES, "_with_alignment", _weights(omega=1.0)),
    Fault("04", LOSSES, "cluster_dissimilarity", lambda right: _similarity),
    Fault("04", STAGES, "further_steps", lambda right: stages.transfer),
    Fault("05", "atsdp_utils.experiments.protocols", "fit_fold", _balanced_before_rows_are_held_out),
    Fault("05", "atsdp_utils.experiments.inputs", "folds_of", _trained_on_its_test_rows),
    Fault("05", "atsdp_utils.data.preprocess", "Standardizer.fit", lambda f: lambda s, X: f(s, X[::2])),
    Fault("05", "atsdp_utils.data.preprocess", "balance", lambda f: lambda X, y, how, seed: f(X, y, how, seed + 1)),
    Fault("05", "atsdp_utils.models.stages", "_with_alignment", lambda f: lambda *a, **k: f(*a, **k | {"also": 0})),
    Fault("05", "atsdp_utils.evaluation.metrics", "classification_metrics", _with(_f1_of_classes_alike)),
    Fault("05", "atsdp_utils.evaluation.metrics", "classification_metrics", _with(_auc_of_turned_labels)),
    Fault("06", NETWORK, "MultiHeadAttention.weights", lambda f: _attention(power=0)),
    Fault("06", NETWORK, "MultiHeadAttention._by_head", lambda f: _heads_interleaved),
    Fault("07", "atsdp_utils.experiments.protocols", "fit_fold", scaled_on_all_rows),
    Fault("07", "atsdp_utils.data.preprocess", "Standardizer.transform", lambda real: lambda self, X: X),
    Fault("07", "atsdp_utils.baselines.classical", "SklearnBaseline._fitted",
          lambda real: lambda self, X, y, balance: real(self, X, y, "none")),
    Fault("07", "atsdp_utils.baselines.rows", "split", balanced_before_held_out),
    Fault("07", "atsdp_utils.baselines.wrapper", "TorchBaseline.predict_proba",
          lambda real: lambda self, X: 1 - real(self, X)),
    Fault("07", "atsdp_utils.baselines.wrapper", "Logit.forward", lambda real: lambda self, X: 2 * real(self, X)),
    Fault("07", "atsdp_utils.evaluation.stats", "mean_test",
          lambda real: lambda values, folds=1, *args, **more: real(values, 1, *args, **more)),
    Fault("08", SCORES, "score_sets", lambda f: lambda X, on, bins: X @ (on / on.sum(axis=0))),  # no control genes
    Fault("08", SCORES, "expression_bins", lambda f: lambda X: 0 * f(X)),
    Fault("08", LISTS, "rank_sum", lambda f: lambda *given: tuple(-v for v in f(*given))),
    Fault("08", LISTS, "DIRECTIONS", lambda f: f[::-1]),
    Fault("08", MAPS, "signal_components", lambda f: lambda X: f(np.expm1(X))),  # of raw values
    Fault("09", SHARES, "integrated_gradients", lambda f: lambda net, X, b: f(net, X, 0 * b)),
    Fault("09", SHARES, "integrated_gradients", _gradients_alone),
    Fault("09", SHARES, "log_odds", lambda f: lambda logits: logits[:, 0] - logits[:, 1]),
    Fault("10", PSEUDOTIME, "root_without_labels", lambda f: lambda adata, signature: f(adata, -signature)),
    Fault("10", PSEUDOTIME, "diffusion_distances", lambda f: lambda adata: f(_unweighted(adata))),
    Fault("10", PSEUDOTIME, "genes_along", lambda f: lambda *given: f(*given).assign(padj=lambda t: t["p"])),
    Fault("10", "atsdp_utils.data.preprocess", "Standardizer.fit_transform", lambda f: lambda self, X: X),
    Fault("11", AUDIT, "confusion_scores", _macro_f1),
    Fault("11", AUDIT, "confusion_scores", _accuracy),
    Fault("11", VERDICT, "decide", lambda f: lambda effects, **sides: f([e.negated() for e in effects], **sides)),
    Fault("11", VERDICT, "decide", lambda f: lambda effects, above, below: f(effects, below, below)),
    Fault("12", PLUS_STUDY, "_over_kinds", lambda f: lambda values: (values.mean(), *f(values)[1:])),
    Fault("12", PLUS_STUDY, "_over_kinds", lambda f: lambda values: (f(values)[0], f(values)[1] / 3, f(values)[2])),
    Fault("12", CALIBRATION, "Calibration.sets", _without_the_new_one),
    Fault("12", CALIBRATION, "Calibration.sets", lambda f: lambda self, z, alpha=0.1: f(self, -z, alpha)),
    Fault("12", VARIANCE, "square", _added(lambda part, rest, levels: part * levels)),
    Fault("12", VARIANCE, "square", _added(lambda part, rest, levels: part + rest / levels)),
    # Genes by another rule; a scale of half of the cells; a weak penalty; mean probabilities.
    Fault("13", "atsdp_utils.data.gdsc", "shared_genes",
          lambda right: lambda bulk, genes, most: bulk.genes[np.isin(bulk.genes, genes)][:most]),
    Fault("13", "atsdp_utils.own_cells.cell_values", "streaming_standardizer",
          lambda right: lambda X, chunk: right(X[::2], chunk)),
    Fault("13", "atsdp_utils.own_cells.predict", "logistic", lambda right: lambda: right().set_params(C=1.0)),
    Fault("13", "atsdp_utils.own_cells.prediction", "pooled", lambda right: lambda members: members.mean(0)),
    Fault("14", DISCREPANCY, "Coral.forward", lambda real: _uncentred),
    Fault("14", DISCREPANCY, "_Reversed.backward", lambda real: staticmethod(lambda ctx, gradient: gradient)),
    Fault("14", DISCREPANCY, "Adversary.forward", lambda real: lambda self, z_g, z_t: real(self, z_t, z_g)),
    Fault("15", LINE_PAIRS, "counts", _ties_count_as_right),
    Fault("15", LINE_PAIRS, "counts", _pairs_of_one_class_count),
    Fault("15", LINE_PAIRS, "p_of_orders", lambda real: lambda found: real(found[1:])),
    Fault("16", "atsdp_utils.experiments.pseudo", "clusters", lambda right: lambda: np.roll(right(), 1)),
    # The cluster's own lines are learnt from.
    Fault("16", "atsdp_utils.experiments.cluster_study", "side",
          lambda right: lambda train, target, genes: right(train | target, target, genes)),
    # The cluster is brought to the scale of the training lines.
    Fault("16", "atsdp_utils.experiments.cluster_study", "side", lambda right: lambda train, target, genes: replace(
        right(train, target, genes), B=right(train | target, train | target, genes).A[target])),
    Fault("16", "atsdp_utils.experiments.cluster_study", "auc", lambda right: lambda y, score: 1 - right(y, score)),
    # The variance of one way only, and a normal quantile.
    Fault("16", "atsdp_utils.evaluation.two_way", "variance",
          lambda right: lambda values, drug, cluster: right(values, drug, drug)),
    Fault("16", "atsdp_utils.evaluation.two_way", "interval", lambda right: lambda values, *ways: np.mean(values)
          + 1.96 * np.array([0, -1, 1]) * two_way.variance(values, *ways) ** 0.5),
    # Cultures on both sides; labels that stay; bins that weigh the same.
    Fault("17", "atsdp_utils.experiments.inputs", "folds_of", _trained_on_its_test_rows),
    Fault("17", "atsdp_utils.experiments.inputs", "labels",
          lambda right: lambda task: right(replace(task, setting=()))),
    Fault("17", "atsdp_utils.evaluation.metrics", "calibration_error",
          lambda right: lambda y, p, bins=10: right(y, np.round(p, 1), bins)),
    Fault("18", "atsdp_utils.baselines.networks", "GeneTransformer.__init__",
          lambda real: lambda self, *args, identity=True: real(self, *args, identity=False)),
    Fault("18", "atsdp_utils.baselines.graph", "similarity", not_centred),
    Fault("18", "atsdp_utils.baselines.graph", "nearest", lambda real: lambda S, neighbours: real(S, neighbours - 1)),
    Fault("19", "atsdp_utils.experiments.cluster_study", "auc", lambda auc: lambda y, score: auc(1 - y, score)),
]  # fmt: skip
CHAPTERS = [p.stem[:2] for p in build.numbered() if len(method_of(p.stem[:2])) > 2]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_method_on_the_page_is_that_of_the_package(chapter, run_folders):
    run_method(chapter)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.chapter}-{f.name}")
def test_a_planted_fault_makes_the_chapter_fail(fault, run_folders, monkeypatch):
    import importlib

    module = importlib.import_module(fault.module)
    owner, _, attribute = fault.name.rpartition(".")
    place = getattr(module, owner) if owner else module
    original = getattr(place, attribute)
    wrong = fault.wrong(original)
    for name, loaded in list(sys.modules.items()):  # also where it was imported by its name
        if name.startswith("atsdp_utils") and not owner and getattr(loaded, attribute, None) is original:
            monkeypatch.setattr(loaded, attribute, wrong)
    monkeypatch.setattr(place, attribute, wrong)
    with pytest.raises(AssertionError):
        run_method(fault.chapter)


def test_chapters_that_show_the_method_have_a_fault_each():
    assert set(CHAPTERS) == {f.chapter for f in FAULTS}
