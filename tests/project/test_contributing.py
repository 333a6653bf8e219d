"""The recipes of CONTRIBUTING.md, carried out in a temporary copy: one file and one entry each, nothing else."""

import filecmp
import os
import shutil
import subprocess
import sys

import anndata
import nbformat
import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import paths
from book import build

MODEL = '''
import numpy as np


class NearestMean:
    """Which class mean is nearer."""

    def __init__(self, *, seed=0):
        self.seed = seed

    def fit(self, X, y, *, balance="none", source=None):
        self.direction = X[y == 1].mean(0) - X[y == 0].mean(0)
        return self

    def predict_proba(self, X):
        return 1 / (1 + np.exp(-(X @ self.direction) / len(self.direction)))
'''
RUN = """
from atsdp_utils.data import datasets
from atsdp_utils.experiments import protocols, tables
datasets.prepare("Added-set")
task = next(t for t in tables.table4("embedded", "smoke")
            if t.dataset == "Added-set" and t.model == "NearestMean" and t.protocol == "S")
result = protocols.run_task(task)
assert any(t.dataset == "Added-set" for t in tables.transfer("embedded", "smoke"))
print(len(result.y), ((result.p > result.p.mean()) == (result.y == 1)).mean())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout whose large data files are links."""
    root = tmp_path_factory.mktemp("checkout") / "copy"
    for name in ("atsdp_utils", "notebooks"):
        shutil.copytree(paths.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        paths.DATA, root / "data", copy_function=os.symlink, ignore=shutil.ignore_patterns("checksums.json")
    )
    for name in ("data/checksums.json", "Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, root / name)
    return root


def insert(path, after, line):
    """Add one line below the first that starts with `after`."""
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, text in enumerate(lines) if text.startswith(after))
    path.write_text("".join([*lines[: at + 1], line + "\n", *lines[at + 1 :]]))


def python(copy, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ATSDP")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def changed(copy, *folders):
    """Files of the copy that are new or differ, caches left out."""
    found = set()
    for path in (p for f in folders for p in (copy / f).rglob("*") if p.is_file() and p.suffix != ".pyc"):
        name = path.relative_to(copy)
        if not (paths.ROOT / name).exists() or not filecmp.cmp(path, paths.ROOT / name, shallow=False):
            found.add(name.as_posix())
    return found


def test_a_data_set_and_a_model_are_one_file_and_one_line_each(copy):
    rng = np.random.default_rng(0)
    sensitive = np.arange(60) % 2 == 0
    genes = gdsc.load_bulk().genes[:400]
    X = rng.poisson(2 + 3 * np.outer(sensitive, np.arange(400) < 80)).astype(np.float32)
    obs = pd.DataFrame(
        {"culture": np.where(sensitive, "parental", "derived"), "sensitive": sensitive},
        index=[f"c{i}" for i in range(60)],
    )
    adata = anndata.AnnData(X, obs, pd.DataFrame(index=genes), uns={"origin": "made up"})
    adata.write_h5ad(copy / "data" / "Added-set.h5ad")
    insert(copy / "atsdp_utils/foundation/config.py", "REAL = (", '    Dataset("Added-set", "real", "CISPLATIN"),')
    (copy / "atsdp_utils/baselines/nearest_mean.py").write_text(MODEL)
    insert(
        copy / "atsdp_utils/baselines/registry.toml",
        "# A new model goes here",
        '[NearestMean]\nfactory = ".nearest_mean:NearestMean"\n',
    )
    python(copy, "-m", "atsdp_utils.foundation.checksums", "write")
    cells, accuracy = python(copy, "-c", RUN).split()
    assert int(cells) == 60 and float(accuracy) > 0.9
    assert changed(copy, "atsdp_utils", "data") == {
        "data/Added-set.h5ad", "data/checksums.json", "atsdp_utils/foundation/config.py",
        "atsdp_utils/baselines/nearest_mean.py", "atsdp_utils/baselines/registry.toml",
    }  # fmt: skip


def test_a_notebook_is_one_file_and_one_line(copy):
    cell, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [
        text(
            "(nb-20)=\n# New\n\nDoes it run?\n\n**What you will learn.** That.\n\n**Prerequisites.** None.\n\n"
            "**Run time.** A second."
        ),
        cell(build.PARAMETERS, metadata={"tags": ["parameters"]}),
        text("## What holds, what does not"),
        text("## Exercises"),
    ]
    for i in (1, 2, 3):
        told = f"**{i}.** Add. *Two minutes. Hint: count. Expected: {1 + i}.*"
        cells += [text(told), cell(f"1 + {i}", metadata={"tags": ["solution", "hide-cell"]})]
    for i, c in enumerate(cells):
        c["id"] = f"new-cell-{i}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = copy / "notebooks" / "20_new.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    waits = "$(RUN)/notebooks/20_new.ipynb: $(RUN)/notebooks/05_cv_evaluation.ipynb"
    insert(copy / "Makefile", "$(RUN)/notebooks/11_scorecard.ipynb: ", waits)
    assert build.problems(path) == []
    order = subprocess.run(["make", "-n", "run-notebooks", "PROFILE=smoke"], cwd=copy, capture_output=True, text=True)
    plan = order.stdout
    assert plan.index("run notebooks/05_cv_evaluation.ipynb") < plan.index("run notebooks/20_new.ipynb"), order.stderr


def test_an_added_set_without_labels_is_refused(copy):
    adata = anndata.AnnData(np.ones((2, 2), np.float32), pd.DataFrame({"culture": ["a", "b"]}, index=["x", "y"]))
    adata.write_h5ad(copy / "data" / "Added-set.h5ad")
    insert(copy / "atsdp_utils/foundation/config.py", "REAL = (", '    Dataset("Added-set", "real", "CISPLATIN"),')
    python(copy, "-m", "atsdp_utils.foundation.checksums", "write")
    load = "    datasets.load_cells('Added-set')"
    code = f"from atsdp_utils.data import datasets\ntry:\n{load}\nexcept ValueError as e:\n    print(e)"
    assert "obs has no ['sensitive']" in python(copy, "-c", code)
