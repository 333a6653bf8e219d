"""Key of a task's result: what is trained, on which values and split, by which code, on which kind of device."""

import dataclasses

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.data import datasets, gdsc, twins
from atsdp_utils.experiments import inputs
from atsdp_utils.experiments.task import FURTHER, NETWORKS, NO_TRANSFER, PLUS, Task, budget, searched
from atsdp_utils.foundation import cache, config, runtime

#: Not followed from a protocol: what a key holds by value, and what only some tasks have and then name themselves.
CUT = (
    "experiments.keys.key", "experiments.inputs.cells_of", "data.twins.direction_lines",
    "models.atsdp.ATSDP", "models.atsdp.FurtherSteps", "models.plus.ATSDPPlus",
    "baselines.REGISTRY", "experiments.protocols.tuned",
    "experiments.pseudo.pseudo_cells", "experiments.pseudo.twin_cells",
)  # fmt: skip
_CLASSES = {
    PLUS: ["models.plus.ATSDPPlus"],
    FURTHER: ["models.atsdp.FurtherSteps", "models.atsdp.ATSDP"],  # from which it inherits, and which is cut
}
_CELLS_OF_KIND = {"pseudo-cells": "experiments.pseudo.pseudo_cells", "twin": "experiments.pseudo.twin_cells"}


def key(task: Task) -> str:
    """Twenty hex digits."""
    plain = dataclasses.asdict(task) | {"profile": None, "setting": _departures(task)}
    plain["seeds"] = sorted(pair for pair in task.seeds if pair[1] != task.seed)
    return cache.key(sorted(plain.items()), _sizes(task), _values(task), code_of(task), runtime.precision())


def code_of(task: Task) -> str:
    """Version of the code that a task's result depends on: its protocol, model and search."""
    roots = {f"experiments.protocols.{task.function}", *_model_code(task)}
    if task.protocol == "P" and _kind(task) in _CELLS_OF_KIND:
        roots.add(_CELLS_OF_KIND[_kind(task)])
    if task.options.get("tune"):
        roots.add("experiments.protocols.tuned")
    return cache.code(*sorted(roots), cut=CUT)


def _model_code(task: Task) -> list[str]:
    """Classes that a model is made of: its own, and that of the model whose search it shares."""
    if task.model in NETWORKS:
        return _CLASSES.get(task.model, ["models.atsdp.ATSDP"])
    names = {task.model, searched(task).name if task.options.get("tune") else task.model}
    return [f"baselines{REGISTRY[name].factory.replace(':', '.')}" for name in names]


def _sizes(task: Task) -> tuple:
    """Settings that a result depends on and that stand elsewhere than in its task."""
    if task.baseline:
        sizes = (task.sizes.max_genes, task.spec.balance, task.baseline.defaults | budget(task), task.baseline.balanced)
    else:
        sizes = (task.sizes.max_genes, task.architecture, task.training)
    if task.model == PLUS:
        sizes += (_recipe(task),)
    if task.options.get("tune"):
        entry = searched(task)
        sizes += (task.sizes.searched, entry.hyperparameters, entry.grid, entry.trial)
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
        return cache.key(*parts, datasets.cells_key(task.dataset), config.DATASETS[task.dataset].counting)
    if task.protocol in "BP":
        return cache.key(*parts, gdsc.bulk_key(task.dataset))
    cells = inputs.cells_of(task.dataset, task.profile)
    if "train_cultures" in task.options:
        parts.append(cells.group)
    elif task.protocol == "S" and task.folds:
        parts.append(inputs.splits(cells, task.folds, task.repeat))
    if inputs.library_size_only(task):
        return cache.key(*parts, inputs.labels(task), cells.library_size)
    if cells.tier == "simulated":
        parts.append(twins.direction_lines(cells.drug))
    drug = cells.drug if _reads_drug(task) else None
    return cache.key(*parts, inputs.labels(task), cells.key, gdsc.bulk_key(drug))


def _reads_drug(task: Task) -> bool:
    """Whether a task on cells may read which lines are sensitive; genes are chosen by the lines' expression alone."""
    if task.protocol == "U" or not task.baseline:
        return task.model != NO_TRANSFER
    return task.baseline.uses_source


def _departures(task: Task) -> tuple[tuple[str, object], ...]:
    """The setting without what is the default anyway, so that tables share the trainings that they have in common."""
    if task.protocol in "BP":
        return task.setting
    default = {"balance": task.spec.balance} | ({} if task.baseline else {"heads": task.spec.architecture.heads})
    return tuple(pair for pair in task.options.items() if pair[1] != default.get(pair[0], object()))
