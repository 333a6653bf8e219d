"""``make reproduce DATA=geo`` from the downloaded files to the book, at smoke size, on files of the true layouts.

The files hold every cell under its true name, so that all checks of the loaders run as they would on the real ones.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import geo_fixtures as mini
import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data.geo import SERIES
from atsdp_utils.data.geo_files import read_lock
from atsdp_utils.experiments import tables
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import report, verdict
from book import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
#: Genes with values: enough for gene sets, few enough to read the matrices in seconds.
GENES = 1000
PAPER_SETS = [spec.name for spec in config.GEO]
#: Chapters that read no set of the paper: what they compute is that of the smoke run, and they do not run again here.
ELSEWHERE = ("03", "13", "14", "15", "16", "19")
CHAPTERS = [path for path in build.numbered() if path.stem[:2] not in ELSEWHERE]
REFERENCE = json.loads((paths.REFERENCE / "manifest.json").read_text())["outputs"]
#: Their tables in the reference run, which stand for those that they would write.
TAKEN_OVER = {
    name for name, made in REFERENCE.items() if made["notebook"][:2] in ELSEWHERE and f"{name}.csv" in made["files"]
}
#: Parts of the cache that a run may start from; every file in them is named by what it was computed from.
SHARED = ("results", "pretrained", "searches", "splits")
#: Outputs about twins and simulated cells that are shown in every tier, under names of their own.
OPENLY_SIMULATED = {
    "gene_score_null_twin", "planted_gene_recovery", "planted_gene_recovery_within", "planted_recovery",
    "plus_class_mix", "plus_selection", "twin_calibration", "twin_detection", "twin_realism", "twin_recipes",
}  # fmt: skip
OF_EVERY_SET = (
    "cultures", "quality_control", "class_sizes", "class_balance", "gene_space", "transfer", "table1", "table2",
    "table3", "table4", "ablation_heads", "graph_degrees", "plus_score", "few_shot",
)  # fmt: skip


def link(source: str, target: str) -> None:
    """Link a file that nothing changes in place, or copy it where another disk forbids a link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A whole run in a folder of its own; trainings of the real sets that are done already are taken over."""
    folder = tmp_path_factory.mktemp("geo-run")
    downloads = folder / "build" / "cache" / "downloads"
    downloads.mkdir(parents=True)
    mini.write_all(folder, GENES)
    for file in {f for series in SERIES.values() for f in series.files}:
        (folder / file).rename(downloads / file)
    for part in SHARED:
        if (paths.CACHE / part).exists():
            shutil.copytree(paths.CACHE / part, downloads.parent / part, copy_function=link)
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")} | {
        "ATSDP_BUILD": str(folder / "build"), "ATSDP_FIGURES": str(folder / "figures"),
        "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",  # whatever asks a server, fails
    }  # fmt: skip
    figures = folder / "figures" / "geo-smoke"
    figures.mkdir(parents=True)
    for name in TAKEN_OVER:
        shutil.copy(paths.REFERENCE / f"{name}.csv", figures)
    chosen = "SOURCES=" + " ".join(str(path.relative_to(paths.ROOT)) for path in CHAPTERS)
    python = f"PY=env PYTHONPATH={paths.ROOT} {sys.executable}"  # this checkout, wherever the package is installed
    command = ["make", "reproduce", "DATA=geo", "PROFILE=smoke", "JOBS=2", chosen, python]
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def outputs(ran):
    """Entries of the manifest by name, and every table."""
    figures = ran / "figures" / "geo-smoke"
    made = json.loads((figures / "manifest.json").read_text())["outputs"]
    tables = {path.stem: pd.read_csv(path) for path in sorted(figures.glob("*.csv"))}
    return made, tables


def test_every_notebook_and_the_book_are_there(ran):
    run = ran / "build" / "geo-smoke"
    names = [path.stem for path in CHAPTERS]
    assert [name for name in names if not (run / "notebooks" / f"{name}.ipynb").exists()] == []
    assert (run / "html" / "index.html").exists()  # warnings are errors: no page, no book
    assert [name for name in names if not (run / "html" / "notebooks" / f"{name}.html").exists()] == []


@pytest.mark.parametrize("chapter", ELSEWHERE)
def test_chapters_that_did_not_run_read_no_set_of_the_paper(chapter):
    """All that they do with the parameter DATA has one value, whatever that is."""
    (path,) = (p for p in build.numbered() if p.stem.startswith(chapter))
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    code = "\n".join("".join(c["source"]) for c in cells if "parameters" not in c["metadata"].get("tags", []))
    lines = [line.strip() for line in code.splitlines() if re.search(r"(?<!\.)\bDATA\b", line)]

    def of_real_cells(data: str) -> list:
        return [t for t in tables.transfer(data, "smoke") if t.dataset in {s.name for s in config.REAL}]

    same = {
        "run = report.Run(": lambda data: None,
        "tasks = tables.bulk(DATA, PROFILE)": lambda data: tables.bulk(data, "smoke"),
        "runs = tables.stopping(DATA, PROFILE)": lambda data: tables.stopping(data, "smoke"),
        "tables.clusters(DATA, PROFILE)": lambda data: tables.clusters(data, "smoke"),
        "asked = tables.permuted(DATA, PROFILE)": lambda data: tables.permuted(data, "smoke"),
        "tasks = tables.peers(DATA, PROFILE)": lambda data: tables.peers(data, "smoke"),
        "config.datasets(DATA) if spec.tier == ": lambda data: [s for s in config.datasets(data) if s.tier == "real"],
        "tasks = [t for t in tables.transfer(DATA, PROFILE)": of_real_cells,
    }
    for line in lines:
        (value,) = (value for start, value in same.items() if start in line)
        assert value("embedded") == value("geo"), line


def test_every_file_was_taken_from_the_folder_of_downloads_and_its_hash_kept(ran):
    downloads = ran / "build" / "cache" / "downloads"
    assert set(read_lock(downloads)) == {f for series in SERIES.values() for f in series.files}


def test_every_table_of_the_reference_is_written(outputs):
    reference = {path.stem for path in paths.REFERENCE.glob("*.csv")}
    assert reference <= set(outputs[1])
    assert not TAKEN_OVER & set(outputs[0])


@pytest.mark.parametrize("table", OF_EVERY_SET)
def test_tables_have_rows_of_every_set_of_the_paper(outputs, table):
    rows = outputs[1][table]
    tiers = rows[rows["dataset"].isin(PAPER_SETS) & (rows["tier"] != "print")].groupby("dataset")["tier"].unique()
    assert tiers.map(list).to_dict() == dict.fromkeys(PAPER_SETS, ["geo"])


def test_nothing_simulated_passes_as_the_papers_own(outputs):
    made, tables = outputs
    for name, entry in made.items():
        assert {report.tier_of(d) for d in entry["datasets"]} == set(entry["tiers"]), name
        assert "simulated" not in entry["tiers"] or name in OPENLY_SIMULATED, name
    for name, rows in tables.items():
        if {"dataset", "tier"} <= set(rows):
            simulated = rows["dataset"].astype(str).str.endswith("-sim")
            assert (rows.loc[simulated, "tier"] == "simulated").all(), name
            assert not (rows.loc[~simulated, "tier"] == "simulated").any(), name


def test_inputs_of_the_manifest_are_the_cells_that_were_read(ran, outputs):
    read = outputs[0]["table3"]["inputs"]
    assert len({read[name] for name in PAPER_SETS}) == len(PAPER_SETS)
    for name in PAPER_SETS:
        (file,) = (ran / "build" / "cache" / "datasets").glob(f"{name}-prepared-*.npz")
        with np.load(file, allow_pickle=False) as prepared:
            tier, cells = str(prepared["tier"]), set(prepared["cell_id"])
        assert tier == "geo" and re.fullmatch("[0-9a-f]{64}", read[name])
        assert not [cell for cell in cells if not re.match(r"RHH\d|GSM\d|RPI\d", cell)]  # names of real cells only


def test_the_scorecard_judges_the_papers_cells(outputs):
    card = outputs[1]["scorecard"]
    assert not card["note"].fillna("").str.contains("DATA=geo").any()
    own = card[card["tier"] == "geo"]
    claims, values = own[own["kind"] == "claim"], own[own["kind"] == "value"]
    assert claims["verdict"].notna().all() and set(claims["verdict"]) & {"supported", "refuted", "undecided"}
    lost = claims[(claims["verdict"] == verdict.MISSING) & claims["note"].str.endswith(".csv")]
    assert lost.empty, lost[["id", "note"]].to_string()  # the table that a rule reads is there
    assert set(PAPER_SETS) <= set(values["dataset"]) and values["reproduced"].notna().all()
