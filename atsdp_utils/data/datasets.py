"""A single-cell set by its name, of any tier: loaded, prepared for trainings and kept, and beside it its bulk side.

Single cells arrive as AnnData with ``obs`` = ``culture`` (the group that the label is a property of: a culture, or for
SCC47 an end of an expression score), ``sensitive`` (nullable; missing for drug-holiday cells, controls and empty wells)
and ``sensitive_paper`` (the paper's counting, ambiguities 19 and 20); ``var['ortholog']`` is the human symbol.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atsdp_utils.data import gdsc, geo, preprocess, real_cells, twins
from atsdp_utils.data.preprocess import Cells, Source
from atsdp_utils.foundation import cache, config, paths

if TYPE_CHECKING:
    from anndata import AnnData


def load_cells(name: str) -> AnnData:
    """Single cells of any tier by name, as AnnData (see the module's text for the columns).

    A twin is simulated the first time and then read from disk; a set of tier ``geo`` is downloaded if need be.

    Parameters
    ----------
    name : str
        A key of :data:`config.DATASETS`.

    Returns
    -------
    AnnData
        Values as measured or simulated, before quality control; z-scores where the set was published so.

    Raises
    ------
    KeyError
        If there is no set of that name.
    GeoError
        If a set of tier ``geo`` cannot be downloaded or read, or is not what was expected.
    """
    if name not in config.DATASETS:
        raise KeyError(f"name: got {name!r}, expected one of {', '.join(config.DATASETS)}")
    tier = config.DATASETS[name].tier
    if tier == "simulated":
        import anndata

        path = paths.PREPARED / f"{name}-{cells_key(name)}.h5ad"
        return cache.kept(path, anndata.read_h5ad, lambda temporary: twins.make_twin(name).write_h5ad(temporary))
    return geo.load(name) if tier == "geo" else real_cells.load(name)


def cells_key(name: str) -> str:
    """Key of the single cells of any tier: what their loader reads, and its code."""
    spec = config.DATASETS[name]
    about = name, spec.tier, spec.drug, spec.paper, spec.values, spec.species, spec.null
    if spec.tier == "geo":
        return cache.key(about, geo.recorded(name), cache.code("data.geo.load"))
    if spec.tier == "simulated":
        return cache.key(about, gdsc.bulk_key(spec.drug), cache.code("data.twins.make_twin"))
    return cache.key(about, real_cells.key(name))


def _prepared_path(name: str) -> Path:
    key = cache.key(cells_key(name), config.DATASETS[name].counting, cache.code("data.preprocess.to_cells"))
    return paths.PREPARED / f"{name}-prepared-{key}.npz"


def is_prepared(name: str) -> bool:
    """Whether :func:`prepare` has been here; what it left may still be damaged."""
    return _prepared_path(name).exists()


def prepare(name: str) -> Cells:
    """Prepared cells of a set, from the cache, else made of what :func:`load_cells` gives, and cached.

    They are those of :func:`preprocess.to_cells`: log1p of counts per 10,000, or z-scores as published. All callers in
    one process share the arrays, so they must not be changed.
    """
    try:
        return load_prepared(name)
    except Exception:  # absent, or damaged by a full disk or a flipped bit: made again
        fields = vars(preprocess.to_cells(load_cells(name), config.DATASETS[name]))
        path = _prepared_path(name)  # after loading, which may have downloaded the set
        cache.write_atomically(path, lambda temporary: np.savez_compressed(temporary, **fields))
    return load_prepared(name)


@lru_cache(maxsize=4)
def load_prepared(name: str) -> Cells:
    """Read what :func:`prepare` wrote, without scanpy."""
    path = _prepared_path(name)
    if not path.exists():
        raise FileNotFoundError(f"{path.name}: not prepared; run notebook 02 or datasets.prepare({name!r})")
    with np.load(path, allow_pickle=False) as z:
        fields = {f: z[f] for f in Cells.__dataclass_fields__}
    return Cells(**fields | {f: str(fields[f]) for f in ("name", "tier", "drug")})


def source_domain(cells: Cells, max_genes: int, seed: int) -> Source:
    """Bulk side of a single-cell set: shared genes and the 80/20 split of the lines (section 2.2).

    The lines on which a twin's response direction was estimated are left out (a twin must not leak into its bulk).

    Parameters
    ----------
    cells : Cells
        Only the names of drug, tier and genes are read, no value or label of a cell.
    max_genes : int
        Number of genes at most, see :func:`gdsc.shared_genes`.
    seed : int
        Draws the lines that are held out.
    """
    exclude = twins.direction_lines(cells.drug) if cells.tier == "simulated" else ()
    bulk = gdsc.load_bulk(cells.drug, exclude)
    return gdsc.bulk_source(bulk, gdsc.shared_genes(bulk, cells.genes, max_genes), seed)
