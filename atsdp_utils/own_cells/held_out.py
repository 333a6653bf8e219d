"""What the table of several drugs says of files whose truth is known: clusters of lines, held out (notebook 16)."""

import tempfile
from pathlib import Path

import anndata as ad
import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.evaluation import metrics
from atsdp_utils.experiments import pseudo
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.own_cells import predict, ranking
from atsdp_utils.own_cells.prediction import pooled


def held_out_rows(cluster: int, profile: str) -> pd.DataFrame:
    """The command's row of every drug for a file of the lines of a cluster, learned from the other lines.

    Kept on disk under the labels, values, settings and code.

    Parameters
    ----------
    cluster : int
        One of :func:`pseudo.clusters`.
    profile : str
        Under ``smoke`` the models have as few genes as that profile.

    Returns
    -------
    DataFrame
        A row for each task of the cluster: ``cluster``, columns of :data:`ranking.COLUMNS` but ``clusters_auc``, and
        ``auc``, that of the score, which alone reads labels of the cluster.
    """
    bulk, settings = gdsc.load_bulk(), _settings(profile)
    drugs = [drug for drug, k in pseudo.held_out_tasks(profile) if k == cluster]
    model = predict.MODELS[settings.model]
    made = settings, model.max_genes, config.RECIPES[model.recipe]
    parts = cluster, drugs, gdsc.bulk_key(), gdsc.all_labels(bulk.lines), made
    key = cache.key(*parts, runtime.precision(), cache.code("own_cells.held_out._rows"))
    path = paths.RESULTS / "clusters" / f"command-{cluster}-{key}.csv"
    return cache.kept(path, pd.read_csv, lambda part: _rows(cluster, drugs, settings).to_csv(part, index=False))


def _settings(profile: str) -> predict.Settings:
    sizes = config.profile(profile)
    return predict.Settings(max_genes=sizes.max_genes if profile == "smoke" else None, jobs=1)


def _rows(cluster: int, drugs: list[str], settings: predict.Settings) -> pd.DataFrame:
    bulk, rows = gdsc.load_bulk(), []
    own = pseudo.clusters() == cluster
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines.h5ad"
        of = {"obs": pd.DataFrame(index=bulk.lines[own]), "var": pd.DataFrame(index=bulk.genes)}
        ad.AnnData(bulk.X[own], **of).write_h5ad(file)
        given = predict.prepare(file, lambda line: None, values="zscored", settings=settings)
    for drug in drugs:
        source = gdsc.bulk_source(gdsc.load_bulk(drug, tuple(bulk.lines[own])), given.chosen, given.seed)
        found = predict.learn(drug, source, given, lambda line: None)
        y = gdsc.load_bulk(drug).y[own][given.where]
        score = pooled(found.members)
        auc = metrics.classification_metrics(y[y >= 0], score[y >= 0])["auc"]
        rows.append({"cluster": cluster} | ranking.known_of(drug, source, given, found) | {"auc": auc})
    return pd.DataFrame(rows)
