"""What a run shows besides the paper's claims: twins with a known truth, the other real cells, the ledger's choices.

The words of :func:`twin_checks` (:data:`TWIN_WORDS`) say something about this pipeline and nothing about the paper.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby, product

import numpy as np
import pandas as pd

from atsdp_utils.data import twins
from atsdp_utils.foundation import checksums, config
from atsdp_utils.reporting.outputs import Missing, Outputs, numbers
from atsdp_utils.reporting.verdict import MISSING

TWIN_WORDS = ("recovered", "unclear", "silent", "false alarm", MISSING)
ANSWERS = ("yes", "no", "open", "mixed", MISSING)


def _asked(file: str, sets: dict[str, Sequence[config.Dataset]]) -> Iterator[tuple]:
    """Rows of a file of ``data/paper``, each with the data sets that it names, in a word of `sets` or each."""
    rows = checksums.table(f"paper/{file}", dtype=str, keep_default_na=False).itertuples()
    for word, part in groupby(rows, key=lambda row: row.datasets):
        names = [spec.name for spec in sets[word]] if word in sets else word.split("|")
        yield from product(names, list(part))


def first(out: Outputs, table: str, rows: str, columns: str, **names) -> list[float]:
    """Columns of the first row that `rows` names; its names may be a data set's, and the heads of its network."""
    known = config.DATASETS.get(names["dataset"])
    heads = known.architecture.heads if known else ""
    return numbers(out.named(table, rows, heads=heads, **names).iloc[:1], columns)[0]


def estimate(out: Outputs, *asked: str, **names) -> tuple[list[float], bool]:
    """Mean and limits, and whether all three were computed."""
    found = [np.nan] * 3
    with suppress(Missing):
        found = first(out, *asked, **names)
    return found, bool(np.isfinite(found).all())


def twin_checks(out: Outputs) -> pd.DataFrame:
    """Whether the pipeline finds what was planted, and nothing where nothing was: a row a question and twin.

    ``nothing`` is the value where there is nothing to find, ``outcome`` one of :data:`TWIN_WORDS`.
    """
    sets = {"twins": config.TWINS, "nulls": config.NULLS, "planted": config.TWINS[:1], "real": ()}
    rows = []
    for d, q in _asked("questions.csv", sets):
        (mean, low, high), computed = estimate(out, q.table, q.rows, q.columns, dataset=d, protocol=q.protocol)
        nothing = float(q.nothing)
        if config.DATASETS[d].null:
            outcome = "silent" if low <= nothing <= high else "false alarm"
        else:
            outcome = "recovered" if low > nothing else "unclear"
        rows.append((q.question, d, "simulated", q.protocol, q.quantity, mean, low, high, nothing,
                     outcome if computed else MISSING, q.page))  # fmt: skip
    names = "question dataset tier protocol quantity mean ci_low ci_high nothing outcome page"
    return pd.DataFrame(rows, columns=names.split())


def planted_said(out: Outputs) -> str:
    """How much of what was planted could be found at all, and who set its strength, as text."""
    said = "the strength of every signal was set here"
    with suppress(Missing):
        ranked = int(out.one("planted_gene_recovery", ranking="IG, mean size", dataset="DATA1-sim").planted)
        planted = 2 * twins.DESIGNS["DATA1"].key_genes  # so many a list
        said += f", and {ranked} of {planted} planted key genes of DATA1 are among the network's inputs"
    return said


def real_findings(out: Outputs) -> pd.DataFrame:
    """Questions that the embedded real cells can answer, one row a question and set.

    Yes or no where 0 is outside, and where Holm's correction for all that was asked with it agrees.
    """
    rows = []
    for d, q in ((d, q) for d, q in _asked("questions.csv", {"real": config.REAL}) if q.datasets == "real"):
        (mean, low, high), computed = estimate(out, q.table, q.rows, q.columns, dataset=d, protocol=q.protocol)
        answer = ("yes" if low > 0 else "no" if high < 0 else "open") if computed else MISSING
        if computed and "p_holm" in out.read(q.table):
            (p_holm,) = first(out, q.table, q.rows, "p_holm", dataset=d, protocol=q.protocol)
            answer = answer if p_holm < 0.05 else "open"
        spec = config.DATASETS[d]
        rows.append((q.question, d, spec.label, spec.unit, "real", q.protocol, q.quantity, mean, low, high, answer,
                     q.page))  # fmt: skip
    names = "question dataset label unit tier protocol quantity mean ci_low ci_high answer page".split()
    return pd.DataFrame(rows, columns=names).sort_values("question", kind="stable", ignore_index=True)


def by_unit(real: pd.DataFrame) -> pd.DataFrame:
    """One answer a question and unit: that of all its names, or ``mixed`` where they differ."""
    answers = real.groupby(["question", "label", "unit"], sort=False)["answer"].unique()
    return answers.map(lambda found: found[0] if len(found) == 1 else "mixed").reset_index()


def ledger_numbers(out: Outputs, data: str) -> pd.DataFrame:
    """For each ambiguity with a number in this run: the value under the reading taken and under the alternative."""
    sets = {"each": config.datasets(data, nulls=False), "real": config.REAL, "printed": config.GEO}
    sets |= {f"like {paper}": [config.stand_in(paper, data)] for paper in config.TABLE2}
    sets["like DATA1|like DATA2"] = sets["like DATA1"] + sets["like DATA2"]
    rows = []
    for d, q in _asked("ledger.csv", sets):
        sides = zip((q.taken, q.other), (q.values.split(";") * 2)[:2], strict=True)
        a = b = np.nan
        with suppress(Missing):
            a, b = (first(out, q.table, f"{q.rows};{side}".strip(";"), column, dataset=d)[0] for side, column in sides)
        known, note = config.DATASETS.get(d), "" if np.isfinite(a) else MISSING
        tier, taken = q.tier or (known.tier if known else "real"), q.reading_taken
        if known:
            taken = taken.format(heads=known.architecture.heads)
        rows.append((int(q.ambiguity), q.measure, d, tier, taken, a, q.alternative, b, b - a, note))
    columns = ["ambiguity", "measure", "dataset", "tier", "reading_taken", "mean", "alternative", "alternative_mean"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "note"])
