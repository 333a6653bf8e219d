"""One training task from split to predictions: the protocols U, S and F, and the bulk hold-out B.

Everything fitted (scaler, sampler, early stopping, threshold) sees training rows only. Nothing here knows of files of
results or parallel workers; that is :mod:`atsdp_utils.experiments.grid`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.foundation.config import Architecture, Dataset, Profile, Training

ATSDP = "ATSDP-NET"
NO_TRANSFER = "ATSDP-NET (no transfer)"
BULK_ONLY = "ATSDP-NET (bulk only)"
PLUS = "ATSDP-NET+"
#: Models that are no baseline: networks of this package, sized by Table 2.
NETWORKS = (ATSDP, NO_TRANSFER, BULK_ONLY, PLUS)
_ARCHITECTURE = {f.name for f in dataclasses.fields(Architecture)}
_TRAINING = {f.name for f in dataclasses.fields(Training)}
#: Settings of a task that are neither sizes nor training settings nor hyperparameters of a baseline.
_TASK_SETTINGS = {
    "max_genes",
    "balance",
    "permute",
    "strict",
    "all_wells",
    "k",
    "train_cultures",
    "test_cultures",
    "gene_space",
    "kind",
    "shuffle_genes",
    "tune",
}


@dataclass(frozen=True)
class Task:
    """One entry of a grid; folds run inside it.

    Attributes
    ----------
    dataset
        A single-cell set; under protocols B and P a drug.
    protocol
        ``S`` supervised cross-validation, ``U`` unsupervised transfer, ``F`` few-shot, ``B`` held-out bulk lines,
        ``P`` pseudo-transfer (:mod:`atsdp_utils.experiments.pseudo`).
    model
        ``ATSDP-NET`` (or one of its variants) or a name of ``baselines.REGISTRY``.
    profile
        Name of the profile: sizes of the computation.
    setting
        Overrides as pairs: sizes (``heads``), training (``omega``), ``balance``, a baseline's hyperparameters;
        ``permute`` (labels shuffled), ``strict`` (holiday cells out),
        ``all_wells`` (control and empty wells count as sensitive), ``k`` (labelled cells a class, F),
        ``train_cultures`` and ``test_cultures`` (stress split), ``gene_space`` (``separate``),
        ``tune`` (inner search of a baseline's settings).
    seed
        Seed of the model; of the bulk split; of the labelled cells under F.
    folds, repeat
        Folds of S (0 elsewhere) and which repeat of the partition.
    """

    dataset: str
    protocol: str
    model: str
    profile: str
    setting: tuple[tuple[str, object], ...] = ()
    seed: int = 0
    folds: int = 0
    repeat: int = 0

    @property
    def options(self) -> dict[str, object]:
        """The setting as a dictionary."""
        return dict(self.setting)


@dataclass(frozen=True)
class Result:
    """Predictions of a task, one row per scored cell (or line).

    Attributes
    ----------
    row
        Index of the cell in the prepared (and sub-sampled) set, or of the line.
    y, p, fold
        True label, P(sensitive), fold that predicted it.
    seconds
        Wall time of the trainings, all folds.
    parameters
        Trainable parameters of the model, 0 where it does not count them.
    chosen
        Hyperparameters that tuning chose, one dictionary a fold; empty without tuning.
    """

    task: Task
    row: np.ndarray
    y: np.ndarray
    p: np.ndarray
    fold: np.ndarray
    seconds: float
    parameters: int
    chosen: tuple[dict, ...] = ()


def architecture(spec: Dataset, options: dict) -> Architecture:
    """Table 2's sizes with the task's overrides."""
    return replace(spec.architecture, **{k: v for k, v in options.items() if k in _ARCHITECTURE})


def training(spec: Dataset, profile: Profile, options: dict, *, bulk_balance: str | None = None) -> Training:
    """The profile's training settings with the task's overrides; bulk rows balanced as the paper chose for the set."""
    cfg = replace(profile.training, balance=bulk_balance or spec.balance)
    return replace(cfg, **{k: v for k, v in options.items() if k in _TRAINING - {"balance"}})


@lru_cache(maxsize=4)
def cells_of(dataset: str, profile: str) -> preprocess.Cells:
    """The prepared set, sub-sampled as the profile says."""
    return preprocess.subsample(datasets.load_prepared(dataset), config.profile(profile).max_cells)


@lru_cache(maxsize=4)
def source_of(dataset: str, profile: str, seed: int) -> preprocess.Source:
    """The bulk side of a set under a profile."""
    return datasets.source_domain(cells_of(dataset, profile), config.profile(profile).max_genes, seed)


def splits(cells: preprocess.Cells, folds: int, repeat: int) -> np.ndarray:
    """Fold of each cell, (cells,), -1 without a label; stratified by label, saved once, shared by all models.

    Raises
    ------
    ValueError
        If a class has fewer cells than folds.
    """
    rarest = int(np.bincount(cells.y[cells.labelled], minlength=2).min())
    if rarest < folds:
        raise ValueError(f"folds: got {folds} for {cells.name}, expected at most {rarest} (cells of the rarer class)")
    key = cache.key(cells.y, folds, repeat, cache.code("experiments.protocols._draw_splits"))
    path = paths.SPLITS / f"{cells.name}-{folds}fold-repeat{repeat}-{key}.npz"
    return cache.kept(path, _read_splits, lambda part: np.savez(part, fold=_draw_splits(cells, folds, repeat)))


def _read_splits(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as z:
        return z["fold"]


def _draw_splits(cells: preprocess.Cells, folds: int, repeat: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    fold, rows = np.full(len(cells.y), -1, np.int16), cells.labelled
    for i, (_, test) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=repeat).split(rows, cells.y[rows])):
        fold[rows[test]] = i
    return fold


def build(task: Task, spec: Dataset):
    """The model of a task, unfitted."""
    profile, options = config.profile(task.profile), task.options
    if task.model in NETWORKS:
        from atsdp_utils.models.atsdp import ATSDP as Network

        bulk_balance = options.get("balance") if task.protocol in "UB" else None
        cfg = training(spec, profile, options, bulk_balance=bulk_balance)
        if task.model == PLUS:
            from atsdp_utils.models.plus import ATSDPPlus

            own = {k: options[k] for k in ("recipe", "members") if k in options}
            return ATSDPPlus(seed=task.seed, arch=architecture(spec, options), cfg=cfg, **own)
        own = {"pretrained": task.model != NO_TRANSFER, "own_genes": options.get("gene_space") == "separate"}
        return Network(seed=task.seed, arch=architecture(spec, options), cfg=cfg, **own)
    from atsdp_utils.baselines import REGISTRY

    if task.model not in REGISTRY:
        raise KeyError(f"model: got {task.model!r}, expected {ATSDP}, its variants or one of {', '.join(REGISTRY)}")
    entry = REGISTRY[task.model]
    own = {k: v for k, v in options.items() if k not in _TASK_SETTINGS}
    return entry.factory(seed=task.seed, **(entry.hyperparameters | own))


#: Not followed from a protocol: what a key holds by value, and what only some tasks have and then name themselves.
CUT = (
    "experiments.protocols.key", "experiments.protocols.cells_of", "data.twins.direction_lines",
    "models.atsdp.ATSDP", "models.plus.ATSDPPlus",
    "baselines.REGISTRY", "experiments.protocols._tuned",
    "experiments.pseudo.pseudo_cells", "experiments.pseudo.twin_cells",
)  # fmt: skip
_CELLS_OF_KIND = {"pseudo-cells": "experiments.pseudo.pseudo_cells", "twin": "experiments.pseudo.twin_cells"}


def code_of(task: Task) -> str:
    """Version of the code that a task's result depends on: its protocol, model and search."""
    roots = [f"experiments.protocols.{_runner(task).__name__}", *_model_code(task)]
    if task.protocol == "P" and _kind(task) in _CELLS_OF_KIND:
        roots.append(_CELLS_OF_KIND[_kind(task)])
    if task.options.get("tune"):
        roots.append("experiments.protocols._tuned")
    return cache.code(*sorted(set(roots)), cut=CUT)


def _model_code(task: Task) -> list[str]:
    """Classes that a model is made of: its own, and those that it wraps or whose search it shares."""
    if task.model in NETWORKS:
        return ["models.plus.ATSDPPlus" if task.model == PLUS else "models.atsdp.ATSDP"]
    from atsdp_utils.baselines import REGISTRY

    entry = REGISTRY[task.model]
    others = {entry.hyperparameters.get("of"), entry.variant_of if task.options.get("tune") else None}
    wrapped = [code for name in others & REGISTRY.keys() for code in _model_code(replace(task, model=name))]
    return [f"baselines{entry.factory.path.replace(':', '.')}", *wrapped]


def key(task: Task) -> str:
    """Key of a task's result: what is trained, on which values and split, by which code, on which kind of device."""
    spec = spec_of(task)
    plain = dataclasses.asdict(task) | {"profile": None, "setting": _departures(task, spec)}
    return cache.key(sorted(plain.items()), _sizes(task, spec), _values(task), code_of(task), runtime.precision())


def _sizes(task: Task, spec: Dataset) -> tuple:
    """Settings that a result depends on and that stand elsewhere than in its task."""
    profile = config.profile(task.profile)
    if task.model in NETWORKS:
        sizes = (profile.max_genes, architecture(spec, task.options), training(spec, profile, {}))
    else:
        from atsdp_utils.baselines import REGISTRY

        entry = REGISTRY[task.model]
        inner = REGISTRY[entry.hyperparameters["of"]].hyperparameters if "of" in entry.hyperparameters else {}
        sizes = (profile.max_genes, spec.balance, entry.hyperparameters, inner, entry.balanced)
    if task.model == PLUS:
        sizes += (_recipe(task),)
    if task.options.get("tune"):
        entry = searched(task)
        sizes += (profile.searched, entry.hyperparameters, entry.grid, entry.trial)
    return sizes


def _recipe(task: Task) -> config.Recipe:
    return config.RECIPES[task.options.get("recipe", config.CHOSEN)]


def _kind(task: Task) -> str:
    return str(task.options.get("kind", "")).partition(":")[0]


def _values(task: Task) -> str:
    """Key of all values that a task reads: expression and labels of lines and cells, split and cultures."""
    joint = task.model == PLUS and _recipe(task).joint
    parts = [cache.key(gdsc.all_labels(gdsc.load_bulk().lines)) if joint else None]
    if task.protocol == "P" and _kind(task) == "twin":
        return cache.key(*parts, datasets.cells_key(task.dataset))
    if task.protocol in "BP":
        return cache.key(*parts, gdsc.bulk_key(task.dataset))
    cells = cells_of(task.dataset, task.profile)
    if "train_cultures" in task.options:
        parts.append(cells.group)
    elif task.protocol == "S" and task.folds:
        parts.append(splits(cells, task.folds, task.repeat))
    if _wants_library_size(task.model):
        return cache.key(*parts, _labels(task), cells.library_size)
    if cells.tier == "simulated":
        from atsdp_utils.data import twins

        parts.append(twins.direction_lines(cells.drug))
    drug = cells.drug if _reads_drug(task) else None
    return cache.key(*parts, _labels(task), cells.key, gdsc.bulk_key(drug))


def _reads_drug(task: Task) -> bool:
    """Whether a task on cells may read which lines are sensitive; genes are chosen by the lines' expression alone."""
    if task.protocol == "U" or task.model in NETWORKS:
        return task.model != NO_TRANSFER
    from atsdp_utils.baselines import REGISTRY

    return REGISTRY[task.model].uses_source


def _departures(task: Task, spec: Dataset) -> tuple[tuple[str, object], ...]:
    """The setting without what is the default anyway, so that tables share the trainings that they have in common."""
    if task.protocol in "BP":
        return task.setting
    default = {"balance": spec.balance, "heads": spec.architecture.heads}
    return tuple(pair for pair in task.setting if pair[1] != default.get(pair[0], object()))


def spec_of(task: Task) -> Dataset:
    """The data set; under protocols B and P a stand-in with the drug and Table 2's sizes of DATA1."""
    return Dataset(task.dataset, "real", task.dataset) if task.protocol in "BP" else config.DATASETS[task.dataset]


def run_task(task: Task) -> Result:
    """Train and predict; one entry of the grid."""
    started = time.perf_counter()
    runner = _runner(task)
    needed = {"F": "k", "P": "kind"}.get(task.protocol)
    if needed and needed not in task.options:
        raise ValueError(f"setting: got {task.setting!r}, expected a pair {needed!r} under protocol {task.protocol}")
    row, y, p, fold, models = runner(task)
    parameters = int(getattr(models[-1], "n_parameters", 0) or 0)
    chosen = tuple(m.chosen_ for m in models if hasattr(m, "chosen_"))
    return Result(task, row, y, p, fold, time.perf_counter() - started, parameters, chosen)


def _runner(task: Task) -> Callable:
    """The protocol of a task."""
    runners = {"S": _supervised, "U": _unsupervised, "F": _few_shot, "B": _bulk, "P": _pseudo}
    if task.protocol not in runners:
        raise ValueError(f"protocol: got {task.protocol!r}, expected one of {', '.join(runners)}")
    return runners[task.protocol]


def bulk_side(task: Task) -> preprocess.Source:
    """Bulk rows of a task: on the genes shared with its cells, or (protocol B) on all genes of the bulk matrix."""
    if task.protocol != "B":
        return source_of(task.dataset, task.profile, task.seed)
    bulk = gdsc.load_bulk(task.dataset)
    genes = gdsc.shared_genes(bulk, bulk.genes, task.options.get("max_genes", len(bulk.genes)))
    return gdsc.bulk_source(bulk, genes, task.seed)


def _features(task: Task, source: preprocess.Source) -> np.ndarray:
    """Columns that the model sees: shared genes, or the library size alone."""
    cells = cells_of(task.dataset, task.profile)
    if _wants_library_size(task.model):
        return np.log1p(np.nan_to_num(cells.library_size))[:, None].astype(np.float32)
    return preprocess.columns(cells.X, cells.genes, source.genes)


def _wants_library_size(model: str) -> bool:
    if model in NETWORKS:
        return False
    from atsdp_utils.baselines import REGISTRY

    return REGISTRY[model].features == "library_size"


def _labels(task: Task) -> np.ndarray:
    """Labels that the task learns and is scored on: the paper's counting, or the strict one, or shuffled ones.

    With ``all_wells`` what has no label counts as sensitive: the control and empty wells of DATA4 (ambiguity 19).
    """
    cells = cells_of(task.dataset, task.profile)
    y = (cells.strict if task.options.get("strict") else cells.y).copy()
    if task.options.get("all_wells"):
        y[y < 0] = 1
    if task.options.get("permute"):
        rows = np.flatnonzero(y >= 0)
        y[rows] = np.random.default_rng([task.seed, 77]).permutation(y[rows])
    return y


def ready_fold(task: Task, X: np.ndarray, y: np.ndarray, train: np.ndarray, source: preprocess.Source):
    """Scale and balance the rows `train`: the scaler, an unfitted model, and the rows, labels and weights to fit."""
    spec = spec_of(task)
    scaler = preprocess.Standardizer().fit(X[train])
    x_train, how = scaler.transform(X[train]), _balance(task, spec)
    model = _tuned(task, x_train, y[train], how, source) if task.options.get("tune") else build(task, spec)
    return scaler, model, preprocess.balance(x_train, y[train], how, task.seed)


def fit_fold(task: Task, X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, source: preprocess.Source):
    """Fit on the rows `train`; P(sensitive) of the rows `test`. All that touches a fold is here."""
    scaler, model, (xb, yb, weight) = ready_fold(task, X, y, train, source)
    model.fit(xb, yb, weight=weight, source=source)
    return model.predict_proba(scaler.transform(X[test])), model


def _balance(task: Task, spec: Dataset) -> str:
    """How training rows are balanced: as the task says, else as the paper chose; not for models that must not be."""
    if task.model not in NETWORKS:
        from atsdp_utils.baselines import REGISTRY

        if not REGISTRY[task.model].balanced:
            return "none"
    return task.options.get("balance", spec.balance)


def _tuned(task: Task, X: np.ndarray, y: np.ndarray, how: str, source: preprocess.Source):
    """A model with the setting that inner rows of these training rows chose (``chosen_``), unfitted."""
    best = _search(task, X, y, how, source)
    model = build(replace(task, setting=(*task.setting, *best.items())), spec_of(task))
    model.chosen_ = best
    return model


def _search(task: Task, X: np.ndarray, y: np.ndarray, how: str, source: preprocess.Source) -> dict:
    """Setting that wins on inner rows, kept on disk under the key of the model itself, where its variants find it."""
    from atsdp_utils.baselines import tune

    entry = searched(task)
    path = paths.SEARCHES / f"{cache.key(key(replace(task, model=entry.name)), X, y)}.json"

    def search(temporary: str) -> None:
        found = tune(
            entry, X, y, source=source, balance=lambda a, b: preprocess.balance(a, b, how, task.seed), seed=task.seed,
            most=config.profile(task.profile).searched,
        )  # fmt: skip
        Path(temporary).write_text(json.dumps(found.best))

    return cache.kept(path, lambda file: json.loads(file.read_text()), search)


def searched(task: Task):
    """Entry of the registry whose settings are searched, that of its model for a variant.

    ATSDP-NET gets one of its own: four settings that leave its cached bulk stage as it is.
    """
    from atsdp_utils.baselines import REGISTRY, Baseline

    if task.model in REGISTRY:
        return REGISTRY[REGISTRY[task.model].variant_of or task.model]
    cfg = training(spec_of(task), config.profile(task.profile), task.options)

    def factory(*, seed: int, **changes):
        return build(replace(task, seed=seed, setting=(*task.setting, *changes.items())), spec_of(task))

    grid = {"theta": (cfg.theta, 0.0)}
    if task.model == ATSDP:
        grid["omega"] = (cfg.omega, 4 * cfg.omega)
    else:
        grid["learning_rate"] = (cfg.learning_rate, cfg.learning_rate / 4)
    return Baseline(task.model, factory, {}, grid, {"epochs_tune": max(1, cfg.epochs_tune // 4)})


def _folds(task: Task, y: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, test rows and training rows of every fold; a stress split is one. Rows without a label are in none."""
    cells, options = cells_of(task.dataset, task.profile), task.options
    if "train_cultures" in options:
        test, train = (np.isin(cells.group, options[f"{part}_cultures"]) for part in ("test", "train"))
        yield 0, np.flatnonzero(test & ~train & (y >= 0)), np.flatnonzero(train & (y >= 0))
        return
    fold = np.where(y >= 0, splits(cells, task.folds, task.repeat).astype(int), -2)
    added = np.flatnonzero(fold == -1)  # wells that `all_wells` labels: dealt to the folds, which stay as they are
    fold[added] = np.arange(len(added)) % max(task.folds, 1)
    for i in range(task.folds):
        yield i, np.flatnonzero(fold == i), np.flatnonzero((fold != i) & (fold > -2))


def _supervised(task: Task):
    source, y = source_of(task.dataset, task.profile, task.seed), _labels(task)
    X, p, fold, models = _features(task, source), np.full(len(y), np.nan), np.full(len(y), -1), []
    for i, test, train in _folds(task, y):
        p[test], model = fit_fold(task, X, y, train, test, source)
        fold[test] = i
        models.append(model)
    rows = np.flatnonzero(fold >= 0)
    return rows, y[rows], p[rows], fold[rows], models


def _unlabelled(task: Task, source: preprocess.Source) -> np.ndarray:
    """Standardised cells; the scaler may see all of them, because it sees no label."""
    return preprocess.Standardizer().fit_transform(_features(task, source))


def _starts_few_shot(task: Task) -> bool:
    """Whether few-shot learning starts from the network of a task of protocol U."""
    return task.model == ATSDP and not task.setting and not spec_of(task).null


def _unsupervised(task: Task):
    """Bulk labels only."""
    source, y, spec = source_of(task.dataset, task.profile, task.seed), _labels(task), spec_of(task)
    X, model = _unlabelled(task, source), build(task, spec)
    if task.model in (ATSDP, PLUS):
        if task.options.get("gene_space") == "separate":
            X = _own_genes(task, X.shape[1])
        if _starts_few_shot(task):
            model.fit_transfer(X, source, keep=True)
        else:
            model.fit_transfer(X, source)
    elif task.model == BULK_ONLY:
        model.fit_bulk(source)
    else:
        rows = source.fit_rows
        how = _balance(task, spec)
        xb, yb, weight = preprocess.balance(source.X[rows], source.y[rows], how, task.seed)
        model.fit(xb, yb, weight=weight, source=source)
    rows = np.flatnonzero(y >= 0)
    return rows, y[rows], model.predict_proba(X[rows]), np.zeros(len(rows), int), [model]


def _own_genes(task: Task, n_genes: int) -> np.ndarray:
    """The set's own most variable genes, standardised: the separate gene space."""
    cells = cells_of(task.dataset, task.profile)
    top = np.sort(np.argsort(-cells.X.var(0), kind="stable")[:n_genes])
    return preprocess.Standardizer().fit_transform(cells.X[:, top])


def _few_shot(task: Task):
    """k labelled cells a class, drawn by the seed; scored on all other labelled cells."""
    source = source_of(task.dataset, task.profile, task.seed)
    X, y, k = _unlabelled(task, source), _labels(task), int(task.options["k"])
    rng = np.random.default_rng([task.seed, 79])
    few = np.concatenate([rng.choice(np.flatnonzero(y == label), k, replace=False) for label in (0, 1)])
    rows = np.setdiff1d(np.flatnonzero(y >= 0), few)
    model = build(task, spec_of(task))
    if task.model in (ATSDP, PLUS):
        model.fit_few(X, X[few], y[few], source=source)
    else:
        model.fit(X[few], y[few], source=source)
    return rows, y[rows], model.predict_proba(X[rows]), np.zeros(len(rows), int), [model]


def _bulk(task: Task):
    """Held-out lines of a drug on all genes of the bulk matrix (notebook 03)."""
    source = bulk_side(task)
    model, rows = build(task, spec_of(task)), source.fit_rows
    if task.model in (ATSDP, BULK_ONLY):
        model.fit_bulk(source)
    else:
        how = task.options.get("balance", "none")
        xb, yb, weight = preprocess.balance(source.X[rows], source.y[rows], how, task.seed)
        model.fit(xb, yb, weight=weight, source=source)
    test = source.test_rows
    return test, source.y[test], model.predict_proba(source.X[test]), np.zeros(len(test), int), [model]


def _pseudo(task: Task):
    """A transfer task made of lines or simulated cells, on which recipes of ATSDP-NET+ are compared."""
    from atsdp_utils.experiments import pseudo

    target = pseudo.make(task.dataset, task.options["kind"], task.seed, config.profile(task.profile).max_genes)
    model, rows = build(task, spec_of(task)), target.source.fit_rows
    if task.model in (ATSDP, PLUS):
        model.fit_transfer(target.X, target.source)
    else:
        how = _balance(task, spec_of(task))
        xb, yb, weight = preprocess.balance(target.source.X[rows], target.source.y[rows], how, task.seed)
        model.fit(xb, yb, weight=weight, source=target.source)
    scored = np.flatnonzero(target.y >= 0)
    p = model.predict_proba(target.X[scored])
    return scored, target.y[scored], p, np.zeros(len(scored), int), [model]
