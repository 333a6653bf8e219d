"""Pictures of many dimensions in two."""

import random

import igraph
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import kneighbors_graph


def signal_components(X: np.ndarray) -> int:
    """Principal components (at least 2) with more variance than the largest of shuffled data: Horn's analysis."""
    rng = np.random.default_rng(0)
    centred = np.asarray(X, dtype=np.float64) - np.mean(X, axis=0)

    def variances(matrix: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix)

    return max(2, int((variances(centred) > variances(rng.permuted(centred, axis=0))[-1]).sum()))


def umap(X: np.ndarray, seed: int = 0, components: int = 30) -> np.ndarray:
    """UMAP coordinates (n, 2) of rows, by igraph: umap-learn compiles itself anew in every process.

    Parameters
    ----------
    X : (n, features)
        Expression, or other values, of the cells.
    seed, components : int
        What fixes the result, and how many principal components, at most, the 15 nearest neighbours are found in.
    """
    n = len(X)
    Z = PCA(min(components, n - 1, X.shape[1]), random_state=seed, svd_solver="randomized").fit_transform(X)
    distance = kneighbors_graph(Z, min(15, n - 1), mode="distance").tocoo()
    graph = igraph.Graph(n, edges=np.column_stack([distance.row, distance.col]).tolist(), directed=True)
    igraph.set_random_number_generator(random.Random(seed))
    # A cell that starts far from all others would stay there: their pull fades with the distance.
    start = 5 * np.clip(Z[:, :2] / max(Z[:, 0].std(), 1e-9), -2, 2)
    drawn = graph.layout_umap(dist=distance.data.tolist(), dim=2, seed=start.tolist(), epochs=300, min_dist=0.1)
    return np.array(drawn.coords)
