"""Time and memory of the stages on this machine: ``make bench``.

Every section runs in a process of its own with empty caches, so its peak of memory is its own. ``seconds`` are wall
time, ``cpu_seconds`` the time of the process, which another program's load hardly changes. Rows go to
``figures/bench.csv``; a page of the book shows them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.experiments import grid, inputs, protocols
from atsdp_utils.experiments.task import ATSDP, NO_TRANSFER, Task, build
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.foundation.config import Training
from tests.bench import plan

Row = tuple[str, str, str, object, str]
#: Cost of a pair of epochs (autoencoder and predictor, 803 lines x 6,163 genes) of the prior art's public code on two
#: cores, as it was given to us; it is not measured here.
PRIOR_PAIR_SECONDS, PRIOR_EPOCHS = 0.7, 500
#: What the Makefile holds torch by, but for products of bfloat16, which are slow under it; their section goes without.
HELD = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
PAGE, PICTURE = paths.BOOK / "_bench.md", paths.BOOK / "_static" / "bench.svg"


@dataclass(frozen=True)
class Size:
    """How much is timed: all of it, or seconds for a test.

    Trainings are compared under `profiles`; what is timed under one profile only takes the first.
    """

    profiles: tuple[str, ...]
    genes: tuple[int, ...]
    cells: tuple[int, ...]
    seeds: tuple[int, ...]
    reference_epochs: int
    dataset: str
    models: tuple[str, ...]
    own: tuple[int, ...]

    @property
    def profile(self) -> str:
        """The first of the profiles."""
        return self.profiles[0]


_BASELINES = (
    "SA", "ResNet18", "CNN", "Transformer", "GCN", "GAT", "DeepDR", "DrugCell", "Logistic", "PCA+SVM", "RandomForest",
    "Boosting", "kNN",
)  # fmt: skip
FULL = Size(
    ("quick", "paper"), (1000, 2000, 4000, 6163), (1000, 10_000, 100_000), (1, 2, 4), PRIOR_EPOCHS,
    plan.TIMED, (ATSDP, NO_TRANSFER, *_BASELINES), (1500, 100_000),
)  # fmt: skip
SHORT = Size(("smoke",), (150, 200), (300, 2500), (1, 2), 4, "SCC47-afatinib", (ATSDP, "Logistic", "kNN"), (60,))


class Clock:
    """Wall and process seconds of a block."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]

    def rows(self, section: str, case: str, what: str = "", per: int = 1) -> Iterator[Row]:
        """Both times of the block, divided by `per`."""
        yield section, case, f"{what}seconds", self.seconds / per, "s"
        yield section, case, f"{what}cpu_seconds", self.cpu / per, "s"


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


# --- sections ---------------------------------------------------------------------------------------------------------


def processor() -> str:
    """Name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")] \
        if info.exists() else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()


def peak(dtype: str = "float32", n: int = 1024) -> float:
    """Multiply-adds of the best of several products of square matrices, in GFLOP a second of this process."""
    import torch

    a = torch.randn(n, n).to(getattr(torch, dtype))
    best = np.inf
    for _ in range(6):
        with Clock() as clock:
            for _ in range(4):
                a @ a
        best = min(best, clock.cpu / 4)
    return 2 * n**3 / best / 1e9


def machine(size: Size) -> Iterator[Row]:
    """What the times depend on."""
    import torch

    yield "machine", "processor", "name", processor(), ""
    yield "machine", "processor", "cores", os.cpu_count(), ""
    yield "machine", "processor", "load before", round(os.getloadavg()[0], 1), ""
    yield "machine", "torch", "version", torch.__version__, ""
    yield "machine", "float32", "matrix-multiply peak", peak(), "GFLOP/s"
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none here: the CUDA path was not timed"
    yield "machine", "accelerator", "name", name, ""


def labelled_lines(genes: int, seed: int = 0) -> preprocess.Source:
    """The 803 lines with a label for cisplatin on their most variable genes, split as everywhere."""
    bulk = gdsc.load_bulk("CISPLATIN")
    keep = bulk.y >= 0
    bulk = replace(bulk, X=bulk.X[keep], lines=bulk.lines[keep], y=bulk.y[keep])
    return gdsc.bulk_source(bulk, gdsc.shared_genes(bulk, bulk.genes, genes), seed)


def autoencoder_flops(genes: int, arch: config.Architecture, rows: int) -> float:
    """Floating-point operations of one epoch over `rows`: three products a layer, two in the first one."""
    widths = (genes, *arch.encoder, arch.bottleneck, *arch.encoder[::-1], genes)
    layers = [2.0 * a * b * rows for a, b in zip(widths[:-1], widths[1:], strict=True)]
    return 3 * sum(layers) - layers[0]


def _bulk_stage(source: preprocess.Source, cfg: Training) -> tuple[dict[str, Clock], dict[str, int], np.ndarray]:
    """Train autoencoder and predictor, nothing stored: times, epochs, P(sensitive) of the held-out lines."""
    from atsdp_utils.models import stages

    arch = config.TABLE2["DATA1"]
    with _nothing_stored():
        with Clock() as first:
            stages.pretrain_autoencoder(source.X[source.train], arch, cfg, 0)
        with Clock() as second:  # which finds the autoencoder
            found = stages.pretrain(source, arch, cfg, 0)
    p = stages.predict(found.net, source.X[source.test_rows], "source")
    epochs = {"autoencoder": len(found.dae_history), "predictor": len(found.predictor_history)}
    return {"autoencoder": first, "predictor": second}, epochs, p


@contextmanager
def _nothing_stored() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, patch.object(paths, "PRETRAINED", Path(folder)):
        yield


def _auc(source: preprocess.Source, p: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(source.y[source.test_rows], p))


def _timed_bulk(source: preprocess.Source, case: str, cfg: Training) -> Iterator[Row]:
    """Times, epochs and held-out AUC of one bulk stage."""
    clocks, epochs, p = _bulk_stage(source, cfg)
    for stage, clock in clocks.items():
        yield "bulk", case, f"{stage} epochs", epochs[stage], ""
        yield from clock.rows("bulk", case, f"{stage} ")
        yield "bulk", case, f"{stage} cpu_seconds per epoch", clock.cpu / epochs[stage], "s"
    yield "bulk", case, "seconds", sum(c.seconds for c in clocks.values()), "s"
    yield "bulk", case, "cpu_seconds", sum(c.cpu for c in clocks.values()), "s"
    yield "bulk", case, "held-out AUC", _auc(source, p), ""


def bulk(size: Size) -> Iterator[Row]:
    """The bulk stage with Table 2's sizes of DATA1, stopped early: time, held-out AUC, share of the peak."""
    source, n = labelled_lines(size.genes[-1]), size.reference_epochs
    yield "bulk, data", "lines and genes", "lines", len(source.y), ""
    yield "bulk, data", "lines and genes", "genes", source.X.shape[1], ""
    paper = replace(config.profile("paper").training, epochs_dae=n, epochs_predictor=n)
    rows = list(_timed_bulk(source, f"{size.profile} profile", config.profile(size.profile).training))
    rows += _timed_bulk(source, "paper profile", paper)
    yield from rows
    per_epoch = next(v for _, case, m, v, _ in rows if m == "autoencoder cpu_seconds per epoch")
    flops = autoencoder_flops(source.X.shape[1], config.TABLE2["DATA1"], round(0.9 * source.train.sum()))
    rate = flops / per_epoch / 1e9
    yield "main loop", "autoencoder epoch", "rate", rate, "GFLOP/s"
    yield "main loop", "autoencoder epoch", "share of the matrix-multiply peak", rate / peak(), ""


def reference(size: Size) -> Iterator[Row]:
    """The same without early stopping, for the epochs of the prior art; the best weights on validation are kept."""
    n = size.reference_epochs
    cfg = replace(config.profile(size.profile).training, epochs_dae=n, epochs_predictor=n, patience=n + 1)
    yield from _timed_bulk(labelled_lines(size.genes[-1]), f"{n} epochs, never stopped", cfg)


def precision(size: Size) -> Iterator[Row]:
    """Float32 against bfloat16 products (``ATSDP_BF16=1``) in the bulk stage, beside the effect of another seed."""
    source, cfg = labelled_lines(size.genes[-1]), config.profile(size.profile).training
    found = {}
    for case, flag in (("float32", "0"), ("bfloat16", "1")):
        with _environment(ATSDP_BF16=flag):
            clocks, epochs, found[case] = _bulk_stage(source, cfg)
        per_epoch = sum(c.cpu / epochs[stage] for stage, c in clocks.items())
        yield "precision", case, "cpu_seconds per pair of epochs", per_epoch, "s"
        yield "precision", case, "held-out AUC", _auc(source, found[case]), ""
        yield "precision", case, "matrix-multiply peak", peak(case), "GFLOP/s"
    a, b = found["float32"], found["bfloat16"]
    yield "precision", "difference", "mean |difference of P|", float(np.abs(a - b).mean()), ""
    yield "precision", "difference", "labels changed", float(((a >= 0.5) != (b >= 0.5)).mean()), ""
    yield "precision", "difference", "rank correlation", float(pd.Series(a).corr(pd.Series(b), "spearman")), ""


#: Passes of the section of that name: of a bulk autoencoder, and of transfer.
PASSES = {"autoencoder": (0, 10, 25, 50, 100, 200), "transfer": (1, 5, 10, 15, 20, 40, 100)}
#: Its splits of lines, which no table of held-out lines has, and one in so many drugs of the evidence.
SPLITS, EVERY = (100, 101, 102), 4


def passes(size: Size) -> Iterator[Row]:
    """What more passes buy: held-out AUC by those of the autoencoder, and the loss of transfer, which sees no label."""
    from atsdp_utils.experiments import pseudo
    from atsdp_utils.models import loop, stages
    from atsdp_utils.models.network import ATSDPNet

    arch, most = config.TABLE2["DATA1"], size.reference_epochs
    drugs = pseudo.drugs()[1::EVERY][: 1 if size is SHORT else None]
    cfg = replace(config.profile(size.profile).training, balance="smote")
    for genes_, n in product((size.genes[0], size.genes[-1]), sorted({min(n, most) for n in PASSES["autoencoder"]})):
        found: dict[str, list[float]] = {"held-out AUC": [], "held-out error": [], "cpu_seconds": []}
        for seed in SPLITS[: 1 if size is SHORT else None]:
            bulk = gdsc.load_bulk()
            lines = gdsc.bulk_source(bulk, gdsc.shared_genes(bulk, bulk.genes, genes_), seed)
            with _nothing_stored(), Clock() as clock:
                fixed = replace(cfg, epochs_dae=n, patience=n + 1)
                dae, history = stages.pretrain_autoencoder(lines.X[lines.train], arch, fixed, seed)
            found["cpu_seconds"].append(clock.cpu)
            found["held-out error"] += [min(h["validation"] for h in history)] if history else []
            for drug in drugs:
                lines = gdsc.bulk_source(gdsc.load_bulk(drug), lines.genes, seed)
                torch_seed(seed)
                net, rows = ATSDPNet(len(lines.genes), arch, copy.deepcopy(dae)).to(runtime.device()), lines.fit_rows
                loop.fit(net, stages.Classification.of(lines.X[rows], lines.y[rows], cfg, seed))
                found["held-out AUC"].append(_auc(lines, stages.predict(net, lines.X[lines.test_rows], "source")))
        for measure, values in found.items():
            if values:
                unit = "s" if measure == "cpu_seconds" else ""
                yield "passes, autoencoder", f"{genes_} genes, {n} passes", measure, float(np.mean(values)), unit
    for name in ("A375-PLX4720", "SCC47-afatinib"):
        datasets.prepare(name)
        task, most = Task(name, "U", ATSDP, size.profile), min(size.reference_epochs, PASSES["transfer"][-1])
        lines = inputs.source_of(name, size.profile, 0)
        X = preprocess.standardised(inputs.cells_of(name, size.profile), lines)
        with _nothing_stored():
            net = stages.pretrain(lines, task.architecture, task.training, 0).net
        history = stages.transfer(net, lines, X, replace(task.training, epochs_transfer=most), 0)[1]
        for n in (n for n in PASSES["transfer"] if n <= most):
            yield "passes, transfer", f"{name}, pass {n}", "loss", history[n - 1]["loss"], ""
            yield "passes, transfer", f"{name}, pass {n}", "mmd2", history[n - 1]["mmd2"], ""


#: Methods that are timed side by side, by the name of their section; cases of the rows are their names.
BESIDE = {"ours-quick": "ATSDP-NET, quick", "ours-paper": "ATSDP-NET, paper", "scdeal": "scDEAL's settings, plain",
          "logistic": "logistic regression"}  # fmt: skip
#: Held-out AUCs to which processor time is told.
LEVELS = tuple(round(0.60 + 0.01 * i, 2) for i in range(31))


class Curve:
    """Held-out AUC after each pass, with the processor seconds until then but for those of this question."""

    def __init__(self, lines: preprocess.Source) -> None:
        self.lines, self.points, self._aside, self._start = lines, [], 0.0, time.process_time()

    def __call__(self, p: np.ndarray) -> None:
        self.points.append((self.now(), _auc(self.lines, p)))
        self._aside = time.process_time() - self._start - self.points[-1][0]

    def now(self) -> float:
        return time.process_time() - self._start - self._aside

    def rows(self, case: str) -> Iterator[Row]:
        for level in LEVELS:
            if reached := [seconds for seconds, auc in self.points if auc >= level]:
                yield "beside the peers", case, f"cpu_seconds to AUC {level:.2f}", min(reached), "s"


def beside(size: Size, which: str) -> Iterator[Row]:
    """Bulk stage and transfer of one method on the lines of cisplatin: time to a held-out AUC, and cost of a pass."""
    case = BESIDE[which]
    genes_ = min(size.genes[-1], config.profile(size.profile).max_genes if which == "ours-quick" else size.genes[-1])
    lines = labelled_lines(genes_)
    method = {"scdeal": _plain, "logistic": _logistic}.get(which, _ours)
    curve = Curve(lines)
    yield "beside the peers", case, "genes", genes_, ""
    yield from (("beside the peers", case, *row) for row in method(size, which, lines, curve))
    yield "beside the peers", case, "held-out AUC", curve.points[-1][1], ""
    yield from curve.rows(case)


def _ours(size: Size, which: str, lines: preprocess.Source, curve: Curve) -> Iterator[tuple]:
    from atsdp_utils.models import loop, stages
    from atsdp_utils.models.network import ATSDPNet

    profile = size.profiles[-1] if which == "ours-paper" else size.profile
    cfg, arch = replace(config.profile(profile).training, balance="smote", theta=0.0), config.TABLE2["DATA1"]
    x_test, rows = lines.X[lines.test_rows], lines.fit_rows

    class Watched(stages.Classification):
        def watch(self, net: ATSDPNet) -> dict:
            curve(stages.predict(net, x_test, "source"))
            return {}

    with _nothing_stored():
        dae, history = stages.pretrain_autoencoder(lines.X[lines.train], arch, cfg, 0)
    spent = curve.now()
    torch_seed(0)
    net = ATSDPNet(len(lines.genes), arch, dae).to(runtime.device())
    more = loop.fit(net, Watched.of(lines.X[rows], lines.y[rows], cfg, 0))
    yield from _stages(len(history), spent, len(more), curve.now())
    curve(stages.predict(net, x_test, "source"))
    cells_ = _random_cells(lines)
    with Clock() as clock:
        stages.transfer(net, lines, cells_, cfg, 0)
    yield "transfer cpu_seconds", clock.cpu, "s"


def _stages(autoencoder: int, spent: float, predictor: int, total: float) -> Iterator[tuple]:
    yield "autoencoder passes", autoencoder, ""
    yield "autoencoder cpu_seconds", spent, "s"
    yield "predictor passes", predictor, ""
    yield "cpu_seconds", total, "s"


def _random_cells(lines: preprocess.Source, n: int = 500) -> np.ndarray:
    """Values of no meaning: a pass takes as long on them."""
    return np.random.default_rng(0).standard_normal((n, lines.X.shape[1]), dtype=np.float32)


def _plain(size: Size, which: str, lines: preprocess.Source, curve: Curve) -> Iterator[tuple]:
    import torch

    from tests.bench import plain

    n, x_test = size.reference_epochs, torch.as_tensor(lines.X[lines.test_rows])
    torch_seed(0)
    rows, held = (
        torch.as_tensor(lines.X[lines.train][part]) for part in preprocess.hold_out(lines.train.sum(), 0.1, 0)
    )
    coder = plain.autoencoder(rows, held, n)[0]
    spent, fit = curve.now(), lines.fit_rows
    keep, out = (fit[part] for part in preprocess.hold_out(len(fit), 0.15, 0, lines.y[fit]))
    x, y, _ = preprocess.balance(lines.X[keep], lines.y[keep], "smote", 0)
    pairs = [
        (torch.as_tensor(a), torch.as_tensor(b, dtype=torch.long)) for a, b in ((x, y), (lines.X[out], lines.y[out]))
    ]

    def ask(net: torch.nn.Module) -> None:
        with torch.no_grad():
            curve(torch.softmax(net.eval()(x_test), 1)[:, 1].double().numpy())

    net = plain.predictor(coder, *pairs, n, ask)
    yield from _stages(n, spent, n, curve.now())
    ask(net)
    cells_, few = torch.as_tensor(_random_cells(lines)), max(1, n // 50)
    with Clock() as clock:
        plain.transfer(net.train(), pairs[0], cells_, few)
    yield f"transfer cpu_seconds, {n} passes from {few}", clock.cpu * n / few, "s"


def _logistic(size: Size, which: str, lines: preprocess.Source, curve: Curve) -> Iterator[tuple]:
    from atsdp_utils.models.plus import logistic

    rows = lines.fit_rows
    found = logistic().fit(lines.X[rows], lines.y[rows])
    yield "cpu_seconds", curve.now(), "s"
    curve(found.predict_proba(lines.X[lines.test_rows])[:, 1])


def torch_seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)


def models(size: Size) -> Iterator[Row]:
    """One training of each model on nine tenths of a set (protocol S), the bulk stage apart; and one transfer."""
    datasets.prepare(size.dataset)
    for profile in size.profiles:
        yield from _models(size, profile, f"models, {profile} profile")


def _models(size: Size, profile: str, section: str) -> Iterator[Row]:
    cells = inputs.cells_of(size.dataset, profile)
    source = inputs.source_of(size.dataset, profile, 0)
    X = preprocess.columns(cells.X, cells.genes, source.genes)
    rows, test = cells.labelled, cells.labelled[::10]
    yield section, "data", "cells", len(X), ""
    yield section, "data", "genes", X.shape[1], ""
    for model in size.models:
        task = Task(size.dataset, "S", model, profile)
        if model == ATSDP:
            build(task).fit_bulk(source)
        with Clock() as clock:
            _, fitted = protocols.fit_fold(task, X, cells.y, np.setdiff1d(rows, test), test, source)
        yield from _training(section, f"{model} (S)", clock, getattr(fitted, "history_", None))
    task = Task(size.dataset, "U", ATSDP, profile)
    with Clock() as clock:
        fitted = build(task).fit_transfer(preprocess.Standardizer().fit_transform(X), source)
    yield from _training(section, f"{ATSDP} (U)", clock, fitted.history_)


def _training(section: str, case: str, clock: Clock, history: list | None) -> Iterator[Row]:
    yield from clock.rows(section, case)
    if history:
        yield section, case, "epochs", len(history), ""
        yield section, case, "cpu_seconds per epoch", clock.cpu / len(history), "s"


def genes(size: Size) -> Iterator[Row]:
    """Cost of an epoch of the autoencoder with the number of genes."""
    from atsdp_utils.models import stages

    cfg = replace(Training(), epochs_dae=3)
    for n in size.genes:
        X = labelled_lines(n).X
        with _nothing_stored(), Clock() as clock:
            stages.pretrain_autoencoder(X, config.TABLE2["DATA1"], cfg, 0)
        yield from clock.rows("genes", f"{n}", "autoencoder epoch, ", per=cfg.epochs_dae)


def cells(size: Size, n: int) -> Iterator[Row]:
    """Cost of stages with the number of cells, on random values; clusters up to 10,000 cells."""
    from atsdp_utils.models import stages
    from atsdp_utils.models.network import ATSDPNet

    source, case = labelled_lines(size.genes[0]), f"{n}"
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, source.X.shape[1]), dtype=np.float32)
    y = (X[:, 0] > 0).astype(np.int8)
    net = ATSDPNet(X.shape[1], config.TABLE2["DATA1"]).to(runtime.device())
    cfg = replace(Training(), epochs_transfer=2, epochs_tune=1, theta=0.0)
    if n <= 10_000:
        with Clock() as clock:
            preprocess.louvain(X, 0)
        yield from clock.rows("cells", case, "clusters, ")
    for stage, epochs, work in (
        ("transfer epoch", cfg.epochs_transfer, lambda: stages.transfer(net, source, X, cfg, 0)),
        ("fine-tuning epoch", cfg.epochs_tune, lambda: stages.fine_tune(net, X, y, cfg, 0, source=source)),
        ("prediction", 1, lambda: stages.predict(net, X)),
    ):
        with Clock() as clock:
            work()
        yield from clock.rows("cells", case, f"{stage}, ", per=epochs)


def mmd(size: Size) -> Iterator[Row]:
    """A pass of transfer with the gradient of the MMD in closed form, and by autograd of the same kernels."""
    from atsdp_utils.models import discrepancy, losses, stages
    from atsdp_utils.models.network import ATSDPNet
    from tests.bench import plain

    ways = {"closed form": losses.mmd2, "autograd": lambda x, y, scale: plain.mmd2_by_autograd(x, y)}
    cfg = replace(Training(), epochs_transfer=2 if size is SHORT else 10, epochs_cells=0, theta=0.0)
    for n in (size.genes[0], size.genes[-1]):
        lines, best = labelled_lines(n), dict.fromkeys(ways, float("inf"))
        X, net = _random_cells(lines, 800), ATSDPNet(n, config.TABLE2["DATA1"]).to(runtime.device())
        for _, (way, function) in product(range(1 if size is SHORT else 3), ways.items()):
            with patch.object(discrepancy, "mmd2", function), Clock() as clock:
                stages.transfer(net, lines, X, cfg, 0)
            best[way] = min(best[way], clock.cpu / cfg.epochs_transfer)
        for way, seconds in best.items():
            yield "gradient of the MMD", f"{n} genes, {way}", "transfer epoch, cpu_seconds", seconds, "s"


def workers(size: Size, jobs: int, seeds: int) -> Iterator[Row]:
    """Wall time of a grid of bulk stages and transfers, one a seed; caches are empty but for the prepared cells."""
    datasets.prepare("SCC47-afatinib")
    tasks = [Task("SCC47-afatinib", "U", ATSDP, size.profile, seed=s) for s in range(seeds)]
    with Clock() as clock, open(os.devnull, "w") as nowhere, _environment(ATSDP_LOG=nowhere.name):
        grid.run(tasks, jobs=jobs)
    yield "workers", f"JOBS={jobs}, {seeds} seeds", "seconds", clock.seconds, "s"


def own_file(path: Path, cells: int, genes: int, detected: int, seed: int = 0) -> None:
    """Write sparse counts as a person brings them: the genes of the bulk and others, `detected` of them in a cell."""
    import anndata
    from scipy import sparse

    rng, known = np.random.default_rng(seed), gdsc.load_bulk().genes[:genes]
    indices = np.empty((cells, detected), np.int32)
    for i in range(cells):  # one gene from each of as many stretches: sorted, and none twice
        indices[i] = np.linspace(0, genes, detected, endpoint=False) + rng.random(detected) * (genes / detected)
    values = rng.geometric(0.4, cells * detected).astype(np.float32)
    X = sparse.csr_matrix((values, indices.ravel(), np.arange(cells + 1, dtype=np.int64) * detected), (cells, genes))
    names = [*known, *(f"OTHER{i}" for i in range(genes - len(known)))]
    anndata.AnnData(X, None, pd.DataFrame(index=rng.permutation(names))).write_h5ad(path)


def own_cells(size: Size, cells: int) -> Iterator[Row]:
    """A person's file from reading to report: by regressions, by networks, by those with their bulk stage trained."""
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from atsdp_utils.foundation import config; from atsdp_utils.own_cells import predict;"
        "s = replace(predict.SETTINGS, jobs=2, model=sys.argv[3], training=config.profile(sys.argv[2]).training);"
        "predict.predict(Path(sys.argv[1]), 'cisplatin', settings=s, say=lambda _: None)"
    )
    genes, scale = 20_000 if size is FULL else size.genes[-1], 1 if sys.platform == "darwin" else 1024
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.h5ad"
        own_file(path, cells, genes, genes // 14)
        for case in ("regression", "network, with training", "network, trained before"):
            before = _of_children()
            asked = [str(path), size.profile, case.split(",")[0]]
            with Clock() as clock:
                subprocess.run([sys.executable, "-c", code, *asked], cwd=paths.ROOT, check=True)
            clock.cpu = _of_children() - before
            yield from clock.rows("own cells", f"{cells} x {genes}, {case}")
            used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale / 2**20
            yield "own cells", f"{cells} x {genes}, {case}", "peak of the largest process so far", used, "MiB"


def _of_children() -> float:
    """Processor seconds of finished processes that this one started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _warm_up() -> None:
    """Import and run once what sections time, so that no section pays for the first use."""
    from atsdp_utils.models import stages
    from atsdp_utils.models.network import ATSDPNet

    source, cfg = labelled_lines(100), replace(Training(), epochs_dae=1, epochs_predictor=1, epochs_transfer=1)
    _bulk_stage(source, cfg)
    net = ATSDPNet(source.X.shape[1], config.TABLE2["DATA1"]).to(runtime.device())
    stages.transfer(net, source, source.X[:40], cfg, 0)


def gpu(size: Size) -> Iterator[Row]:
    """ATSDP-NET in Table 3 on a GPU, where there is one."""
    import torch

    from atsdp_utils.experiments import tables

    profile = size.profiles[-1]
    section = f"Table 3 on a GPU, {profile} profile"
    if not torch.cuda.is_available():
        yield section, "all data sets", "skipped", "no CUDA device here", ""
        return
    tasks = [t for t in tables.table3("embedded", profile) if t.model == ATSDP and t.protocol in "SU" and not t.setting]
    for name in dict.fromkeys(t.dataset for t in tasks):
        own = [t for t in tasks if t.dataset == name]
        with Clock() as clock:
            grid.run(own)
        case = f"{name} on {torch.cuda.get_device_name(0)}"
        yield section, case, "networks", sum(max(1, t.folds) for t in own), ""
        yield section, case, "seconds", clock.seconds, "s"
    yield section, torch.cuda.get_device_name(0), "peak", torch.cuda.max_memory_allocated() / 2**20, "MiB"


def quick_stages() -> Iterator[Row]:
    """What the cached results of an earlier ``make reproduce`` took, by protocol and model, if there are any."""
    found = plan.finished_timings()
    for (profile, protocol, model), group in found.groupby(["profile", "protocol", "model"]):
        case = f"{model} ({protocol}, {profile})"
        yield "cached results", case, "tasks", len(group), ""
        yield "cached results", case, "seconds per training, median", float(group.seconds.median()), "s"


# --- the command ------------------------------------------------------------------------------------------------------


def sections(size: Size, jobs: int) -> dict[str, Callable[[], Iterator[Row]]]:
    """Every section by name."""
    every = (machine, bulk, reference, passes, precision, models, genes, mmd, gpu)
    found = {f.__name__: (lambda f=f: f(size)) for f in every}
    found |= {f"beside-{which}": (lambda w=which: beside(size, w)) for which in BESIDE}
    found |= {f"cells-{n}": (lambda n=n: cells(size, n)) for n in size.cells}
    found |= {f"own-{n}": (lambda n=n: own_cells(size, n)) for n in size.own}
    found |= {f"seeds-{n}": (lambda n=n: workers(size, 1, n)) for n in size.seeds}
    most = size.seeds[-1]
    return found | {f"jobs-{j}": (lambda j=j: workers(size, j, most)) for j in (2, 4) if j <= max(jobs, 2)}


def _inside(name: str, size: Size, jobs: int) -> None:
    """Body of a section's process: print its rows as JSON."""
    runtime.one_thread()
    if not name.startswith(("machine", "seeds", "jobs", "own")):
        _warm_up()
    rows = list(sections(size, jobs)[name]())
    if name.startswith(("bulk", "models", "cells", "beside")):
        scale = 1 if sys.platform == "darwin" else 1024
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20
        rows.append(("memory", name.replace("-", ", ", 1), "peak", used, "MiB"))
    print(json.dumps(rows))


def measured(size: Size, jobs: int, names: Iterable[str]) -> Iterator[pd.DataFrame]:
    """Rows of one section after another, each run in a process of its own; one that fails is a row that says so."""
    short = ["--short"] if size is SHORT else []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="atsdp-bench-") as scratch:
            command = [sys.executable, "-m", "tests.bench.bench", str(jobs), "--section", name, *short]
            device = "auto" if name == "gpu" else "cpu"
            surroundings = {"ATSDP_DEVICE": device, **os.environ, "ATSDP_BUILD": scratch, "ATSDP_FIGURES": scratch}
            for variable in HELD if name == "precision" else ():
                surroundings.pop(variable, None)
            with Clock() as clock:
                done = subprocess.run(command, env=surroundings, cwd=paths.ROOT, capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            rows = [(name, "section", "failed", (done.stderr.strip().splitlines() or ["killed"])[-1][:100], "")]
        else:
            rows = json.loads(done.stdout.splitlines()[-1])
        print(f"  {name:<20} {clock.seconds:6.0f} s", flush=True)
        yield as_table(rows)


def as_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows with their values as they are stored."""
    table = pd.DataFrame(rows, columns=plan.COLUMNS)
    return table.assign(value=table.value.map(lambda v: f"{v:.6g}" if isinstance(v, float) else str(v)))


def replaced(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Rows of both; of those that measure the same, the new ones."""
    return pd.concat([old, new]).drop_duplicates(["section", "case", "measure"], keep="last", ignore_index=True)


def store(table: pd.DataFrame, path: Path) -> None:
    """Write the rows where a plan and the page read them."""
    cache.write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))


def _shown(value: object) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:,.0f}" if number == round(number) or abs(number) >= 100 else f"{number:#.3g}"


def _value(table: pd.DataFrame, section: str, case: str, measure: str) -> float:
    found = table[(table.section == section) & table.case.str.startswith(case) & (table.measure == measure)]
    return float(found.value.iloc[0]) if len(found) else float("nan")


def target(table: pd.DataFrame) -> str:
    """The sentence on the target of the bulk stage, computed from the rows."""
    limit = PRIOR_EPOCHS * PRIOR_PAIR_SECONDS / 10
    full = _value(table, "bulk", f"{PRIOR_EPOCHS} epochs", "held-out AUC")
    lines = []
    if np.isnan(full):
        return f"The {PRIOR_EPOCHS} reference epochs were not run, so whether the target is met is not known."
    for case in ("quick profile", "paper profile", f"{PRIOR_EPOCHS} epochs"):
        auc, cpu = _value(table, "bulk", case, "held-out AUC"), _value(table, "bulk", case, "cpu_seconds")
        reached = "reaches" if auc >= full - 0.005 else "does not reach"
        held = "met" if auc >= full - 0.005 and cpu <= limit else "not met"
        ratio = PRIOR_EPOCHS * PRIOR_PAIR_SECONDS / cpu
        lines.append(
            f"- {case}: held-out AUC {auc:.3f} after {cpu:.1f} s of processor time, {ratio:.0f} times faster than the "
            f"stated cost; it {reached} the {full:.3f} of {PRIOR_EPOCHS} epochs within 0.005. Target **{held}**."
        )
    return "\n".join(lines)


def level(table: pd.DataFrame) -> float:
    """The highest held-out AUC that all methods of "beside the peers" reach; NaN without that section."""
    rows = table[table.measure.str.startswith("cpu_seconds to AUC")]
    reached = rows.groupby("measure").case.nunique()
    return max((float(m[-4:]) for m in reached.index[reached == len(BESIDE)]), default=float("nan"))


#: What grows with what, for :func:`growth`: sections and measures of the rows, in words.
GROWTH = (
    ("cells", "transfer epoch, cpu_seconds", "a pass of transfer with cells"),
    ("cells", "fine-tuning epoch, cpu_seconds", "a pass of fine-tuning with cells"),
    ("cells", "prediction, cpu_seconds", "prediction with cells"),
    ("genes", "autoencoder epoch, cpu_seconds", "a pass of the autoencoder with genes"),
    ("workers", "seconds", "bulk stages and transfers with seeds"),
)


def growth(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Sizes, seconds, and the slope of a line through their logarithms, by what grows."""
    found = {}
    for section, measure, words in GROWTH:
        rows = table[(table.section == section) & (table.measure == measure) & ~table.case.str.contains("JOBS=[^1]")]
        size = rows.case.str.extract(r"(\d+)(?: seeds)?$")[0].astype(float)
        if len(rows) > 1:
            size, seconds = np.array(sorted(zip(size, rows.value.astype(float), strict=True))).T
            found[words] = size, seconds, float(np.polyfit(np.log(size), np.log(seconds), 1)[0])
    return found


def speed(table: pd.DataFrame) -> str:
    """What the section "beside the peers" says, computed from the rows, and the picture of it."""
    of, at = "beside the peers", level(table)
    if np.isnan(at):
        return ""
    to = f"cpu_seconds to AUC {at:.2f}"
    reached = [
        f"{case} {_value(table, of, case, to):.3g} s and {_value(table, 'memory', f'beside, {key}', 'peak'):.0f} MiB"
        for key, case in BESIDE.items()
    ]
    ours, peer = BESIDE["ours-paper"], BESIDE["scdeal"]
    whole = _value(table, of, peer, to) / _value(table, of, ours, to)
    quick = _value(table, of, peer, to) / _value(table, of, BESIDE["ours-quick"], to)
    n, cost = (
        [_value(table, of, case, m) for case in (peer, ours)] for m in ("autoencoder passes", "autoencoder cpu_seconds")
    )
    a_pass = cost[0] / n[0] / (cost[1] / n[1])
    share = _value(table, "main loop", "autoencoder epoch", "share of the matrix-multiply peak")
    most = a_pass / share
    powers = "; ".join(f"{words} {slope:.2f}" for words, (_, _, slope) in growth(table).items())
    genes_ = _value(table, of, BESIDE["ours-quick"], "genes")
    return (
        f"**Beside the peers.** All start from the same lines of cisplatin. To a held-out AUC of {at:.2f}, the highest "
        "that all of them reach, the bulk stage takes, in processor time and peak memory of its process: "
        f"{'; '.join(reached)}. Held-out lines only tell when that was reached; each method ends by its own rule. "
        "*scDEAL's settings, plain* is our own short program with the sizes and settings that its README suggests, "
        f"{n[0]:.0f} passes a stage and nothing that stops them; it is not that study's code.\n\n"
        f"It takes {whole:.3g} times as long as the paper profile on the same genes, and {quick:.3g} times as long as "
        f"the quick profile with its {genes_:,.0f} genes. On the same genes the autoencoder makes {n[0]:.0f} passes "
        f"there and {n[1]:.0f} here, and a pass takes {a_pass:.2f} times as long there: the first factor is early "
        f"stopping, the second code. The loop runs at {share:.0%} of what a product of large matrices reaches, so at "
        f"equal work code that multiplies matrices as torch does here can be at most {1 / share:.2f} times as fast as "
        f"it, and {most:.2f} times as fast as the plain program; a goal of three times at equal work is "
        f"{'within' if most >= 3 else 'out of'} its reach.\n\n"
        "Seconds grow with a power of the size (the slope of their logarithms): "
        f"{powers}.\n\n![Left: held-out AUC against processor seconds of each method. Right: seconds against the size "
        "of the input, both axes logarithmic.](_static/bench.svg)"
    )


def bought(table: pd.DataFrame) -> str:
    """What passes of the autoencoder do to the bulk predictor, computed from the rows of the section "passes"."""
    rows = table[(table.section == "passes, autoencoder") & (table.measure == "held-out AUC")]
    if rows.empty:
        return ""
    of = rows.case.str.extract(r"(?P<genes>\d+) genes, (?P<passes>\d+) passes").astype(int)
    by_genes = of.assign(auc=rows.value.astype(float)).sort_values(["genes", "passes"]).groupby("genes")
    said = "; ".join(f"on {n:,} genes {', '.join(part.auc.map('{:.3f}'.format))}" for n, part in by_genes)
    passes_ = ", ".join(map(str, sorted(of.passes.unique())))
    return (
        f"**Passes of the autoencoder.** Mean held-out AUC of the bulk predictor after {passes_} passes of its "
        f"autoencoder, over {len(SPLITS)} splits of the lines and one in {EVERY} of the drugs: {said}. These have "
        "no interval. What the autoencoder adds on lines of clusters that no model saw is tested in chapter 16, in the "
        "row *ATSDP-NET, bulk only, no autoencoder*."
    )


def picture(table: pd.DataFrame, path: Path) -> None:
    """Held-out AUC against time of each method, and growth."""
    import matplotlib.pyplot as plt

    rows = table[table.measure.str.startswith("cpu_seconds to AUC")]
    with plt.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
        for (case, part), marker in zip(rows.groupby("case", sort=False), "os^D", strict=False):
            seconds = part.value.astype(float)
            left.plot(seconds, part.measure.str[-4:].astype(float), marker=marker, ms=4, lw=1, label=case)
        left.set(xscale="log", xlabel="processor seconds", ylabel="held-out AUC reached")
        left.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        for (words, (size, seconds, slope)), marker in zip(growth(table).items(), "os^Dv", strict=False):
            right.plot(size, seconds, marker=marker, ms=4, lw=1, label=f"{words}: {slope:.2f}")
        right.set(xscale="log", yscale="log", xlabel="cells, genes or seeds", ylabel="seconds")
        right.legend(fontsize=8, title="power of the size", title_fontsize=8, loc="lower center",
                     bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)  # fmt: skip
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def page(table: pd.DataFrame) -> str:
    """Markdown of the rows: one table a section, cases in rows, measures in columns."""
    if table.empty:
        return "No benchmark has been run yet: `make bench`.\n"
    parts = []
    if (table.section == "bulk").any():
        stated = PRIOR_EPOCHS * PRIOR_PAIR_SECONDS
        parts.append(
            f"**Target.** {PRIOR_EPOCHS} pairs of epochs of the prior art's public code cost about {stated:.0f} s "
            f"({PRIOR_PAIR_SECONDS} s a pair, a figure that was given to us and not measured here); a tenth of that is "
            f"{stated / 10:.0f} s.\n\n{target(table)}"
        )
    parts += [text for text in (speed(table), bought(table)) if text]
    for section, group in table[~table.measure.str.startswith("cpu_seconds to AUC")].groupby("section", sort=False):
        group = group.assign(shown=group.value.map(_shown) + group.unit.map(lambda u: f" {u}" if u else ""))
        alike = group.groupby("case", sort=False).measure.agg(tuple)
        parts.append(f"## {section[0].upper()}{section[1:]}")
        for measures in dict.fromkeys(alike):
            cases = group[group.case.isin(alike.index[alike == measures])]
            parts.append(_as_table(section, cases) if len(cases) > len(measures) else _as_list(cases))
    return "\n\n".join(parts) + "\n"


def _as_list(cases: pd.DataFrame) -> str:
    (case,) = cases.case.unique()
    return f"- {case}: " + "; ".join(f"{m} {v}" for m, v in zip(cases.measure, cases.shown, strict=True))


def _as_table(section: str, cases: pd.DataFrame) -> str:
    wide = cases.pivot_table(index="case", columns="measure", values="shown", aggfunc="first", sort=False)
    wide = wide.T if len(wide.columns) > 6 else wide  # no wider than a page
    head = f"| {section} | " + " | ".join(m.replace("|", "\\|") for m in wide.columns) + " |"
    body = [f"| {case} | " + " | ".join(row) + " |" for case, *row in wide.itertuples()]
    return "\n".join([head, "|---" * (len(wide.columns) + 1) + "|", *body])


def main(arguments: list[str] | None = None) -> int:
    """``python -m tests.bench.bench JOBS``."""
    parser = argparse.ArgumentParser(prog="tests.bench.bench", description=__doc__)
    parser.add_argument("jobs", type=int)
    parser.add_argument("--short", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=(), help="sections to run alone, such as own-1500")
    args = parser.parse_args(arguments)
    size = SHORT if args.short else FULL
    if args.section:
        _inside(args.section, size, args.jobs)
        return 0
    path, new = paths.FIGURES / "bench.csv", []
    for rows in measured(size, args.jobs, args.only or sections(size, args.jobs)):
        new.append(rows)
        store(replaced(plan.read(path), rows), path)
    if not args.only:  # rows that no section of this code makes any more go when all of them have run
        store(pd.concat([*new, as_table(quick_stages())]), path)
    table = plan.read(path)
    if path.is_relative_to(paths.ROOT):
        PAGE.write_text(page(table))
        picture(table, PICTURE)
    print(f"{len(table)} rows: {path}")
    return int((pd.concat(new).measure == "failed").any())


if __name__ == "__main__":
    sys.exit(main())
