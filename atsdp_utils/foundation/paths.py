"""Every location of the project, once.

``ATSDP_BUILD`` and ``ATSDP_FIGURES`` move what a run writes, ``ATSDP_RUNS`` its records alone; what it reads stays.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
PAPER = DATA / "paper"
NOTEBOOKS = ROOT / "notebooks"
BOOK = ROOT / "book"

BUILD = Path(os.environ.get("ATSDP_BUILD", ROOT / "build"))
FIGURES = Path(os.environ.get("ATSDP_FIGURES", ROOT / "figures"))
#: Committed runs by profile, of all chapters; and the differences `make check` allows.
COMMITTED = {profile: ROOT / "figures" / f"embedded-{profile}" for profile in ("quick", "paper")}
REFERENCE, PUBLISHED = COMMITTED.values()
TOLERANCES = ROOT / "figures" / "tolerances.json"

CACHE = BUILD / "cache"
DOWNLOADS = CACHE / "downloads"
PREPARED = CACHE / "datasets"
SPLITS = CACHE / "splits"
SEARCHES = CACHE / "searches"
PRETRAINED = CACHE / "pretrained"
RESULTS = CACHE / "results"


def figures_dir(data: str, profile: str) -> Path:
    """Regenerated tables and figures of one run."""
    return FIGURES / f"{data}-{profile}"


def run_dir(data: str, profile: str) -> Path:
    """Executed notebooks, manifest fragments and the HTML of one run."""
    return Path(os.environ.get("ATSDP_RUNS", BUILD)) / f"{data}-{profile}"
