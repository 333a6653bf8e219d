"""Transfer tasks without a real cell: the evidence on which recipes of ATSDP-NET+ are compared.

``lines``: a cluster of cell lines, alike in expression, is the unlabelled target domain (``lines:3``: cluster 3).
``pseudo-cells``: each of those lines becomes a few cells, by negative binomial counts with the dispersions and depths
of one real line's cells. ``twin``: a simulated set drawn with a seed of its own. Nothing here reads a real single-cell
set with labels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from atsdp_utils.data import datasets, gdsc, preprocess, twins
from atsdp_utils.foundation import config

KINDS = ("lines", "pseudo-cells", "twin")
#: Drugs of the evidence: every fifth of the table in alphabetical order among those with 60 to 400 sensitive lines.
MIN_SENSITIVE, MAX_SENSITIVE, EVERY = 60, 400, 5
CLUSTERS, CLUSTER_SEED, MIN_CLASS = 8, 5, 8
#: Labelled lines of each class that must be left to learn from, where clusters of all drugs are held out.
MIN_TRAINING = 15
#: Networks see one drug in so many under ``quick``, all under ``paper``.
NETWORKS_EVERY = 3
CELLS_PER_LINE = 3
#: Seed of the twins here: not that of the committed twins, nor that of their calibration.
EVIDENCE_SEED = 60611


@dataclass(frozen=True)
class Target:
    """A target domain with known labels, and its source domain."""

    X: np.ndarray  # (n, genes) float32, standardised on itself
    y: np.ndarray  # (n,) int8: 1 sensitive, 0 resistant, -1 none; for scoring only
    source: preprocess.Source  # bulk rows without the lines of the target


def drugs() -> list[str]:
    """Drugs of the evidence, by counts of labels alone."""
    counts = (gdsc.label_table() == 1).sum()
    eligible = sorted(counts.index[(counts >= MIN_SENSITIVE) & (counts <= MAX_SENSITIVE)])
    return eligible[::EVERY]


@lru_cache(maxsize=1)
def clusters() -> np.ndarray:
    """Expression cluster of every bulk line, (lines,): k-means on 20 principal components, no label involved."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    Z = PCA(20, random_state=CLUSTER_SEED, svd_solver="randomized").fit_transform(gdsc.load_bulk().X)
    return KMeans(CLUSTERS, random_state=CLUSTER_SEED, n_init=10).fit_predict(Z)


def eligible_clusters(drug: str) -> list[int]:
    """Clusters with enough labelled lines of both classes, by the size of the rarer class, largest first."""
    return _eligible(gdsc.load_bulk(drug).y)


def _eligible(y: np.ndarray) -> list[int]:
    cluster = clusters()
    rarer = np.array([_rarer(y[cluster == k]) for k in range(CLUSTERS)])
    return [int(k) for k in np.argsort(-rarer, kind="stable") if rarer[k] >= MIN_CLASS]


def _rarer(y: np.ndarray) -> int:
    return min(int((y == c).sum()) for c in (0, 1))


def held_out_tasks(profile: str = "paper") -> list[tuple[str, int]]:
    """Every drug with every cluster of enough labelled lines in it and outside it, drugs in alphabetical order.

    Under ``smoke`` the first two of these drugs with the first three clusters.
    """
    labels = gdsc.all_labels(gdsc.load_bulk().lines).T
    found = [
        (drug, k)
        for drug, y in sorted(zip(gdsc.drugs(), labels, strict=True), key=lambda pair: pair[0])
        for k in _eligible(y)
        if _rarer(y[clusters() != k]) >= MIN_TRAINING
    ]
    if profile != "smoke":
        return found
    few = list(dict.fromkeys(drug for drug, _ in found))[:2]
    return [(drug, k) for drug, k in found if drug in few and k < 3]


def network_tasks(profile: str) -> list[tuple[str, int]]:
    """Of :func:`held_out_tasks`, those on which networks are trained; the rule reads counts of labels, no score.

    Every third drug in alphabetical order (``paper``: every drug) with one cluster, of its eligible ones (the largest
    first) the one whose turn it is: the i-th of these drugs has its (i modulo their number)-th.
    """
    tasks = held_out_tasks(profile)
    names = list(dict.fromkeys(drug for drug, _ in tasks))[:: 1 if profile == "paper" else NETWORKS_EVERY]
    of = {name: [k for drug, k in tasks if drug == name] for name in names}
    return [(name, of[name][i % len(of[name])]) for i, name in enumerate(names)]


def held_out_cluster(drug: str, seed: int) -> np.ndarray:
    """Lines of the eligible cluster of a drug whose turn it is, (lines,) bool."""
    choices = eligible_clusters(drug)
    if not choices:
        raise ValueError(f"name: no expression cluster has {MIN_CLASS} labelled lines of both classes of {drug}")
    return clusters() == choices[seed % len(choices)]


def make(name: str, kind: str, seed: int, max_genes: int) -> Target:
    """A target domain without a real cell, with known labels, and the source domain that is left for it.

    Parameters
    ----------
    name : str
        A drug; for the kind ``twin`` the name of a twin.
    kind : str
        One of :data:`KINDS`. ``lines:3`` holds cluster 3 out; else `seed` says which eligible cluster of the drug it
        is. ``twin:10`` keeps the most cells of the twin of which 10 % are sensitive.
    seed : int
        The cluster (in turn), the counts of pseudo-cells, and a twin's held-out lines and mix of cells.
    max_genes : int
        How many genes are kept, the most variable ones over the bulk lines.

    Returns
    -------
    Target
        The target standardised on itself, with labels for scoring only (pseudo-cells come from labelled lines alone);
        and the lines outside the cluster, standardised on themselves, all for training. A twin's lines are split 80/20.

    Raises
    ------
    ValueError
        If the kind is unknown, or if no cluster has enough labelled lines of both classes.
    """
    kind, _, share = kind.partition(":")
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "twin":
        cells = twin_cells(name)
        source = datasets.source_domain(cells, max_genes, seed)
        rows = mix(cells.y, int(share) / 100, seed) if share else np.arange(len(cells.y))
        return Target(preprocess.standardised(cells, source, rows), cells.y[rows], source)
    bulk = gdsc.load_bulk(name)
    target = clusters() == int(share) if share else held_out_cluster(name, seed)
    genes = gdsc.shared_genes(bulk, bulk.genes, max_genes)
    X, train = preprocess.columns(bulk.X, bulk.genes, genes), ~target
    scaled = preprocess.Standardizer().fit(X[train]).transform(X)
    source = preprocess.Source(
        scaled[train], bulk.y[train], genes, np.ones(train.sum(), bool), gdsc.all_labels(bulk.lines[train])
    )
    if kind == "lines":
        return Target(preprocess.Standardizer().fit_transform(X[target]), bulk.y[target], source)
    labelled = np.flatnonzero(target & (bulk.y >= 0))
    cells = pseudo_cells(tuple(bulk.lines[labelled]), seed)
    cells = preprocess.Standardizer().fit_transform(preprocess.columns(cells, bulk.genes, genes))
    return Target(cells, np.repeat(bulk.y[labelled], CELLS_PER_LINE), source)


def mix(y: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of the largest mix in which a given share of the cells is sensitive: sorted indices, none twice.

    Parameters
    ----------
    y : (cells,)
        1 sensitive, 0 resistant, -1 without a label (in no mix).
    share : float
        Share of sensitive cells, inside (0, 1).
    seed : int
        Draws the cells of the class of which some are left over; the scarce class is taken whole.
    """
    of_class = [np.flatnonzero(y == c) for c in (0, 1)]
    total = min(len(of_class[0]) / (1 - share), len(of_class[1]) / share)
    sizes = [round(total * (1 - share)), round(total * share)]
    rng = np.random.default_rng([seed, 89])
    return np.sort(np.concatenate([rng.choice(r, n, replace=False) for r, n in zip(of_class, sizes, strict=True)]))


@lru_cache(maxsize=8)
def pseudo_cells(lines: tuple[str, ...], seed: int) -> np.ndarray:
    """Log-normalised counts, (lines x CELLS_PER_LINE, bulk genes), each line's cells in a row."""
    rng = np.random.default_rng([seed, 83])
    library = twins.count_statistics()[2]
    blocks = []
    for line in lines:
        level, phi = twins.baseline((line,))
        depth = rng.choice(library, CELLS_PER_LINE)
        counts = twins.draw_counts(np.tile(level, (CELLS_PER_LINE, 1)), phi, np.full(CELLS_PER_LINE, 0.04), depth, rng)
        blocks.append(counts[:, : len(level)])
    counts = np.vstack(blocks)
    return np.log1p(preprocess.TARGET_SUM * counts / counts.sum(1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=4)
def twin_cells(name: str) -> preprocess.Cells:
    """A twin of the evidence, prepared as any set; made anew in each process that needs it."""
    return preprocess.to_cells(twins.make_twin(name, EVIDENCE_SEED), config.DATASETS[name])
