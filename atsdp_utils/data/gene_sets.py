"""Gene sets of the repository: the hallmark and Reactome collections."""

import gzip
from pathlib import Path

from atsdp_utils.data.preprocess import bulk_spelling
from atsdp_utils.foundation import paths
from atsdp_utils.foundation.checksums import verify


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Gene sets of a gzipped GMT file (name, description, genes; tab-separated): name to symbols of the bulk."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if line.strip()]
    return {name: bulk_spelling([g for g in genes if g]).tolist() for name, _, *genes in rows}


def pathway_sets() -> dict[str, list[str]]:
    """All sets of the GMT files in ``data/``."""
    return {name: s for path in sorted(paths.DATA.glob("*.gmt.gz")) for name, s in read_gmt(verify(path)).items()}
