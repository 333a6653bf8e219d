"""Data sets, hyperparameters and profiles, as data.

Nothing here computes. Table 2 of the paper is :data:`TABLE2`; what the paper leaves open is :class:`Training`:
rates, batch size, weights of the losses and noise were fixed before any single cell was scored, passes were not.
"""

from dataclasses import dataclass, replace
from typing import Self

#: Words for the classes 1 and 0.
SENSITIVE, RESISTANT = "sensitive", "resistant"
METRICS = ("precision", "recall", "f1", "auc", "ap")
EXTRA_METRICS = ("balanced_accuracy", "mcc", "brier", "ece")
#: Rules that choose the epoch of the bulk stage on held-out lines; the last one takes the last epoch.
STOPPING = ("auc", "cross-entropy", "last epoch")
BALANCING = ("none", "oversampling", "smote", "undersampling", "class_weight")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network. Table 2 gives all but `heads`, `attention` and the tokens."""

    bottleneck: int = 512  # width of the embedding E(X)
    encoder: tuple[int, ...] = (256, 128)  # hidden sizes; the decoder mirrors them
    predictor: tuple[int, ...] = (128, 64)  # hidden sizes of the predictor P
    dropout: float = 0.3  # of every hidden layer
    heads: int = 8  # of attention; 0 removes it (ambiguity 8)
    #: ``tokens``, or a demonstration: ``single`` (one token), ``batch`` (cells as a sequence), or the control
    #: ``linear`` (a width-matched linear layer). See ambiguity 9.
    attention: str = "tokens"
    tokens: int = 16  # that the embedding is split into
    token_dim: int = 32  # a bottleneck of another width than tokens x token_dim is first projected to it


TABLE2: dict[str, Architecture] = {
    "DATA1": Architecture(512, (256, 128), (128, 64), 0.3, heads=8),
    "DATA2": Architecture(32, (512, 256), (256, 128), 0.3, heads=8),
    "DATA3": Architecture(512, (256, 128), (256, 128), 0.2, heads=4),
    "DATA4": Architecture(512, (256, 128), (128, 64), 0.3, heads=8),
}
#: The paper prints this many epochs for every set.
PAPER_EPOCHS = 500


@dataclass(frozen=True)
class Training:
    """What the paper leaves open (ambiguity 25): conventional values.

    `epochs_*` are upper bounds where held-out rows choose the epoch (autoencoder, bulk stage, cells, fine-tuning):
    `patience` epochs without a better one (an autoencoder: by 1 %, after its tenth) end such a stage. Transfer runs all
    of its epochs.
    """

    noise: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    epochs_dae: int = 100
    epochs_predictor: int = 60
    epochs_cells: int = 100  # of stage 2, the autoencoder of the cells; 0: E_t is E_g until transfer (ambiguity 31)
    epochs_transfer: int = 40
    epochs_tune: int = 30
    patience: int = 10
    omega: float = 0.25
    theta: float = 0.1
    align: str = "mmd"  # what omega weighs in transfer: a key of models.discrepancy.DISCREPANCIES
    mmd_scale: float | None = None  # squared bandwidth of the MMD; None: around the median squared distance
    balance: str = "smote"
    validation: float = 0.15
    stopping: str = "auc"  # of held-out lines chooses the epoch of the bulk stage: one of STOPPING

    def bulk_only(self) -> Self:
        """The settings without those of later stages, so that these do not distinguish bulk stages."""
        later = {"epochs_cells": 0, "epochs_transfer": 0, "epochs_tune": 0, "omega": 0, "theta": 0}
        return replace(self, **later, align="", mmd_scale=None)


#: Training as in the study behind Table 2 (ambiguity 25): rates of its README, defaults of its program.
SUGGESTED: dict[str, tuple[tuple[str, object], ...]] = {
    paper: (("learning_rate", rate), ("batch_size", 200), ("omega", 0.25), ("mmd_scale", 2.0 * 1000**2))
    for paper, rate in {"DATA1": 0.01, "DATA2": 0.01, "DATA3": 0.01, "DATA4": 0.5}.items()
}


@dataclass(frozen=True)
class Profile:
    """How much is computed; never what is computed."""

    name: str
    seeds: int  # of protocol U
    seeds_real: int  # of protocol U on real sets: their AUCs differ by seed, from right to reversed
    seeds_ablation: int  # of settings that are compared with the default one, and of the paper's eight, on twins
    folds: int
    folds_table3: int
    repeats: int
    repeats_table4: int
    searched: int  # settings of each model of Table 4 that are compared on inner rows
    max_genes: int
    max_cells: int | None
    training: Training
    permutations: int
    heads: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    few: tuple[int, ...] = (1, 3, 5, 10)  # labelled cells a class of protocol F


PROFILES: dict[str, Profile] = {
    "smoke": Profile(
        "smoke", seeds=2, seeds_real=2, seeds_ablation=2, folds=2, folds_table3=2, repeats=1, repeats_table4=1,
        searched=2, max_genes=150, max_cells=90, permutations=50, heads=(0, 8), few=(1, 10),
        training=Training(batch_size=256, epochs_dae=2, epochs_predictor=2, epochs_cells=2, epochs_transfer=2,
                          epochs_tune=2, patience=2),
    ),
    "quick": Profile(
        "quick", seeds=5, seeds_real=20, seeds_ablation=3, folds=5, folds_table3=10, repeats=1, repeats_table4=1,
        searched=2, max_genes=1000, max_cells=None, permutations=1000,
        training=Training(epochs_dae=40, epochs_predictor=20, epochs_cells=20, epochs_transfer=10, epochs_tune=20,
                          patience=4),
    ),
    "paper": Profile(
        "paper", seeds=20, seeds_real=20, seeds_ablation=10, folds=10, folds_table3=10, repeats=10, repeats_table4=2,
        searched=4, max_genes=6163, max_cells=None, permutations=1000,
        # Nothing may stop transfer; by the 20th pass its loss goes up and down and hardly falls (make bench, "passes").
        training=Training(epochs_dae=PAPER_EPOCHS, epochs_predictor=PAPER_EPOCHS, epochs_cells=PAPER_EPOCHS,
                          epochs_transfer=20, epochs_tune=PAPER_EPOCHS, patience=5),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A candidate for ATSDP-NET+, as data."""

    members: int = 5  # networks whose logits are averaged
    joint: bool = False  # the bulk stage learns all 83 drugs with one trunk (the paper's future work), then one head
    align: str = "mmd"  # how cells are aligned with lines: a key of models.plus.ALIGNMENTS
    rank: bool = False  # ranks of its genes, as normal scores, replace the values of each standardised sample
    linear: float = 0.0  # share of the logit of an L2 logistic regression, brought to the network's scale
    changed: str = ""  # what distinguishes the candidate, in words


#: Candidates for ATSDP-NET+, simplest first.
RECIPES: dict[str, Recipe] = {
    "plain": Recipe(members=1, changed="ATSDP-NET itself, one network"),
    "ensemble": Recipe(changed="mean logit of 5 networks"),
    "ensemble-rank": Recipe(rank=True, changed="ensemble on ranks of genes within a sample"),
    "ensemble-adabn": Recipe(align="adabn", changed="ensemble, batch-norm statistics of the cells instead of MMD"),
    "ensemble-balanced": Recipe(align="balanced", changed="ensemble, MMD on cells balanced by predicted class"),
    "ensemble-linear": Recipe(linear=0.5, changed="ensemble, half of the logit from a linear path"),
    "joint": Recipe(joint=True, align="adabn", changed="ensemble-adabn, 83 drugs trained jointly"),
    "joint-linear": Recipe(
        joint=True, align="adabn", linear=0.5, changed="joint, half of the logit from a linear path"
    ),
}
#: What the rule of notebook 12 took by an earlier training; it is not chosen again (point 5 there).
CHOSEN = "ensemble-rank"


@dataclass(frozen=True)
class Dataset:
    """One single-cell set."""

    name: str  # in tables and file names; simulated ones end in -sim
    tier: str  # real (embedded), simulated (a twin) or geo (the paper's own files)
    drug: str  # column of the bulk label table
    paper: str = ""  # name of the paper's set that it is, or stands in for
    values: str = "counts"  # raw, with quality control; or zscored, without it, with the reason shown
    balance: str = "oversampling"  # the strategy that the paper chose for it
    species: str = "human"  # or mouse
    null: bool = False  # a twin with no signal planted
    #: Column of ``obs`` that is learnt and scored by default: ``sensitive_paper`` (with drug-holiday cells) or
    #: ``sensitive`` (DATA4: without control and empty wells, ambiguity 19).
    counting: str = "sensitive_paper"
    label: str = "culture"  # of origin; or programme, an end of an expression score, no drug
    axis: str = ""  # that several sets share: the same cells and groups under several drug names
    architecture: Architecture = TABLE2["DATA1"]

    @property
    def simulated(self) -> bool:
        """Whether the cells are simulated."""
        return self.tier == "simulated"

    @property
    def unit(self) -> str:
        """What counts once, whatever the number of its names: the shared axis, or the set itself."""
        return self.axis or self.name


_PAPER_SETS = {
    "DATA1": {"drug": "CISPLATIN", "balance": "smote"},
    "DATA2": {"drug": "CISPLATIN"},
    "DATA3": {"drug": "DOCETAXEL"},
    "DATA4": {"drug": "I.BET.762", "species": "mouse", "counting": "sensitive"},
}


def _paper_set(paper: str, suffix: str, tier: str, *, null: bool = False) -> Dataset:
    return Dataset(paper + suffix, tier, paper=paper, null=null, architecture=TABLE2[paper], **_PAPER_SETS[paper])


REAL = (
    Dataset("A375-PLX4720", "real", "PLX.4720", values="zscored"),
    Dataset("SCC47-afatinib", "real", "AFATINIB", values="zscored", label="programme", axis="SCC47 axis"),
    Dataset("SCC47-sorafenib", "real", "SORAFENIB", values="zscored", label="programme", axis="SCC47 axis"),
)
TWINS = tuple(_paper_set(p, "-sim", "simulated") for p in _PAPER_SETS)
NULLS = tuple(_paper_set(p, "-null-sim", "simulated", null=True) for p in _PAPER_SETS)
GEO = tuple(_paper_set(p, "", "geo") for p in _PAPER_SETS)

DATASETS: dict[str, Dataset] = {d.name: d for d in (*REAL, *TWINS, *NULLS, *GEO)}
TIERS = {name: spec.tier for name, spec in DATASETS.items()}


def datasets(data: str, *, nulls: bool = True) -> list[Dataset]:
    """Data sets that a run uses.

    Parameters
    ----------
    data : str
        ``embedded`` (the real sets and the twins) or ``geo`` (the real sets and the paper's own).
    nulls : bool
        Whether ``embedded`` includes the null twins, in which no signal is planted.

    Raises
    ------
    ValueError
        If `data` is neither.
    """
    if data == "embedded":
        return [*REAL, *TWINS, *(NULLS if nulls else ())]
    if data == "geo":
        return [*REAL, *GEO]
    raise ValueError(f"DATA: got {data!r}, expected 'embedded' or 'geo'")


def stand_in(paper: str, data: str) -> Dataset:
    """The paper's set (``DATA1`` to ``DATA4``) in tier ``geo``, its twin in tier ``embedded``."""
    return DATASETS[paper if data == "geo" else f"{paper}-sim"]


def profile(name: str) -> Profile:
    """Look a profile up by name, with an error that lists the choices."""
    if name not in PROFILES:
        raise ValueError(f"PROFILE: got {name!r}, expected one of {', '.join(PROFILES)}")
    return PROFILES[name]
