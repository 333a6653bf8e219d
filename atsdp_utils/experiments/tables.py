"""Which trainings each table needs: one declarative list a table."""

import itertools
from collections.abc import Iterable

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.experiments import pseudo
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER, NO_TRANSFER, PLUS, Task
from atsdp_utils.foundation import config
from atsdp_utils.foundation.config import Dataset

NAIVE = ("Majority", "LibrarySize")
#: Drugs of notebook 03: those of the paper's sets and of the real sets.
BULK_DRUGS = ("CISPLATIN", "DOCETAXEL", "I.BET.762", "PLX.4720", "AFATINIB", "SORAFENIB")
REFERENCES = ("Logistic", "RandomForest")
#: First principal component of the cells with the sign of a bulk logistic regression: protocol U only.
PC1 = "PC1Sign"
#: Simple models beside the networks without labels of cells.
REFERENCES_U = (*REFERENCES, PC1)
Pairs = tuple[tuple[str, object], ...]
#: What a table compares, by name: a model and what is changed in it.
Settings = dict[str, tuple[str, Pairs]]


def _supervised(spec: Dataset, profile: str, folds: int, model: str = ATSDP, setting: Pairs = (), repeats: int = 1):
    return [Task(spec.name, "S", model, profile, setting, folds=folds, repeat=r) for r in range(repeats)]


def _unsupervised(spec: Dataset, profile: str, model: str = ATSDP, setting: Pairs = ()) -> list[Task]:
    """Over seeds, as many in every table, so that a comparison has one answer.

    Every model and setting has the same number on a real set. On twins the paper's eight and settings that are compared
    with the default one have fewer.
    """
    sizes = config.profile(profile)
    of_eight = model in REGISTRY and REGISTRY[model].paper_name
    on_twins = sizes.seeds_ablation if setting or of_eight else sizes.seeds
    seeds = sizes.seeds_real if spec.tier == "real" else on_twins
    return [Task(spec.name, "U", model, profile, setting, seed=s) for s in range(seeds)]


def _few(spec: Dataset, profile: str, model: str) -> list[Task]:
    """Over numbers of labelled cells and the seeds of protocol U."""
    seeds = [task.seed for task in _unsupervised(spec, profile)]
    return [
        Task(spec.name, "F", model, profile, (("k", k), *_short(model, profile)), seed)
        for k, seed in itertools.product(config.profile(profile).few, seeds)
    ]


def _short(model: str, profile: str) -> Pairs:
    """Under ``smoke`` a baseline's trainings are as short as those of its search; nothing is changed elsewhere."""
    if profile != "smoke" or model not in REGISTRY:
        return ()
    return tuple(REGISTRY[REGISTRY[model].variant_of or model].trial.items())


def _compared(spec: Dataset, profile: str, settings: Settings) -> list[Task]:
    """Over seeds of protocol U, every setting on one data set."""
    return [
        task
        for model, setting in settings.values()
        for task in _unsupervised(spec, profile, model, setting or _short(model, profile))
    ]


def named(settings: Settings, task: Task) -> str:
    """Name of a task's setting; a baseline has one, whatever shortens it."""
    return next(
        n for n, (model, of) in settings.items() if model == task.model and (task.baseline or of == task.setting)
    )


def bulk(data: str, profile: str) -> list[Task]:
    """Notebook 03: held-out lines per drug, three balancing strategies, beside the linear and forest references."""
    seeds = range({"smoke": 1, "quick": 1, "paper": 10}[profile])
    genes: Pairs = (("max_genes", config.profile(profile).max_genes),)
    tasks = []
    for drug, seed in itertools.product(BULK_DRUGS, seeds):
        for how in ("none", "oversampling", "smote"):
            tasks.append(Task(drug, "B", ATSDP, profile, (*genes, ("balance", how)), seed))
        tasks += [Task(drug, "B", model, profile, (*genes, *_short(model, profile)), seed) for model in REFERENCES]
    return tasks


def stopping(data: str, profile: str) -> list[Task]:
    """Notebook 03: the rules that choose the epoch of the bulk stage, by bulk lines alone, on the genes of a profile.

    The drugs on which recipes are compared, every other one in ``quick``, with a seed of its own each; lines are
    balanced by SMOTE.
    """
    setting: Pairs = (("max_genes", config.profile(profile).max_genes), ("balance", "smote"))
    drugs = pseudo.drugs()[:: {"smoke": 9, "quick": 2}.get(profile, 1)]
    return [
        Task(drug, "B", ATSDP, profile, (*setting, ("stopping", rule)), seed)
        for seed, drug in enumerate(drugs)
        for rule in config.STOPPING
    ]


#: Settings of protocol U in notebook 04.
TRANSFER: Settings = {
    "before transfer": (BULK_ONLY, ()),
    "further steps on bulk": (FURTHER, ()),
    "after transfer": (ATSDP, ()),
    "after transfer, no MMD": (ATSDP, (("omega", 0.0),)),
    "after transfer, no stage 2": (ATSDP, (("epochs_cells", 0),)),
    "after transfer, no regulariser": (ATSDP, (("theta", 0.0),)),
    "after transfer, regulariser as printed": (ATSDP, (("theta", -0.1),)),  # cells of a cluster repel (ambiguity 14)
    "after transfer, own start, shared genes": (ATSDP, (("start", "own"),)),
    "after transfer, separate start": (ATSDP, (("gene_space", "separate"),)),
    "logistic regression": ("Logistic", ()),
    "random forest": ("RandomForest", ()),
    "PC1, bulk sign": (PC1, ()),
}
#: The name there of the settings that are suggested with Table 2 (:data:`config.SUGGESTED`).
SUGGESTED = "after transfer, suggested settings"


def transfer_settings(spec: Dataset) -> Settings:
    """Settings of a set in notebook 04: a null twin has those that change no setting."""
    if spec.null:
        return {name: of for name, of in TRANSFER.items() if not of[1]}
    return TRANSFER | {SUGGESTED: (ATSDP, config.SUGGESTED[spec.paper or "DATA1"])}


def asked_before(settings: Settings) -> dict[str, tuple[str, str]]:
    """Which of `settings` notebook 04 or 05 compares with the default too: the table and the setting there."""
    before = {of: ("transfer_changes", name) for name, of in TRANSFER.items()}
    # Notebook 05 compares what the default does on the real sets with no balancing.
    before[ATSDP, (("balance", "none"),)] = "balancing_tests", "oversampling"
    return {name: before[of] for name, of in settings.items() if of in before}


def transfer(data: str, profile: str) -> list[Task]:
    """Notebook 04: before and after transfer, controls, readings of its parts, simple references."""
    return [t for spec in config.datasets(data) for t in _compared(spec, profile, transfer_settings(spec))]


def transfer_setting(task: Task) -> str:
    """Name of a task's setting in notebook 04."""
    return named(transfer_settings(task.spec), task)


def table1(data: str, profile: str) -> list[Task]:
    """Table 1: the balancing strategies under S and U."""
    tasks = []
    for spec, how in itertools.product(config.datasets(data, nulls=False), config.BALANCING):
        setting = (("balance", how),)
        tasks += _supervised(spec, profile, config.profile(profile).folds, setting=setting)
        tasks += _unsupervised(spec, profile, setting=setting)
    return tasks


def table3(data: str, profile: str) -> list[Task]:
    """Table 3: repeated cross-validation, transfer over seeds beside PC1, few-shot, and the naive references."""
    sizes = config.profile(profile)
    tasks = []
    for spec in config.datasets(data):
        folds = sizes.folds if spec.null else sizes.folds_table3
        tasks += _supervised(spec, profile, folds, repeats=sizes.repeats)
        tasks += _unsupervised(spec, profile)
        for model in (BULK_ONLY, FURTHER, PC1):
            tasks += _unsupervised(spec, profile, model)
        if not spec.null:
            tasks += _supervised(spec, profile, sizes.folds, setting=(("permute", True),))
        for model in NAIVE[: 1 if spec.values == "zscored" else None]:  # z-scores hold no library size
            tasks += _supervised(spec, profile, folds, model, repeats=sizes.repeats)
        if not spec.null:
            tasks += _few(spec, profile, ATSDP)
    return tasks


def strict(data: str, profile: str) -> list[Task]:
    """Ambiguity 20: the same cross-validation without the drug-holiday cells."""
    folds = config.profile(profile).folds
    specs = [config.stand_in(p, data) for p in ("DATA1", "DATA2")]
    return [t for spec in specs for t in _supervised(spec, profile, folds, setting=(("strict", True),))]


def wells(data: str, profile: str) -> list[Task]:
    """Ambiguity 19: the 1,419 wells of DATA4 taken literally, control and empty ones as sensitive, under S and U."""
    spec, setting = config.stand_in("DATA4", data), (("all_wells", True),)
    supervised = _supervised(spec, profile, config.profile(profile).folds, setting=setting)
    return supervised + _unsupervised(spec, profile, setting=setting)


def stress(data: str, profile: str) -> list[Task]:
    """Train on one pair of cultures, test on the other, both ways, where cultures allow."""
    pairs = {
        "DATA1": (("HN120P", "HN120PCR"), ("HN120M", "HN120MCR")),
        "DATA2": (("HN137P", "HN137PCR"), ("HN137M", "HN137MCR")),
        "DATA3": (("DU-145", "DU-145 docetaxel-resistant"), ("PC-3", "PC-3 docetaxel-resistant")),
    }
    tasks = []
    for paper, (a, b) in pairs.items():
        for train, test in ((a, b), (b, a)):
            setting = (("train_cultures", train), ("test_cultures", test))
            tasks.append(Task(config.stand_in(paper, data).name, "S", ATSDP, profile, setting))
    return tasks


def heads(data: str, profile: str) -> list[Task]:
    """Figure 3: heads 0 to 32 and the width-matched linear control, under S."""
    sizes = config.profile(profile)
    settings: list[Pairs] = [(("heads", h),) for h in sizes.heads] + [(("attention", "linear"),)]
    every = itertools.product(config.datasets(data, nulls=False), settings)
    return [t for spec, setting in every for t in _supervised(spec, profile, sizes.folds, setting=setting)]


def table4(data: str, profile: str) -> list[Task]:
    """Table 4: every baseline and ATSDP-NET on the same splits (S), and under U where a model can use bulk labels.

    Under S settings of each model are compared on inner rows of each fold (`Profile.searched`), under U those of the
    paper's eight on rows of the lines. Profile ``smoke`` searches on the first set only. Sets without counts have no
    library size.
    """
    sizes = config.profile(profile)
    tasks = []
    for i, spec in enumerate(config.datasets(data, nulls=False)):
        search: Pairs = (("tune", True),) if profile != "smoke" or i == 0 else ()
        measured = [m for m, b in REGISTRY.items() if b.features == "genes" or spec.values == "counts"]
        for model in (ATSDP, NO_TRANSFER, *(m for m in measured if REGISTRY[m].under_s)):
            setting = (*_short(model, profile), *search)
            tasks += _supervised(spec, profile, sizes.folds, model, setting, sizes.repeats_table4)
        for model in (ATSDP, BULK_ONLY, FURTHER, *(m for m, b in REGISTRY.items() if b.under_u)):
            own = search if model in REGISTRY and REGISTRY[model].paper_name else ()
            tasks += _unsupervised(spec, profile, model, (*_short(model, profile), *own))
    return tasks


#: Ablations of notebook 12: what is changed in ATSDP-NET, by name; the first is the method as it is.
ABLATIONS: Settings = {
    "as it is": (ATSDP, ()),
    "before transfer": (BULK_ONLY, ()),
    "further steps on bulk": (FURTHER, ()),
    "batch norm of the cells only": (PLUS, (("recipe", "ensemble-adabn"), ("members", 1))),
    "no MMD": (ATSDP, (("omega", 0.0),)),
    "no cluster regulariser": (ATSDP, (("theta", 0.0),)),
    "regulariser as printed": (ATSDP, (("theta", -0.1),)),
    "no autoencoder": (ATSDP, (("epochs_dae", 0),)),
    "no stage 2": (ATSDP, (("epochs_cells", 0),)),
    "stopped by cross-entropy": (ATSDP, (("stopping", "cross-entropy"),)),
    "lines not balanced": (ATSDP, (("balance", "none"),)),
    "lines weighted by class": (ATSDP, (("balance", "class_weight"),)),
    "separate start": (ATSDP, (("gene_space", "separate"),)),
}
#: Training of notebook 12 on twins with unequal classes, by name.
ALIGNED: dict[str, Pairs] = {
    "MMD": (("recipe", "plain"), ("members", 1)),
    "no MMD": (("recipe", "plain"), ("members", 1), ("omega", 0.0)),
    "MMD, balanced by prediction": (("recipe", "ensemble-balanced"), ("members", 1)),
}


def ablation(data: str, profile: str) -> list[Task]:
    """Notebook 12: one step of ATSDP-NET changed at a time, on the real sets, over seeds."""
    return [t for spec in config.REAL for t in _compared(spec, profile, ABLATIONS)]


def variance(data: str, profile: str) -> list[Task]:
    """Notebook 12: seeds of their own for lines, weights and batches, on the real sets.

    A Latin square: every level of a part meets every level of each other part once, which tells the three apart with
    a few trainings, each of a seed's own. What they do together is in the residual.
    """
    levels = {"smoke": 3, "quick": 5, "paper": 7}[profile]
    square = itertools.product(range(levels), repeat=2)
    seeds = [(i, (("weights", j), ("batches", (i + j) % levels))) for i, j in square]
    return [Task(spec.name, "U", ATSDP, profile, seed=i, seeds=parts) for spec in config.REAL for i, parts in seeds]


#: Notebook 14: recipes of peers in this network's words: no attention, and what stands in place of the MMD.
PEERS: Settings = {
    "ATSDP-NET": (ATSDP, ()),
    "further steps on bulk": (FURTHER, ()),
    "scDEAL's recipe": (ATSDP, (("heads", 0), *config.SUGGESTED["DATA1"])),
    "SCAD's recipe": (
        ATSDP,
        (("heads", 0), ("align", "adversary"), ("omega", 1.0), ("theta", 0.0), ("epochs_dae", 0), ("epochs_cells", 0)),
    ),
    "CORAL": (ATSDP, (("heads", 0), ("align", "coral"), ("omega", 1.0), ("theta", 0.0), ("epochs_cells", 0))),
    "logistic regression": ("Logistic", ()),
    "PC1, bulk sign": (PC1, ()),
}


def peers(data: str, profile: str) -> list[Task]:
    """Notebook 14: recipes of peers beside ATSDP-NET and simple models, on the real sets."""
    return [t for spec in config.REAL for t in _compared(spec, profile, PEERS)]


def class_mix(data: str, profile: str) -> list[Task]:
    """Notebook 12: a twin with subsampled classes, with and without MMD."""
    shares, seeds = {"smoke": ((10,), 1), "quick": ((10, 50), 2)}.get(profile, ((5, 10, 30, 50, 70, 90, 95), 10))
    return [
        Task("DATA3-sim", "P", PLUS, profile, (("kind", f"twin:{share}"), *setting), seed)
        for share, setting, seed in itertools.product(shares, ALIGNED.values(), range(seeds))
    ]


def plus_selection(data: str, profile: str) -> list[Task]:
    """Notebook 12: evidence for the recipe of ATSDP-NET+; pseudo-transfer tasks of lines and twins of their own.

    Under ``paper`` it is the run whose result is shipped: all drugs and twins, trained as in ``quick``; ensembles have
    two members, which keeps that run short.
    """
    drugs, twins, members = {"smoke": (1, 0, 1), "quick": (1, 0, 2), "paper": (None, None, 2)}[profile]
    profile = "quick" if profile == "paper" else profile
    genes = config.profile(profile).max_genes
    places = list(itertools.product(pseudo.drugs()[:drugs], ("lines", "pseudo-cells")))
    places += [(spec.name, "twin") for spec in config.TWINS[:twins]]
    tasks = []
    for name, kind in places:
        on: Pairs = (("kind", kind), ("max_genes", genes))
        for recipe, about in config.RECIPES.items():
            own = ("recipe", recipe), ("members", min(members, about.members))
            tasks.append(Task(name, "P", PLUS, profile, (*on, *own)))
        tasks += [Task(name, "P", model, profile, (*on, *_short(model, profile))) for model in REFERENCES]
    return tasks


def plus_score(data: str, profile: str) -> list[Task]:
    """Notebook 12: ATSDP-NET+ as chosen beside ATSDP-NET and the simple references, without target labels."""
    tasks = []
    for spec, model in itertools.product(
        config.datasets(data, nulls=False), (PLUS, ATSDP, BULK_ONLY, FURTHER, *REFERENCES_U)
    ):
        setting: Pairs = (("members", 2),) if model == PLUS and profile == "smoke" else _short(model, profile)
        few = model == PLUS and spec.tier != "real"  # a seed of PLUS is five trainings
        tasks += _unsupervised(spec, profile, model, setting)[: 2 if few else None]
    return tasks


def few_shot(data: str, profile: str) -> list[Task]:
    """Notebook 12: a few labelled cells a class; 0, and what ATSDP-NET+ needs, is :func:`plus_score`."""
    models = (ATSDP, *REFERENCES)
    return [t for spec in config.datasets(data, nulls=False) for model in models for t in _few(spec, profile, model)]


#: Models of notebook 16 that are trained by the grid; one is a candidate for ATSDP-NET+.
HELD_OUT: Settings = {
    "ATSDP-NET, bulk only": (BULK_ONLY, ()),
    "ATSDP-NET, further steps only": (FURTHER, ()),
    ATSDP: (ATSDP, ()),
    "ATSDP-NET, bulk only, no autoencoder": (BULK_ONLY, (("epochs_dae", 0),)),
    PLUS: (PLUS, ()),
    "DeepDR": ("DeepDR", ()),
    "gradient boosting": ("Boosting", ()),
}


def clusters(data: str, profile: str) -> list[Task]:
    """Notebook 16: networks and boosting on held-out clusters of lines, three seeds.

    But ATSDP-NET+, of two members here, and boosting have one seed.
    """
    tasks = []
    for seed, (drug, cluster) in itertools.product(range(3), pseudo.network_tasks(profile)):
        for model, own in HELD_OUT.values():
            if seed and (profile == "smoke" or model in (PLUS, "Boosting")):
                continue
            members: Pairs = (("members", 2),) if model == PLUS else ()
            setting = (("kind", f"lines:{cluster}"), *own, *members, *_short(model, profile))
            tasks.append(Task(drug, "P", model, profile, setting, seed))
    return tasks


def permuted(data: str, profile: str) -> list[Task]:
    """Notebook 16: models without labels of cells on the real sets, from lines with their labels and permuted ones."""
    models, null = (ATSDP, FURTHER, "Logistic", PC1), (("permute_lines", True),)
    return [
        task
        for spec, model in itertools.product(config.REAL, models)
        for own in ((), null)
        for task in _unsupervised(spec, profile, model, (*_short(model, profile), *own))
    ]


def held_out(task: Task) -> str:
    """Name of a task's model in notebook 16: of those that fit, the one that changes most."""
    fits = (name for name, (model, own) in HELD_OUT.items() if model == task.model and {*own} <= {*task.setting})
    return max(fits, key=lambda name: len(HELD_OUT[name][1]))


#: All lists, by the number of the notebook that shows them.
LISTS = {
    "03": (bulk, stopping), "04": (transfer,), "05": (table1, table3), "06": (heads,), "07": (table4,),
    "12": (ablation, variance, class_mix, plus_selection, plus_score, few_shot), "14": (peers,),
    "16": (clusters, permuted), "17": (strict, wells, stress), "18": (table4,),
}  # fmt: skip


def all_tables(data: str, profile: str, notebooks: Iterable[str] = LISTS) -> dict[str, list[Task]]:
    """Every table's list, by name; or those of some notebooks, by number."""
    return {f.__name__: f(data, profile) for f in dict.fromkeys(f for n in notebooks for f in LISTS.get(n, ()))}
