"""What was done to counts before they came: undone where they come back, told where it cannot be, else left alone."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.own_cells import cell_values, predict
from atsdp_utils.own_cells.cellfile import CellFile, InputError

N, GENES = 60, 900
SETTINGS = predict.Settings(sample=N, jobs=1)


@pytest.fixture(scope="module")
def counts():
    """Counts of cells of two kinds, most of them zero; cells x genes."""
    rng = np.random.default_rng(0)
    level = rng.gamma(0.4, 6, GENES) * np.exp(np.outer(rng.random(N) - 0.5, rng.normal(0, 1.5, GENES)))
    return rng.poisson(level * np.exp(rng.normal(0, 0.4, (N, 1)))).astype(float)


def ready(folder, X, **options):
    """A file of these values, ready to be scored: values that models see, (scored cells, genes), and what is said."""
    path = folder / "mine.h5ad"
    cells = pd.DataFrame(index=[f"c{i}" for i in range(len(X))])
    genes = pd.DataFrame(index=gdsc.load_bulk().genes[: X.shape[1]])
    anndata.AnnData(sparse.csr_matrix(X.astype(np.float32)), cells, genes).write_h5ad(path)
    found = predict.prepare(path, lambda _: None, **{"settings": SETTINGS, **options})
    Z = found.Z.toarray() if sparse.issparse(found.Z) else found.Z
    return Z[np.argsort(found.where)], "; ".join(found.notes)


def agreement(Z, X) -> float:
    """The lowest rank correlation, over cells, of standardised values with those of counts X."""
    right = np.log1p(X / X.sum(1, keepdims=True) * 1e4)
    varied = (right.std(0) > 0) & (Z.std(0) > 0)
    a, b = ((M[:, varied] - M[:, varied].mean(0)) / M[:, varied].std(0) for M in (Z, right))
    return min(spearmanr(*pair)[0] for pair in zip(a, b, strict=True))


def scaled(C, to=1e4):
    return C / C.sum(1, keepdims=True) * to


def prior(C):
    return C.sum(1, keepdims=True) / C.sum(1).mean()


# --- square roots -----------------------------------------------------------------------------------------------------

ROOTS = {
    "of counts": np.sqrt,
    "of deep counts": lambda C: np.sqrt(40 * C),
    "of ten thousand": lambda C: np.sqrt(scaled(C)),
    "of a million": lambda C: np.sqrt(scaled(C, 1e6)),
    "three decimals": lambda C: np.sqrt(scaled(C)).round(3),
    "three eighths added": lambda C: 2 * np.sqrt(C + 3 / 8),
}


@pytest.mark.parametrize("way", ROOTS)
def test_square_roots_give_counts_back(way, counts, tmp_path):
    Z, said = ready(tmp_path, ROOTS[way](counts))
    assert len(Z) == N and agreement(Z, counts) > 0.99
    assert "square roots: counts are their squares" in said and "unknown base" not in said


NO_ROOTS = {
    "counts": lambda C: C,
    "halves": lambda C: C / 2,
    "scaled": scaled,
    "logarithms": lambda C: np.log1p(scaled(C)),
    "logarithms to base 2": lambda C: np.log2(scaled(C, 1e6) + 1),
    "logarithms with a decimal": lambda C: np.log1p(scaled(C)).round(1),
    "logarithms twice": lambda C: np.log1p(np.log1p(scaled(C))),
    "arcsinh": np.arcsinh,
    "cube roots": np.cbrt,
    "shared reads": lambda C: C + (C > 0) * (np.random.default_rng(1).random(C.shape) < 0.3) * 0.37,
    "corrected": lambda C: np.maximum(C - 0.1 * scaled(C, 1) * C.sum(0), 0),
}


@pytest.mark.parametrize("way", NO_ROOTS)
def test_other_values_are_no_square_roots_and_none_is_moved(way, counts, tmp_path):
    X = NO_ROOTS[way](counts)
    said = ready(tmp_path, X)[1]
    assert "square roots:" not in said and cell_values.from_zero(X) == (X, [])


def test_depth_is_not_judged_where_the_base_of_logarithms_is_unknown(counts, tmp_path):
    X = counts.copy()
    X[:3] = np.random.default_rng(0).binomial(X[:3].astype(int), 0.01)
    assert len(ready(tmp_path, X)[0]) == N - 3
    Z, said = ready(tmp_path, np.log1p(np.log1p(scaled(X))))
    assert "unknown base, or none, taken as natural: depth of cells is not judged" in said and len(Z) == N


# --- a number was added to every value --------------------------------------------------------------------------------

ADDED = {
    "edgeR": lambda C: np.log2((C + 2 * prior(C)) / (C.sum(1, keepdims=True) + 4 * prior(C)) * 1e6),
    "voom": lambda C: np.log2((C + 0.5) / (C.sum(1, keepdims=True) + 1) * 1e6),
    "before log2": lambda C: np.log2(scaled(C, 1e6) + 0.1),
    "before ln": lambda C: np.log(scaled(C) + 1e-3),
    "before log10": lambda C: np.log10(scaled(C) + 0.01),
    "four decimals": lambda C: np.log2(scaled(C, 1e6) + 0.1).round(4),
    "after ln": lambda C: np.log1p(scaled(C)) + 0.1,
    "one": lambda C: C + 1,
    "a half": lambda C: C + 0.5,
    "centred": lambda C: np.log1p(C) - np.log1p(C).mean(1, keepdims=True),
}


@pytest.mark.parametrize("way", ADDED)
def test_what_was_added_to_every_value_is_taken_off(way, counts, tmp_path):
    Z, said = ready(tmp_path, ADDED[way](counts))
    assert len(Z) == N and agreement(Z, counts) > 0.99
    assert "lowest value, which is not zero (a number was added?): taken for zero" in said


def test_what_has_no_common_lowest_value_stays_what_it_is(counts):
    logs = np.log1p(scaled(counts))[:, counts.any(0)]
    ranks = pd.DataFrame(counts).rank(axis=1).to_numpy()  # a common lowest value, but no multiples above it
    for X in ((logs - logs.mean(0)) / logs.std(0), logs / logs.std(0), ranks, np.where(ranks > 300, np.nan, ranks)):
        for stored in (X, sparse.csr_matrix(X)):
            assert cell_values.from_zero(stored)[0] is stored
    assert cell_values.from_zero(counts + 1, "zscored")[1] == []


# --- values of another unit among logarithms --------------------------------------------------------------------------


def detected(X, asked="auto"):
    genes = {"names": np.array([f"G{i}" for i in range(X.shape[1])])}
    file = CellFile("x", "h5ad", X, genes, pd.DataFrame(index=[f"c{i}" for i in range(len(X))]))
    for stored in (X, sparse.csr_matrix(X)):
        found = cell_values.detect_values(replace(file, X=stored), asked)
    return found


@pytest.mark.parametrize("value", [31, 999])
def test_one_value_above_thirty_among_logarithms_is_named(value, counts):
    tpm = scaled(counts / np.random.default_rng(0).lognormal(0, 1, GENES), 1e6)
    for logs in (np.log1p(scaled(counts)), np.log2(scaled(counts, 1e6) + 1), np.log2(tpm + 1), ADDED["edgeR"](counts)):
        logs[3, 7] = value
        with pytest.raises(InputError, match=f"above 30 in 1 of 60, first {value} at cell c3, gene G7. Expected one"):
            detected(logs)
    assert detected(logs, "counts")[0] == "counts"


@pytest.mark.parametrize("n", [1, 5, 30, 50])
def test_cells_of_another_unit_among_logarithms_are_told(n, counts):
    logs, others = np.log1p(scaled(counts)), scaled(counts, 1e6)
    logs[-n:] = others[-n:]
    with pytest.raises(InputError, match=f"hold logarithms, but values above 30 in {n} of 60, first .* at cell c"):
        detected(logs)


def test_shallow_cells_below_thirty_are_no_logarithms(counts):
    rng = np.random.default_rng(0)
    share = np.where(np.arange(N) < 25, 0.1, 1)[:, None]
    X = rng.binomial(counts.astype(int), share).astype(float)
    low = X[:25].max()
    reads = X + (rng.random(X.shape) < 0.3) * (X > 0) * rng.random(X.shape)
    soup = np.maximum(X - 0.1 * scaled(X, 1) * X.sum(0), 0)
    drops = np.vstack([counts[:6], rng.poisson(counts.mean(0) / 60, (120, GENES))])
    drops = np.maximum(drops - 0.1 * scaled(drops, 1) * drops.sum(0) / len(drops), 0)
    for Y in (X / low * 25, X * rng.lognormal(0, 0.1, (N, 1)), reads, soup, drops, np.sqrt(X * 60)):
        below = (Y.max(1) < cell_values.MAX_LOG).sum()
        assert 10 <= below < len(Y) and detected(Y)[0] == "counts", below


# --- a row that is no cell like the others ----------------------------------------------------------------------------


def test_a_row_far_deeper_than_all_others_is_named_and_not_the_others(counts, tmp_path):
    typed, gene = counts.copy(), gdsc.load_bulk().genes[7]
    typed[3, 7] = 9_999_999
    way = "Expected like cells: a control, a sum, an annotation, a typing error"
    for X in (typed, np.log1p(scaled(typed))):
        with pytest.raises(InputError, match=f"c3: [0-9,]+ times the depth of the other cells, most .* {gene}. {way}"):
            ready(tmp_path, X)
    wells = counts * np.where(np.arange(N) % 12 == 0, 400, 1)[:, None]
    with pytest.raises(InputError, match=f"c0, c12, c24, c36 …: [0-9]+ times the depth of the other cells. {way}"):
        ready(tmp_path, wells)
    with pytest.raises(InputError, match="c0, c12"):
        ready(tmp_path, wells, settings=replace(SETTINGS, min_cells=6))
    assert len(ready(tmp_path, wells, settings=replace(SETTINGS, min_cells=5))[0]) == 5


def test_droplets_around_few_or_many_cells_are_droplets(counts, tmp_path):
    empty = np.random.default_rng(0).poisson(counts.mean(0) / 400, (300, GENES))
    assert len(ready(tmp_path, np.vstack([counts, empty]))[0]) == N
    with pytest.raises(InputError, match="6 cells with values; .* more are far less depth than the other cells"):
        ready(tmp_path, np.vstack([counts[:6], empty]))


# --- counts that were divided by lengths ------------------------------------------------------------------------------


def tpm(rng, n=150):
    """Transcripts per million of genes of unequal lengths, as drawn from reads; (cells, genes)."""
    length, level = np.exp(rng.normal(7.6, 0.7, GENES)), np.exp(rng.normal(0, 2.2, (3, GENES)))
    share = rng.dirichlet([0.3] * 3, n) @ level * length
    share /= share.sum(1, keepdims=True)
    reads = rng.poisson(share * rng.lognormal(np.log(3e5), 0.5, n)[:, None] * (rng.random((n, GENES)) < 0.3))
    rate = reads / length
    return rate / rate.sum(1, keepdims=True) * 1e6


@pytest.mark.parametrize("way", [lambda V: V, lambda V: V.round(1), lambda V: V.round(2),
                                 lambda V: np.log2(V.round(2) + 1), lambda V: np.log2(V + 1)])  # fmt: skip
def test_the_last_digit_of_rounded_values_is_no_count(way, tmp_path):
    Z, _ = ready(tmp_path, way(tpm(np.random.default_rng(11))))
    assert len(Z) == 150


def test_residues_of_an_estimation_make_no_cell_shallow(counts, tmp_path):
    """As kallisto leaves them: some cells have tiny values where others have none."""
    rng = np.random.default_rng(3)
    tiny = 10.0 ** rng.uniform(-8, -2, counts.shape)
    here = (rng.random(counts.shape) < rng.uniform(0, 0.2, (N, 1))) & (counts == 0)
    split = counts + np.abs(rng.normal(0, 0.05, counts.shape)) * (counts > 0)
    Z, _ = ready(tmp_path, np.where(here, tiny, split))
    assert len(Z) == N


def test_an_intensity_called_like_a_gene_is_told(counts, tmp_path):
    X = counts.copy()
    X[:, 5] = np.random.default_rng(0).integers(10_000, 60_000, N)
    assert (
        "of the counts of all genes" in ready(tmp_path, X)[1]
        and "of the counts of all genes" not in ready(tmp_path, counts)[1]
    )


# --- one total over all genes, which the genes of the bulk do not have ------------------------------------------------
@pytest.fixture(scope="module")
def plate(counts):
    """TPM of a plate with spike-ins, five of whose wells are empty: their TPM are spike-ins."""
    rng = np.random.default_rng(3)
    empty = np.arange(N) >= N - 5
    of_genes = np.where(empty[:, None], rng.poisson(0.02 * counts), counts) / rng.lognormal(0, 0.7, GENES)
    spikes = np.outer(np.where(empty, 1, 0.05) * of_genes.sum(1).max(), rng.dirichlet(np.ones(92)))
    every = np.hstack([of_genes, spikes])
    names = [*gdsc.load_bulk().genes[:GENES], *(f"ERCC-{i:05d}" for i in range(92))]
    return every / every.sum(1, keepdims=True) * 1e6, names


def prepared(folder, X, names):
    """A file of these values under these names, ready to be scored, and what models see, (scored cells, genes)."""
    cells = pd.DataFrame(index=[f"c{i}" for i in range(len(X))])
    anndata.AnnData(X.astype(np.float32), cells, pd.DataFrame(index=names)).write_h5ad(folder / "mine.h5ad")
    found = predict.prepare(folder / "mine.h5ad", lambda _: None, settings=SETTINGS)
    Z = found.Z.toarray() if sparse.issparse(found.Z) else found.Z
    return found, Z[np.argsort(found.where)]


@pytest.mark.parametrize("base", [np.e, 2, 10])
def test_logarithms_of_a_plate_with_empty_wells_are_logarithms(base, plate, tmp_path):
    """The genes of the bulk alone have unlike totals; with the spike-ins all wells have one."""
    X, names = plate
    (plain, Z), (logs, Z_logs) = (prepared(tmp_path, V, names) for V in (X, np.log1p(X) / np.log(base)))
    assert (plain.known["values"], logs.known["values"]) == ("counts", "lognorm")
    assert (plain.reason == logs.reason).all() and (plain.reason != "scored").any()
    np.testing.assert_allclose(Z, Z_logs, atol=0.02)


def test_a_few_empty_wells_do_not_make_logarithms_of_unlike_depth_counts(plate, tmp_path):
    X, names = plate
    own = [name for name in names if not name.startswith("ERCC")]
    found, _ = prepared(tmp_path, np.log2(1 + X)[:, : len(own)], own)
    assert found.known["values"] == "lognorm"


@pytest.mark.parametrize("to", [1, 30])
def test_shares_of_a_cell_are_no_logarithms(to, counts):
    """Their own totals are one, more so than those of what they would be the logarithms of."""
    assert cell_values._of_one_total(sparse.csr_matrix(scaled(counts, to))) is None
    assert cell_values._of_one_total(sparse.csr_matrix(np.log1p(scaled(counts)) / np.log(2))) == 2


def test_the_base_that_fits_best_is_taken_where_cells_are_alike():
    """Totals of logarithms to base 2 are alike to base e, too, if cells are; not as much as to base 2."""
    rng = np.random.default_rng(0)
    alike = rng.poisson(20 * rng.gamma(0.4, 6, GENES) * np.exp(rng.normal(0, 0.1, (N, 1)))).astype(float)
    logs = np.log2(1 + scaled(alike))
    assert np.expm1(logs).sum(1).std() < 0.01 * np.expm1(logs).sum(1).mean()
    assert cell_values._of_one_total(sparse.csr_matrix(logs)) == 2


def test_the_base_is_the_one_that_fits_best_and_offsets_are_off_everywhere(counts, tmp_path):
    names = [*gdsc.load_bulk().genes[:GENES], *(f"LNC{i}" for i in range(20_000))]
    C = np.hstack([counts, np.zeros((N, 20_000))])
    lib = C.sum(1, keepdims=True)
    p = 2 * lib / lib.mean()  # edgeR::cpm(log = TRUE); with many genes its totals are near one to base e, too
    _, Z = prepared(tmp_path, C, names)
    for X in (np.log2((C + p) / (lib + 2 * p) * 1e6), np.log10(C / lib * 1e4 + 1) + 1):
        found, Z_logs = prepared(tmp_path, X, names)
        assert any(f"base {b}" in n for b in (2, 10) for n in found.notes)
        np.testing.assert_allclose(Z_logs, Z, atol=0.01)


def test_two_species_that_z_scores_do_not_tell_apart_are_told(counts, tmp_path):
    mouse = gene_names.human_to_mouse()
    both = [g for g in gdsc.load_bulk().genes[:GENES] if g in mouse]
    C = np.hstack([counts, np.random.default_rng(0).poisson(2.0, (N, len(both)))])
    L = np.log1p(scaled(C))
    names = [f"GRCh38_{g}" for g in gdsc.load_bulk().genes[:GENES]] + [f"mm10_{mouse[g]}" for g in both]
    found, _ = prepared(tmp_path, (L - L.mean(0)) / np.maximum(L.std(0), 1e-6), names)
    assert "genes of two species" in "; ".join(found.notes)
