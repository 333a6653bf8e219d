"""One training task as data: what is asked, with which settings, and what comes back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace

import numpy as np

from atsdp_utils.baselines import REGISTRY, Baseline
from atsdp_utils.foundation import config
from atsdp_utils.foundation.config import Architecture, Dataset, Profile, Training

ATSDP = "ATSDP-NET"
NO_TRANSFER = "ATSDP-NET (no transfer)"
BULK_ONLY = "ATSDP-NET (bulk only)"
#: The control of transfer: as many further steps on bulk, without the cells.
FURTHER = "ATSDP-NET (further steps)"
PLUS = "ATSDP-NET+"
#: Models that are no baseline: networks of this package, sized by Table 2.
NETWORKS = (ATSDP, NO_TRANSFER, BULK_ONLY, FURTHER, PLUS)
#: What a seed draws, each of which may have a seed of its own: the split of the lines into training and test ones; the
#: first weights and the autoencoder; all that the training draws (held-out and synthetic lines, order, noise).
SEEDED = ("lines", "weights", "batches")
#: Function of the module `protocols` that runs a task, by protocol.
PROTOCOLS = {"S": "supervised", "U": "unsupervised", "F": "few_shot", "B": "held_out_lines", "P": "pseudo_transfer"}
_ARCHITECTURE = {f.name for f in dataclasses.fields(Architecture)}
_TRAINING = {f.name for f in dataclasses.fields(Training)} - {"balance"}
#: Settings of a task that are neither sizes nor training settings nor hyperparameters of a baseline.
_TASK_SETTINGS = {
    "max_genes", "balance", "permute", "permute_lines", "strict", "all_wells", "k", "train_cultures", "test_cultures",
    "gene_space", "start", "kind", "tune", "without",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One entry of a grid; folds run inside it.

    A setting overrides sizes (``heads``), training (``omega``), ``balance`` or a baseline's hyperparameters. It may ask
    for shuffled labels of cells (``permute``) or of lines (``permute_lines``, under U), no holiday cells (``strict``),
    control and empty wells that count as sensitive (``all_wells``), a stress split (``train_cultures``,
    ``test_cultures``), cross-validation among the cells outside a fold (``without``), a ``separate`` ``gene_space``, an
    ``own`` ``start`` of E_t, or an inner search of a baseline's settings (``tune``: under S on cells of each fold,
    under U on lines). It must hold ``k``, labelled cells a class, under F and ``kind`` under P
    (:mod:`atsdp_utils.experiments.pseudo`).
    """

    dataset: str  # a single-cell set; under B a drug; under P a drug, or a twin where the kind is one
    protocol: str  # S supervised, U unsupervised transfer, F few-shot, B held-out bulk lines, P pseudo-transfer
    model: str  # ATSDP-NET (or one of its variants) or a name of baselines.REGISTRY
    profile: str
    setting: tuple[tuple[str, object], ...] = ()
    seed: int = 0  # of the model; of the bulk split; of the labelled cells under F
    folds: int = 0  # of S
    repeat: int = 0  # which partition into folds
    seeds: tuple[tuple[str, int], ...] = ()  # of single parts of :data:`SEEDED` (ATSDP-NET only), else `seed`

    @property
    def options(self) -> dict[str, object]:
        """The setting as a dictionary."""
        return dict(self.setting)

    def seed_of(self, part: str) -> int:
        """Seed of one of :data:`SEEDED`."""
        if unknown := {name for name, _ in self.seeds} - set(SEEDED):
            raise ValueError(f"seeds: got {sorted(unknown)}, expected parts of {SEEDED}")
        return dict(self.seeds).get(part, self.seed)

    @property
    def function(self) -> str:
        """Name of the function of :mod:`atsdp_utils.experiments.protocols` that runs it."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol: got {self.protocol!r}, expected one of {', '.join(PROTOCOLS)}")
        return PROTOCOLS[self.protocol]

    @property
    def spec(self) -> Dataset:
        """The data set; under B and P a stand-in with the name as its drug and Table 2's sizes of DATA1."""
        return Dataset(self.dataset, "real", self.dataset) if self.protocol in "BP" else config.DATASETS[self.dataset]

    @property
    def sizes(self) -> Profile:
        """The profile."""
        return config.profile(self.profile)

    @property
    def architecture(self) -> Architecture:
        """Table 2's sizes with the task's overrides."""
        return replace(self.spec.architecture, **{k: v for k, v in self.setting if k in _ARCHITECTURE})

    @property
    def training(self) -> Training:
        """The profile's training settings with the task's overrides.

        The bulk stage balances its lines as the paper chose for the set; a strategy of the task counts for lines where
        they are what is learned from (U, B), else for cells.
        """
        how = self.options.get("balance") if self.protocol in "UB" else None
        cfg = replace(self.sizes.training, balance=how or self.spec.balance)
        return replace(cfg, **{k: v for k, v in self.setting if k in _TRAINING})

    @property
    def baseline(self) -> Baseline | None:
        """Entry of the registry, None for a network of this package."""
        return REGISTRY.get(self.model)

    @property
    def balance(self) -> str:
        """How training rows are balanced: as the task says, else as the paper chose; not for models that must not be.

        Under B the lines of a baseline are not balanced unless the task says so; a network has `training.balance`.
        """
        if self.baseline and not self.baseline.balanced:
            return "none"
        return self.options.get("balance", "none" if self.protocol == "B" else self.spec.balance)

    def changed(self, **options: object) -> Task:
        """The task with more options; a later one counts."""
        return replace(self, setting=(*self.setting, *options.items()))


@dataclass(frozen=True)
class Result:
    """Predictions of a task, one row per scored cell (or line)."""

    task: Task
    row: np.ndarray  # of the cell in the prepared (and sub-sampled) set, or of the line
    y: np.ndarray
    p: np.ndarray  # P(sensitive)
    fold: np.ndarray  # that predicted it
    seconds: float  # wall time of the trainings, all folds
    parameters: int  # trainable ones of the model, 0 where it does not count them
    chosen: tuple[dict, ...] = ()  # by tuning, one setting a fold
    line_z: np.ndarray = field(default_factory=lambda: np.empty(0))  # logits of held-out lines, by ATSDP-NET+ alone
    line_y: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))


def budget(task: Task) -> dict[str, int]:
    """Epochs of a network among the baselines, at most: those of ATSDP-NET on the rows that a protocol learns from."""
    baseline, cfg = task.baseline, task.training
    if not baseline or not REGISTRY[baseline.variant_of or baseline.name].network:
        return {}
    epochs = cfg.epochs_tune if task.protocol in "SF" else cfg.epochs_predictor
    return {"epochs": epochs, "pretraining": cfg.epochs_dae, "patience": cfg.patience}


def build(task: Task):
    """The model of a task, unfitted."""
    if task.model in NETWORKS:
        from atsdp_utils.models import atsdp
        from atsdp_utils.models.plus import ATSDPPlus

        arch, cfg = task.architecture, task.training
        if task.model == PLUS:
            own = {k: v for k, v in task.setting if k in ("recipe", "members")}
            return ATSDPPlus(seed=task.seed, arch=arch, cfg=cfg, **own)
        network = atsdp.FurtherSteps if task.model == FURTHER else atsdp.ATSDP
        own_start = task.options.get("start") == "own" or task.options.get("gene_space") == "separate"
        own = {"pretrained": task.model != NO_TRANSFER, "own_start": own_start, "weights_seed": task.seed_of("weights")}
        return network(seed=task.seed_of("batches"), arch=arch, cfg=cfg, **own)
    if not task.baseline:
        raise KeyError(f"model: got {task.model!r}, expected {ATSDP}, its variants or one of {', '.join(REGISTRY)}")
    return task.baseline.make(
        seed=task.seed, **budget(task) | {k: v for k, v in task.setting if k not in _TASK_SETTINGS}
    )


def searched(task: Task) -> Baseline:
    """Entry of the registry whose settings are searched, that of its model for a variant.

    ATSDP-NET gets one of its own: four settings that leave its cached bulk stage as it is.
    """
    if task.baseline:
        entry, length = REGISTRY[task.baseline.variant_of or task.model], budget(task)
        trial = {k: max(1, length[k] // 4) for k in ("epochs", "pretraining") if k in length}
        return replace(entry, hyperparameters=entry.hyperparameters | length, trial=entry.trial | trial)
    cfg = task.training

    def factory(*, seed: int, **changes):
        return build(replace(task, seed=seed).changed(**changes))

    if task.model == ATSDP:
        grid = {"theta": (cfg.theta, 0.0), "omega": (cfg.omega, 4 * cfg.omega)}
    else:  # without lines no loss of the transfer is left
        grid = {"noise": (cfg.noise, 0.0), "learning_rate": (cfg.learning_rate, cfg.learning_rate / 4)}
    return Baseline(task.model, factory, {}, grid, {"epochs_tune": max(1, cfg.epochs_tune // 4)})
