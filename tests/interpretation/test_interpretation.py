"""Gene scores, attributions, enrichment and pseudotime against scanpy, captum, published scores and planted truth."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy import stats as sps
from torch import nn

from atsdp_utils.data import datasets, gene_sets
from atsdp_utils.foundation import paths
from atsdp_utils.interpretation import attribution, embedding, explained, gene_lists, gene_scores, predicted, pseudotime


def simulate(seed: int, cells: int = 120, genes: int = 300, planted: int = 10, effect: float = 1.5) -> SimpleNamespace:
    """Log expression with `planted` sensitivity genes first and as many resistance genes next."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1], cells // 2))
    X = rng.gamma(2.0, 1.0, size=(1, genes)) + rng.normal(0, 1, (cells, genes))
    X[:, :planted] += effect * y[:, None]
    X[:, planted : 2 * planted] += effect * (1 - y[:, None])
    truth = np.repeat([True, False], [2 * planted, genes - 2 * planted])
    names = np.array([f"G{i}" for i in range(genes)])
    return SimpleNamespace(X=X.astype(np.float32), y=y, genes=names, truth=truth, planted=planted)


def flip(y: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Predictions that are wrong for `share` of the cells."""
    wrong = np.random.default_rng(seed).permutation(len(y)) < round(share * len(y))
    return np.where(wrong, 1 - y, y)


@pytest.fixture(scope="module")
def cells() -> SimpleNamespace:
    return simulate(0)


# --- lists and scores -------------------------------------------------------------------------------------------------


def test_differential_genes_agree_with_scanpy(cells):
    import scanpy as sc

    adata = anndata.AnnData(cells.X, var=pd.DataFrame(index=cells.genes))
    adata.obs["y"] = pd.Categorical(np.where(cells.y == 1, "sensitive", "resistant"))
    sc.tl.rank_genes_groups(adata, "y", groups=["sensitive"], reference="resistant", method="wilcoxon")
    expected = sc.get.rank_genes_groups_df(adata, "sensitive").set_index("names").loc[cells.genes]
    table = gene_lists.differential_genes(cells.X, cells.y, cells.genes)
    np.testing.assert_allclose(table["z"], expected["scores"], rtol=1e-5)
    np.testing.assert_allclose(table["padj"], expected["pvals_adj"], rtol=1e-5)


def test_cliffs_delta_by_hand():
    # sensitive 3, 1 against resistant 2, 0: of four pairs three are won and one is lost
    table = gene_lists.differential_genes(np.array([[3.0], [1.0], [2.0], [0.0]]), [1, 1, 0, 0], ["g"])
    assert table["delta"].item() == pytest.approx(0.5)


def test_lists_hold_the_planted_genes_of_each_direction(cells):
    lists = gene_lists.deg_lists(gene_lists.differential_genes(cells.X, cells.y, cells.genes), top=cells.planted)
    assert set(lists["sensitive"]) == set(range(cells.planted))
    assert set(lists["resistant"]) == set(range(cells.planted, 2 * cells.planted))


def test_lists_are_empty_without_signal_and_then_nothing_is_correlated():
    null = simulate(1, planted=0)
    scorer = gene_scores.ListScorer(null.X, null.genes, alpha=1e-6)
    comparison = scorer.compare(null.y, flip(null.y, 0.1))
    assert comparison.table["r"].isna().all() and (comparison.table["n_true"] == 0).all()
    assert gene_scores.null_table(comparison, scorer.nulls(comparison, null.y, 9, seed=0)).empty


def test_labels_must_be_binary(cells):
    with pytest.raises(ValueError, match="y: found values .*-1.*expected 0 and 1"):
        gene_lists.differential_genes(cells.X, np.r_[-1, cells.y[1:]], cells.genes)


def test_score_by_hand_and_like_scanpy(cells):
    import scanpy as sc

    X = np.array([[5.0, 1.0, 3.0, 9.0], [0.0, 2.0, 2.0, 1.0]])
    score = gene_scores.score_sets(X, gene_scores.membership([np.array([0])], 4), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(score[:, 0], [5 - 2, 0 - 2])  # gene 0 minus the mean of genes 1 and 2 of its bin

    # With every other gene of a bin as control, and bins alike in size and share, both definitions are the same.
    bins = gene_scores.expression_bins(cells.X)
    chosen = np.array([np.flatnonzero(bins == b)[0] for b in range(1, 25)])
    adata = anndata.AnnData(cells.X, var=pd.DataFrame(index=cells.genes))
    sc.tl.score_genes(adata, list(cells.genes[chosen]), ctrl_size=1000)
    ours = gene_scores.score_sets(cells.X, gene_scores.membership([chosen], 300), bins)
    np.testing.assert_allclose(ours[:, 0], adata.obs["score"], atol=1e-5)


@pytest.mark.parametrize(
    ("file", "cells", "sensitive", "resistant"),
    [("GSE110894", 1404, 0.898, 0.772), ("GSE117872_HN120", 368, 0.925, 0.870)],
)
def test_correlations_of_the_published_scores(file, cells, sensitive, resistant):
    table = pd.read_csv(paths.DATA / f"scdeal_scores_{file}.csv.gz")
    for name, expected in (("sensitive", sensitive), ("resistant", resistant)):
        found = gene_scores.correlate(table[f"Predicted_{name}_DEG_score"], table[f"Ground_truth_{name}_DEG_score"])
        assert found["n"] == cells
        assert round(found["r"], 3) == expected
        assert found["r2"] == pytest.approx(found["r"] ** 2)
        # Fisher z by hand
        half = 1.959964 / np.sqrt(cells - 3)
        assert found["r_low"] == pytest.approx(np.tanh(np.arctanh(found["r"]) - half), abs=1e-6)
        assert found["r_low"] < found["r"] < found["r_high"] and found["r2_low"] < found["r2"] < found["r2_high"]


def test_r2_interval_starts_at_zero_where_r_may_be_zero():
    rng = np.random.default_rng(0)
    found = gene_scores.correlate(rng.normal(size=30), rng.normal(size=30))
    assert found["r_low"] < 0 < found["r_high"] and found["r2_low"] == 0
    assert found["r2_high"] == pytest.approx(max(found["r_low"] ** 2, found["r_high"] ** 2))


def test_random_sets_have_the_composition_of_the_reference(cells):
    bins, reference = gene_scores.expression_bins(cells.X), np.arange(0, 60, 2)
    member = gene_scores.draw_sets(bins, reference, 20, seed=1)
    assert (member.sum(axis=0) == len(reference)).all()
    expected = np.bincount(bins[reference], minlength=bins.max() + 1)
    for j in range(20):
        np.testing.assert_array_equal(np.bincount(bins[member[:, j]], minlength=bins.max() + 1), expected)
    assert len({member[:, j].tobytes() for j in range(20)}) == 20
    np.testing.assert_array_equal(member, gene_scores.draw_sets(bins, reference, 20, seed=1))


def test_good_predictions_beat_random_sets_and_wrong_ones_do_not(cells):
    scorer = gene_scores.ListScorer(cells.X, cells.genes, top=10)
    y_pred = flip(cells.y, 0.1)
    good = scorer.compare(cells.y, y_pred)
    table = gene_scores.null_table(good, scorer.nulls(good, y_pred, 99, seed=0))
    assert len(table) == 6 and (table["p"] == 0.01).all() and (good.table["r"] > 0.8).all()
    bad = scorer.compare(cells.y, flip(cells.y, 0.9))  # lists trade places
    assert (bad.table["r"] < 0).all()


@pytest.mark.slow
def test_p_values_are_uniform_when_nothing_is_planted():
    p = []
    for seed in range(40):
        null = simulate(seed, cells=60, planted=0)
        scorer = gene_scores.ListScorer(null.X, null.genes, top=20, alpha=1.1)
        y_pred = np.random.default_rng(1000 + seed).permutation(null.y)
        comparison = scorer.compare(null.y, y_pred)
        table = gene_scores.null_table(comparison, scorer.nulls(comparison, y_pred, 99, seed))
        p.append(table.set_index(["list", "null"]).at[("sensitive", "permuted"), "p"])
    assert len(p) == 40 and sps.kstest(p, "uniform").pvalue > 0.01


def test_shuffled_labels_show_what_is_built_in():
    null = simulate(3, planted=0)
    y_pred = flip(null.y, 0.1)
    here = gene_scores.ListScorer(null.X, null.genes, alpha=1.1).shuffled(null.y, y_pred, 4, seed=0)
    assert here["r"].min() > 0.4  # a high r with no signal at all
    half = np.arange(len(null.y)) % 2 == 0
    apart = gene_scores.ListScorer(null.X, null.genes, alpha=1.1, derive=half, score=~half)
    unshared = apart.shuffled(null.y, y_pred, 4, seed=0)
    assert abs(unshared["r_unshared"].mean()) < 0.3  # held-out cells, no common genes: nothing is left


def test_built_in_correlation_is_told_from_the_real_one(cells):
    fold, y_pred = np.arange(len(cells.y)) % 2, flip(cells.y, 0.1)
    group = np.where(cells.y == 1, "a", "b")
    data = predicted.Predicted(cells.X, cells.genes, cells.y, y_pred.astype(float), fold, group, group)
    without = {k: np.where(fold == k, -1, y_pred) for k in (0, 1)}
    mean = gene_scores.built_in(data, without, 3, seed=0, top=10).groupby(["cells", "labels"])["r"].mean()
    assert mean["held out", "real"] > 0.8 > mean["held out", "shuffled"]
    assert mean["same", "shuffled"] > mean["held out", "shuffled"]


def test_labels_of_a_held_out_fold_change_nothing(cells):
    """Neither its true labels nor predictions of models that saw them reach a list that is scored on the fold."""
    fold, y_pred = np.arange(len(cells.y)) % 3, flip(cells.y, 0.1)
    without = {0: np.where(fold == 0, -1, y_pred)}

    def held_out(y, p):
        data = predicted.Predicted(cells.X, cells.genes, y, p.astype(float), fold, y, y)
        found = gene_scores.built_in(data, without, 2, seed=0, top=10)
        return found[found["cells"] == "held out"].reset_index(drop=True)

    turned = np.where(fold == 0, 1 - cells.y, cells.y)
    pd.testing.assert_frame_equal(held_out(cells.y, y_pred), held_out(turned, 1 - y_pred))


# --- attributions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(cells):
    """A small network trained on the planted cells, with its standardised input and its baseline."""
    torch.manual_seed(0)
    X = (cells.X - cells.X.mean(axis=0)) / cells.X.std(axis=0)
    net = nn.Sequential(nn.Linear(X.shape[1], 16), nn.ReLU(), nn.Linear(16, 2))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(X)), torch.tensor(cells.y)).backward()
        optimiser.step()
    return SimpleNamespace(net=net.eval(), X=X)


def test_attributions_of_a_linear_model_are_exact():
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(20, 5)).astype(np.float32), torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    baseline = X.mean(axis=0)
    found = attribution.integrated_gradients(lambda x: x @ weight, X, baseline)
    np.testing.assert_allclose(found.values, (X - baseline) * weight.numpy(), atol=1e-5)
    assert np.abs(found.delta).max() < 1e-4


def test_integrated_gradients_converge_and_agree_with_captum(network):
    from captum.attr import IntegratedGradients

    found = attribution.integrated_gradients(network.net, network.X, network.X.mean(axis=0), steps=50)
    assert found.relative_delta < 0.01
    expected = IntegratedGradients(lambda x: attribution.log_odds(network.net(x))).attribute(
        torch.tensor(network.X), torch.tensor(network.X.mean(axis=0))[None], n_steps=50
    )
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-4)


def test_expected_gradients_are_deterministic_and_agree_with_integrated_ones(network):
    one, two = (attribution.expected_gradients(network.net, network.X, network.X) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.relative_delta < 0.05
    integrated = attribution.integrated_gradients(network.net, network.X, network.X.mean(axis=0))
    importance = [np.abs(a.values).mean(axis=0) for a in (one, integrated)]
    assert sps.spearmanr(*importance).statistic > 0.7


def test_expected_gradients_use_every_stratum_of_baselines():
    """Of a linear model they are exact with as many strata as cells: each cell is a baseline once."""
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(20, 5)).astype(np.float32), torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    found = attribution.expected_gradients(lambda x: x @ weight, X[:4], X, baselines=20, points=1)
    np.testing.assert_allclose(found.values, (X[:4] - X.mean(axis=0)) * weight.numpy(), atol=1e-5)
    assert np.abs(found.delta).max() < 1e-4


def test_key_genes_find_the_planted_genes_and_their_direction(cells, network):
    found = attribution.integrated_gradients(network.net, network.X, network.X.mean(axis=0))
    ranking = attribution.rank_genes(found, network.X, cells.y, cells.genes)
    table = gene_lists.recovery({"|IG|": ranking["mean_abs"], "IG test": ranking["z"].abs()}, cells.truth, ks=(10,))
    assert (table["auroc"] > 0.9).all() and (table["precision@10"] > 0.8).all()
    lists = attribution.key_genes(ranking, top=cells.planted)
    assert (lists["sensitive"] < cells.planted).mean() >= 0.9
    assert np.isin(lists["resistant"], np.arange(cells.planted, 2 * cells.planted)).mean() >= 0.9


def test_forward_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"forward: returned shape \(4, 3\), expected \(n, 2\)"):
        attribution.integrated_gradients(lambda x: x[:, :3], np.ones((4, 5)), np.zeros(5))


def test_recovery_and_stability_by_hand():
    planted = np.array([True, False, True, False])
    table = gene_lists.recovery({"perfect": np.array([4, 1, 3, 2]), "worst": np.array([1, 4, 2, 3])}, planted, ks=(2,))
    assert table["auroc"].tolist() == [1, 0] and table["precision@2"].tolist() == [1, 0]
    pairs = gene_lists.stability(np.array([[4, 3, 2, 1], [4, 3, 1, 2], [1, 2, 3, 4]]), k=2)
    assert pairs["jaccard@2"].tolist() == [1, 0, 0] and pairs["spearman"].iloc[1] == pytest.approx(-1)


def test_ranks_of_named_genes_admit_what_is_not_measured():
    table = gene_lists.ranks_of(["B", "ZBTB48"], ["A", "B", "C"], {"score": np.array([3.0, 2.0, 1.0])})
    assert table["score"].iloc[0] == 2 and pd.isna(table["score"].iloc[1])
    assert table["measured"].tolist() == [True, False]
    tied = gene_lists.ranks_of(["A", "B", "C"], ["A", "B", "C"], {"score": np.array([3.0, 3.0, 2.0])})
    assert tied["score"].tolist() == [1, 1, 3]


def test_attention_table_knows_uniform_and_class_dependent_heads():
    y, tokens = np.repeat([0, 1], 15), 4
    weights = np.full((30, 2, tokens, tokens), 1 / tokens)
    focus = np.where(y == 1, 0, 2)
    weights[:, 1] = np.eye(tokens)[focus][:, None, :]
    table = attribution.attention_table(weights, y)
    np.testing.assert_allclose(table["entropy"], [1, 0], atol=1e-6)
    np.testing.assert_allclose(table["class_distance"], [0, 1], atol=1e-6)
    one_token = sps.mannwhitneyu(np.ones(15), np.zeros(15)).pvalue  # of the token that a class looks at, times tokens
    assert table["p"].tolist() == pytest.approx([1, tokens * one_token], rel=1e-6)


def test_attention_relevance_sees_only_genes_of_attended_tokens():
    def tokens(x):
        return x.reshape(len(x), 2, 2)

    def weights(x):
        return torch.tensor([1.0, 0.0]).expand(len(x), 1, 2, 2)

    found = attribution.attention_relevance(tokens, weights, np.ones((5, 4)), probes=64)
    assert (found[:2] > 0.5).all() and (found[2:] == 0).all()


@pytest.mark.slow
def test_networks_are_explained_once_and_alike(run_folders):
    datasets.prepare("A375-PLX4720")
    first = explained.explain("A375-PLX4720", "smoke", 0)
    (stored,) = (run_folders / "build" / "cache" / "explained").iterdir()
    stored.unlink()
    again = explained.explain_all("A375-PLX4720", "smoke", [0])
    np.testing.assert_array_equal(first.integrated.values, again[0].integrated.values)
    np.testing.assert_array_equal(first.expected.values, again[0].expected.values)
    assert first.integrated.relative_delta < 0.05 and first.X.shape == (len(first.rows), len(first.genes))
    randomised = explained.explain("A375-PLX4720", "smoke", 0, randomised=True)
    assert sorted(randomised.y) == sorted(first.y) and (randomised.y != first.y).any()
    table, scores = explained.rankings([first])
    assert list(table["gene"]) == list(first.genes) and len(scores) == 7
    assert all(len(s) == len(first.genes) and np.isfinite(s).all() for s in scores.values())


# --- enrichment -------------------------------------------------------------------------------------------------------


def test_enrichment_by_hand_and_background(tmp_path):
    path = tmp_path / "sets.gmt.gz"
    path.write_bytes(gzip.compress(b"HIT\tna\tA\tB\tC\tX\nMISS\tna\tD\tE\tF\n"))
    sets = gene_sets.read_gmt(path)
    table = gene_lists.enrichment(["A", "B"], list("ABCDEFGH"), sets, min_size=3).set_index("set")
    # X is not measured, so HIT has 3 genes of 8; both hits fall in it: 3/8 * 2/7
    assert table.loc["HIT", "p"] == pytest.approx(3 / 8 * 2 / 7) and table.loc["HIT", "size"] == 3
    assert table.loc["HIT", "padj"] == pytest.approx(2 * 3 / 8 * 2 / 7) and table.loc["MISS", "p"] == 1
    with pytest.raises(ValueError, match=r"hits: \['Z'\] not in the background"):
        gene_lists.enrichment(["Z"], list("ABC"), sets)


def test_embedded_gene_sets_are_read():
    assert len(gene_sets.read_gmt(paths.DATA / "hallmark_v7.0.gmt.gz")) == 50


# --- pseudotime -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line():
    """Cells on a line, in random order, with the neighbourhood that pseudotime needs."""
    rng = np.random.default_rng(0)
    progress = rng.permutation(np.linspace(0, 1, 150))
    loadings = rng.normal(size=(2, 40))
    X = 4 * np.c_[progress, progress**2] @ loadings + rng.normal(0, 0.3, (150, 40))
    obs = pd.DataFrame({"culture": np.where(progress < 0.33, "P", np.where(progress < 0.67, "H", "R"))})
    adata = anndata.AnnData(X.astype(np.float32), obs.rename(index=str))
    sc.pp.pca(adata, n_comps=5)
    sc.pp.neighbors(adata)
    sc.tl.diffmap(adata, n_comps=10)
    return SimpleNamespace(adata=adata, progress=progress, X=X)


def from_root(adata, root):
    """Diffusion pseudotime from a cell."""
    adata.uns["iroot"] = root
    sc.tl.dpt(adata)
    return adata.obs["dpt_pseudotime"].to_numpy()


def test_pseudotime_recovers_a_planted_line(line):
    signature = line.progress + np.random.default_rng(1).normal(0, 0.5, 150)  # weak knowledge of the direction
    root = pseudotime.root_without_labels(line.adata, signature)
    assert line.progress[root] < 0.15
    time = from_root(line.adata, root)
    assert sps.spearmanr(time, line.progress).statistic > 0.9
    reverse = pseudotime.root_without_labels(line.adata, -signature)
    assert line.progress[reverse] > 0.85


def test_the_root_passes_over_components_that_tell_unjoined_groups_apart():
    progress = np.tile(np.linspace(0, 1, 20), 2)
    maps = np.column_stack([np.ones(40), np.repeat([0.1, -0.1], 20), progress])
    adata = SimpleNamespace(obsm={"X_diffmap": maps}, uns={"diffmap_evals": np.array([1.0, 1.0, 0.99])})
    assert progress[pseudotime.root_without_labels(adata, progress)] == 0
    assert progress[pseudotime.root_without_labels(adata, -progress)] == 1


def test_signal_components_are_counted(line):
    assert embedding.signal_components(line.X) == 2
    wide = np.hstack([line.X] * 5) + np.random.default_rng(0).normal(0, 0.3, (150, 200))  # more genes than cells
    assert embedding.signal_components(wide) == 2


def test_labelled_root_is_at_the_sensitive_end(line):
    assert line.progress[pseudotime.root_from_labels(line.adata, line.progress < 0.33)] < 0.1


def test_distances_are_those_of_scanpy(line):
    time = from_root(line.adata, 7)
    row = pseudotime.diffusion_distances(line.adata)[7]
    np.testing.assert_allclose(row / row.max(), time, atol=1e-4)


def test_all_roots_cover_both_signs_on_a_line(line):
    rho = pseudotime.all_roots(line.adata, line.progress)
    assert len(rho) == 150 and rho.max() > 0.9 and rho.min() < -0.9


def test_genes_that_run_with_the_line_are_told_from_others(line):
    time = np.where(np.arange(150) == 3, np.inf, line.progress)  # one cell that no path reaches
    X = np.c_[line.progress, -line.progress, np.random.default_rng(2).normal(size=(150, 200)), np.ones(150)]
    X[3] = 1e6
    table = pseudotime.genes_along(time, X, [f"G{i}" for i in range(203)])
    assert table["rho"].iloc[:2].tolist() == pytest.approx([1, -1]) and (table["padj"].iloc[:2] < 1e-9).all()
    kept = np.arange(150) != 3
    expected = sps.spearmanr(line.progress[kept], X[kept, 5])
    assert table.loc[5, ["rho", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
    np.testing.assert_allclose(table["padj"], sps.false_discovery_control(table["p"]))
    assert table.loc[202, ["rho", "p"]].tolist() == [0, 1]  # a gene that does not vary


def test_smoothing_recovers_a_trend_within_its_band():
    rng = np.random.default_rng(0)
    time = rng.random(300)
    Y = np.c_[np.sort(time).searchsorted(time) / 300, np.full(300, 2.0)] + np.c_[rng.normal(0, 0.2, 300), np.zeros(300)]
    mean, low, high = pseudotime.smooth(time, Y, width=0.05)
    assert mean.shape == low.shape == high.shape == (50, 2)
    inside = slice(5, -5)  # a kernel flattens the ends
    np.testing.assert_allclose(mean[inside, 0], np.linspace(0, 1, 50)[inside], atol=0.1)
    assert (low[:, 0] <= mean[:, 0]).all() and (mean[:, 0] <= high[:, 0]).all()
    np.testing.assert_allclose(high[:, 1] - low[:, 1], 0, atol=1e-12)
    apart = pseudotime.smooth(np.r_[time, [np.inf] * 20], np.r_[Y, np.full((20, 2), 9.0)], width=0.05)
    np.testing.assert_array_equal(apart, (mean, low, high))  # cells that it does not reach
