"""Every cell of ``cache_keys.csv``: which input changes the key of which kind of cached file, and which must not."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import datasets, gdsc, preprocess, real_cells, twins  # fmt: skip
from atsdp_utils.experiments import inputs, protocols  # fmt: skip
from atsdp_utils.experiments.keys import key
from atsdp_utils.experiments.task import ATSDP, FURTHER, PLUS, Task
from atsdp_utils.foundation import cache, checksums, closure, config, paths, runtime  # fmt: skip
from atsdp_utils.interpretation import explained
from atsdp_utils.models import atsdp, stages
from atsdp_utils.own_cells import predict  # fmt: skip

TABLE = pd.read_csv(paths.ROOT / "tests" / "cache_keys.csv", index_col="input")
NAME, DRUG, OTHER = "SCC47-afatinib", "AFATINIB", "SORAFENIB"
TWIN_DRUG = config.DATASETS["DATA1-sim"].drug
ARCH = config.Architecture(8, (8,), (8,), heads=0)


def world() -> dict:
    """All that keys may hold, small: bulk and cells of planted values, settings and the seed."""
    rng = np.random.default_rng(0)
    lines, genes = np.array([f"L{i}" for i in range(40)]), np.array([f"G{i}" for i in range(120)])
    y = np.tile(np.array([0, 1], np.int8), 15)
    return {
        "X": rng.normal(size=(40, 120)).astype(np.float32), "lines": lines, "genes": genes,
        "labels": {drug: rng.permutation(np.repeat([0, 1], 20)) for drug in (DRUG, OTHER, TWIN_DRUG)},
        "cells": rng.normal(size=(30, 120)).astype(np.float32), "y": y, "seed": 0,
        "profile": "smoke", "jobs": 1, "files": dict(checksums.register()),
    }  # fmt: skip


@pytest.fixture
def keys(run_folders, monkeypatch):
    """Keys of all kinds in a world; nothing is trained."""
    made: dict[str, str] = {}

    def kept(path, read, write):
        kind = "search" if path.parent == paths.SEARCHES else path.name.partition("-")[0]
        made[kind] = path.name
        return {} if kind == "search" else real_kept(path, read, write)

    real_kept = cache.kept
    monkeypatch.setattr(cache, "kept", kept)
    monkeypatch.setattr(stages, "fit", lambda net, stage: [])

    def keys_in(w: dict) -> dict[str, str]:
        made.clear()
        monkeypatch.setattr(checksums, "register", lambda: w["files"])
        monkeypatch.setattr(real_cells, "register", lambda: w["files"])
        monkeypatch.setattr(gdsc, "_expression", lambda: (w["X"], w["lines"], w["genes"]))
        monkeypatch.setattr(gdsc, "label_table", lambda: pd.DataFrame(w["labels"], index=w["lines"]))
        n, y = len(w["y"]), w["y"]
        cells = preprocess.Cells(
            NAME, "real", DRUG, w["cells"], w["genes"], y, y, np.array(["c"] * n), np.ones(n), np.arange(n).astype(str)
        )
        monkeypatch.setattr(inputs, "cells_of", lambda *a: cells)
        for memo in (gdsc.bulk_key, twins.direction_lines, inputs.source_of):
            memo.cache_clear()
        inputs.splits(cells, 2, 0)
        (split,) = paths.SPLITS.iterdir()
        split.unlink()
        seed, profile, source = w["seed"], w["profile"], inputs.source_of(NAME, w["profile"], w["seed"])
        cfg = dataclasses.replace(config.profile(profile).training, theta=0.0)
        tuned = Task(NAME, "S", "Logistic", profile, (("tune", True),), seed, folds=2)
        X = preprocess.columns(cells.X, cells.genes, source.genes)
        protocols.tuned(tuned, X, y, source)
        atsdp.ATSDP(seed=seed, arch=ARCH, cfg=cfg).fit_transfer(X, source, keep=True)
        settings = dataclasses.replace(predict.SETTINGS, jobs=w["jobs"], training=cfg)
        return {
            "prepared": datasets._prepared_path(NAME).name,
            "twin": datasets.cells_key("DATA1-sim"),
            "split": split.name,
            "autoencoder": made["dae"],
            "bulk stage": made["bulk"],
            "transfer": made["transfer"],
            "result S": key(Task(NAME, "S", ATSDP, profile, seed=seed, folds=2)),
            "result U": key(Task(NAME, "U", ATSDP, profile, seed=seed)),
            "result U further steps": key(Task(NAME, "U", FURTHER, profile, seed=seed)),
            "result S Logistic": key(Task(NAME, "S", "Logistic", profile, seed=seed, folds=2)),
            "result B": key(Task(DRUG, "B", ATSDP, profile, seed=seed)),
            "search": made["search"],
            "explanation": explained.asked(NAME, profile, seed)[-1].name,
            "own-cells model": predict.model_hash(source, X, seed, settings),
        }

    return keys_in


CODE = (closure._module, closure._reached, cache.code)
BEFORE: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _forgotten():
    """No test leaves keys of its own code or values behind."""
    yield
    for memo in (*CODE, gdsc.bulk_key, twins.direction_lines, inputs.source_of):
        memo.cache_clear()


def edited(monkeypatch, module: str, old: str, new: str) -> None:
    """Read another text of a module wherever code is hashed."""
    read, text = closure.source, closure.source(module)
    assert old in text
    monkeypatch.setattr(closure, "source", lambda name: text.replace(old, new, 1) if name == module else read(name))


def _turned(w, drug):
    w["labels"][drug] = np.r_[1 - w["labels"][drug][:1], w["labels"][drug][1:]]


def _add(w, name, row):
    """One value of a row that trainings read: line 5 is not held out by seed 0, cell 4 not in its fold 0."""
    w[name] = w[name].copy()
    w[name][row, 5] += 1


def _reordered(w):
    w["cells"], w["y"] = w["cells"][::-1], w["y"][::-1]


def _checksum(w, file):
    w["files"][file] = "0" * 64


def _training(m, **changes):
    smoke = config.PROFILES["smoke"]
    new = dataclasses.replace(smoke, training=dataclasses.replace(smoke.training, **changes))
    m.setitem(config.PROFILES, "smoke", new)


def _renamed(w, m):
    m.setitem(config.PROFILES, "another", dataclasses.replace(config.PROFILES["smoke"], name="another"))
    w["profile"] = "another"


def _everywhere(m, pattern: str, new: str):
    """Every module with a new comment or another docstring."""
    read = closure.source
    assert re.search(pattern, read("models.stages"))
    m.setattr(closure, "source", lambda name: (text := read(name)) and re.sub(pattern, new, text))


INPUTS = {
    "label of the drug turned round": lambda w, m: _turned(w, DRUG),
    "label of another drug": lambda w, m: _turned(w, OTHER),
    "label of the twin's drug": lambda w, m: _turned(w, TWIN_DRUG),
    "one value of bulk": lambda w, m: _add(w, "X", 5),
    "one value of cells": lambda w, m: _add(w, "cells", 4),
    "label of a cell": lambda w, m: w.update(y=np.r_[1 - w["y"][:1], w["y"][1:]]),
    "order of cells": lambda w, m: _reordered(w),
    "file of the cells": lambda w, m: _checksum(w, "scc47_multidrug.h5ad"),
    "file of other cells": lambda w, m: _checksum(w, "a375_plx4720.h5ad"),
    "file of the reference counts": lambda w, m: _checksum(w, "mixology_5lines_celseq2_counts.h5ad"),
    "loader of real cells": lambda w, m: edited(m, "data.real_cells", "np.where(sensitive,", "np.where(~sensitive,"),
    "quality control": lambda w, m: edited(m, "data.preprocess", "MAX_MITO = 200, 3, 0.10", "MAX_MITO = 200, 3, 0.20"),
    "balancing": lambda w, m: edited(m, "data.preprocess", "neighbours = min(5,", "neighbours = min(4,"),
    "lines that choose the epoch": lambda w, m: edited(
        m, "models.stages", "rows, held = hold_out(len(y), cfg.validation,", "rows, held = hold_out(len(y), 0.5,"
    ),
    "counting of drug-holiday cells": lambda w, m: m.setitem(
        config.DATASETS, NAME, dataclasses.replace(config.DATASETS[NAME], counting="sensitive")
    ),
    "dropout": lambda w, m: edited(m, "models.network", "import torch\n", "import torch\n\ntorch.manual_seed(1)\n"),
    "alignment loss": lambda w, m: edited(m, "models.losses", "def mmd2(", "def mmd2(*, _more=0, "),
    "fold drawing": lambda w, m: edited(m, "experiments.inputs", "shuffle=True", "shuffle=bool(1)"),
    "logistic regression": lambda w, m: edited(m, "baselines.classical", "max_iter=", "tol=1e-9, max_iter="),
    "search": lambda w, m: edited(m, "baselines", "hold_out(len(y), 0.25, seed, y)", "hold_out(len(y), 0.2, seed, y)"),
    "attribution": lambda w, m: edited(m, "interpretation.explained", "set_num_threads(1)", "set_num_threads(2)"),
    "version of a library": lambda w, m: m.setattr(cache, "version", lambda name: "0.0+cpu"),
    "seed": lambda w, m: w.update(seed=1),
    "learning rate": lambda w, m: _training(m, learning_rate=0.5),
    "epochs of fine-tuning": lambda w, m: _training(m, epochs_tune=7),
    "name of the profile": _renamed,
    "jobs": lambda w, m: w.update(jobs=7),
    "comments": lambda w, m: _everywhere(m, r"(?m)^(?=def |class |@)", "# new\n"),
    "docstrings": lambda w, m: _everywhere(m, r'(?m)^( *""")(?=[A-Z])', r"\1New. "),
    "plots": lambda w, m: edited(m, "reporting.plots", "import ", "X = 1\nimport "),
    "device": lambda w, m: m.setattr(runtime, "cuda", lambda: True),
    "precision": lambda w, m: m.setenv("ATSDP_BF16", "1"),
    "what MKL is held to": lambda w, m: m.setenv("MKL_CBWR", "AVX2"),
    "what oneDNN is held to": lambda w, m: m.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE"),
}  # fmt: skip


def test_the_table_has_every_input():
    assert list(TABLE.index) == list(INPUTS) and set(np.unique(TABLE)) == {"changes", "same"}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.slow
def test_an_input_changes_the_keys_that_it_must_and_no_other(keys, monkeypatch, name):
    if not BEFORE:
        BEFORE.update(keys(world()))
    before, w = BEFORE, world()
    INPUTS[name](w, monkeypatch)
    for memo in CODE:
        memo.cache_clear()
    after = keys(w)
    found = {kind: "same" if after[kind] == before[kind] else "changes" for kind in before}
    assert found == TABLE.loc[name].to_dict()


def test_the_same_inputs_give_the_same_keys(keys):
    assert keys(world()) == keys(world())


def test_the_counting_of_a_twin_is_in_the_keys_of_tasks_on_it(monkeypatch):
    """Under P a twin stands under its own name; what counts its labels is its own entry, not a stand-in's."""
    name = "DATA4-sim"
    task = Task(name, "P", PLUS, "smoke", (("kind", "twin"), ("recipe", "plain"), ("members", 1)))
    before = key(task)
    other = {"sensitive": "sensitive_paper", "sensitive_paper": "sensitive"}[config.DATASETS[name].counting]
    monkeypatch.setitem(config.DATASETS, name, dataclasses.replace(config.DATASETS[name], counting=other))
    assert key(task) != before


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(KeyError, match="'train.gone'"):
        closure.closure(["train.gone"])


def test_a_closure_follows_aliases_and_inner_imports_but_not_locals(monkeypatch):
    texts = {
        "": "",
        "a": "from atsdp_utils import b as other\nfrom atsdp_utils.c import two\n\n"
        "def f(x):\n    from atsdp_utils.d import three as t\n"
        "    unused = 1\n    return other.one(x) + two + t\n\ndef unused(): pass\n",
        "b": '"""Text."""\nprint("on import")\n\ndef one(x):\n    "Doc."\n    return x\n\ndef more(): pass\n',
        "c": "from atsdp_utils.d import four as two\n",
        "d": "three = 3\nfour = 4\n",
    }
    monkeypatch.setattr(closure, "source", texts.get)
    closure._module.cache_clear(), closure._reached.cache_clear()
    found = closure.closure(["a.f"])
    assert {n for n in found if n[1] and n[0] != "c"} == {("a", "f"), ("b", "one"), ("d", "three"), ("d", "four")}
    assert "Doc" not in found["b", "one"] and found["b", ""] == "print('on import')"
    closure._module.cache_clear(), closure._reached.cache_clear()
