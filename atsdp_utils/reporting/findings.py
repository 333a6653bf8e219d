"""What a run shows besides the paper's claims: twins with a known truth, the other real cells, the ledger's choices.

The words of :func:`twin_checks` (:data:`TWIN_WORDS`) say something about this pipeline and nothing about the paper.
Run ``python -m atsdp_utils.reporting.findings readme`` to write the results of the reference run into ``README.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import audit
from atsdp_utils.reporting.scorecard import MISSING, OURS, VERDICTS, Missing, Outputs, scorecard

TWIN_WORDS = ("recovered", "unclear", "silent", "false alarm", MISSING)
ANSWERS = ("yes", "no", "open", "mixed", MISSING)
REFERENCE = paths.ROOT / "figures" / "embedded-quick"
README = paths.ROOT / "README.md"
BEGIN, END = "<!-- results: python -m atsdp_utils.reporting.findings readme -->", "<!-- end of results -->"
Value = tuple[float, float, float]  # mean, low, high


def _score(out: Outputs, dataset: str, protocol: str, model: str = OURS) -> Value:
    r = out.one("table3", dataset=dataset, model=model, setting="", protocol=protocol, metric="auc")
    return r["mean"], r.ci_low, r.ci_high


def _attempt(read: Callable[[], Value]) -> tuple[Value, str]:
    try:
        value = tuple(float(v) for v in read())
        return value, "" if np.isfinite(value).all() else MISSING
    except Missing:
        return (np.nan,) * 3, MISSING


def twin_checks(out: Outputs) -> pd.DataFrame:
    """Ask whether the pipeline finds what was planted, and nothing where nothing was.

    Returns
    -------
    DataFrame
        ``question, dataset, tier, protocol, quantity, mean, ci_low, ci_high, nothing`` (the value where there is
        nothing to find), ``outcome`` (one of :data:`TWIN_WORDS`) and ``page``.
    """
    rows = []

    def add(question, dataset, protocol, quantity, nothing, planted, page, read):
        (mean, low, high), outcome = _attempt(read)
        if not outcome and planted:
            outcome = "recovered" if low > nothing else "unclear"
        elif not outcome:
            outcome = "silent" if low <= nothing <= high else "false alarm"
        rows.append((question, dataset, "simulated", protocol, quantity, mean, low, high, nothing, outcome, page))

    for spec in (*config.TWINS, *config.NULLS):
        for protocol, how in (("S", "with labels"), ("U", "without labels")):
            what = f"Response signal, {how}" if not spec.null else f"No signal, {how}"
            # Seeds of one twin share its cells; null_controls resamples the cells too, so that intervals are honest.
            read = lambda d=spec.name, p=protocol: _score(out, d, p)  # noqa: E731
            if spec.null:
                read = lambda d=spec.name, p=protocol: _null(out, d, p)  # noqa: E731
            add(what, spec.name, protocol, "AUC", 0.5, not spec.null, "nb-05", read)
    genes = "Planted key genes that could be ranked"
    add(genes, "DATA1-sim", "S", "AUROC of the ranking", 0.5, True, "nb-09", lambda: _genes(out))
    add("Planted progress", "DATA1-sim", "S", "Spearman ρ of pseudotime", 0.0, True, "nb-10", lambda: _progress(out))
    columns = ["question", "dataset", "tier", "protocol", "quantity", "mean", "ci_low", "ci_high", "nothing"]
    return pd.DataFrame(rows, columns=[*columns, "outcome", "page"])


def planted_said(out: Outputs) -> str:
    """How much of what was planted could be found at all, and who set its strength, as text."""
    from atsdp_utils.data import twins

    said = "the strength of every signal was set here"
    try:
        ranked = int(out.one("planted_gene_recovery", ranking="IG, mean size", dataset="DATA1-sim").planted)
    except Missing:
        return said
    planted = 2 * twins.DESIGNS["DATA1"].key_genes  # so many a list
    return f"{said}, and of {planted} planted key genes {ranked} could be ranked, as the network reads no other"


def _null(out: Outputs, dataset: str, protocol: str) -> Value:
    r = out.one("null_controls", dataset=dataset, model=OURS, protocol=protocol)
    return r["mean"], r.ci_low, r.ci_high


def _genes(out: Outputs) -> Value:
    r = out.one("planted_gene_recovery", ranking="IG, mean size", dataset="DATA1-sim")
    return r.auroc, r.low, r.high


def _progress(out: Outputs) -> Value:
    r = out.one("pseudotime_correlations", root="without labels", tier="simulated", **{"with": "planted progress"})
    return r.rho, r.ci_low, r.ci_high


def _tested(out: Outputs, name: str, sign: int, **where) -> Value:
    r = out.one(name, **where)
    return sign * r.difference, *sorted((sign * r.ci_low, sign * r.ci_high))


def real_findings(out: Outputs) -> pd.DataFrame:
    """Questions that the embedded real cells can answer, one row a question and set; yes or no where 0 is outside.

    Two sets that are one axis under two names are two rows with one `unit`; :func:`by_unit` counts them once.
    """
    rows = []
    for spec in config.REAL:
        d = spec.name
        heads = str(spec.architecture.heads)
        questions = (
            ("Does transfer without labels beat a coin toss?", "U", "AUC - 0.5", "nb-05",
             lambda d=d: np.subtract(_score(out, d, "U"), 0.5)),
            *((question, "U", "difference of AUC", "nb-04",
               lambda d=d, s=setting: _tested(out, "transfer_changes", -1, dataset=d, setting=s))
              for question, setting in (
                  ("Does transfer improve on the bulk model?", "before transfer"),
                  ("Does the MMD term help?", "after transfer, no MMD"),
                  ("Is transfer better than logistic regression on bulk?", "logistic regression"),
                  ("Is transfer better than PC1 with the sign of a bulk model?", "PC1, bulk sign"),
                  ("Is a start from the bulk encoder better than a separate one?", "after transfer, separate start"))),
            ("Is the network better than PCA + SVM?", "S", "difference of AUC", "nb-07",
             lambda d=d: _tested(out, "baselines_against_atsdp", -1, dataset=d, model="PCA+SVM", protocol="S")),
            ("Does attention help?", "S", "difference of AUC", "nb-06",
             lambda d=d, h=heads: _tested(out, "heads_tests", 1, dataset=d, setting=h, metric="auc")),
        )  # fmt: skip
        for question, protocol, quantity, page, read in questions:
            (mean, low, high), answer = _attempt(read)
            answer = answer or ("yes" if low > 0 else "no" if high < 0 else "open")
            rows.append((question, d, spec.label, spec.unit, "real", protocol, quantity, mean, low, high, answer, page))
    names = "question dataset label unit tier protocol quantity mean ci_low ci_high answer page".split()
    return pd.DataFrame(rows, columns=names).sort_values("question", kind="stable", ignore_index=True)


def by_unit(real: pd.DataFrame) -> pd.DataFrame:
    """One answer a question and unit: that of all its names, or ``mixed`` where they differ."""
    answers = real.groupby(["question", "label", "unit"], sort=False)["answer"].unique()
    return answers.map(lambda found: found[0] if len(found) == 1 else "mixed").reset_index()


# --- how much a reading of the ledger matters -------------------------------------------------------------------------


def _ledger_rows(
    out: Outputs, data: str
) -> Iterator[tuple[int, str, str, str, str, Callable[[], tuple[float, float]]]]:
    """(ambiguity, measure, dataset, reading taken, alternative, values of both)."""
    sets = [s.name for s in config.datasets(data, nulls=False)]
    stand_in = {p: config.stand_in(p, data).name for p in config.TABLE2}

    def auc(table, d, protocol="S", **where):
        return out.one(table, dataset=d, metric="auc", protocol=protocol, **where)["mean"]

    def after(d, setting):  # both over the seeds that they share
        return tuple(out.one("transfer_changes", dataset=d, setting=setting)[["reference_mean", "mean"]])

    for d in sets:
        yield (
            1,
            "AUC",
            d,
            "U, no labels",
            "S, with labels",
            lambda d=d: (_score(out, d, "U")[0], _score(out, d, "S")[0]),
        )
    d3 = stand_in["DATA3"]
    yield 2, "AUC", d3, "oversampling", "SMOTE", lambda: tuple(
        auc("table1", d3, setting=s) for s in ("oversampling", "smote"))  # fmt: skip
    for (d, counting), (sensitive, resistant) in audit.CLASS_SIZES.items():
        if counting == "labelled cells":
            yield 3, "cells", d, "resistant", "sensitive", lambda a=resistant, b=sensitive: (a, b)
    paper = audit.reported().query("metric == 'auc' and model == 'ATSDP-NET'").set_index(["where", "dataset"])["value"]
    for d in config.TABLE2:
        yield 6, "printed AUC", d, "Table 3", "Table 4", lambda d=d: (paper["Table 3", d], paper["Table 4", d])
    for name in ("sensitive", "resistant"):
        yield 7, f"{name} gene scores", stand_in["DATA4"], "r", "r²", lambda n=name: tuple(
            out.one("gene_score_correlations", list=n)[["r", "r2"]])  # fmt: skip
    for d in sets:
        h = config.DATASETS[d].architecture.heads
        yield 8, "AUC", d, "no attention", "linear layer", lambda d=d: tuple(
            auc("ablation_heads", d, setting=s) for s in ("0", "linear"))  # fmt: skip
        yield 9, "AUC", d, f"tokens, {h} heads", "no attention", lambda d=d, h=h: tuple(
            auc("ablation_heads", d, setting=s) for s in (str(h), "0"))  # fmt: skip
    yield 9, "shift of P by batch mates", "A375-PLX4720", "tokens", "batch as sequence", lambda: tuple(
        out.one("attention_readings", reading=r).moved_by_mates for r in ("tokens", "batch"))  # fmt: skip
    for d in sets:
        yield 13, "AUC", d, "MMD²", "no MMD", lambda d=d: after(d, "after transfer, no MMD")
    for spec in config.REAL:
        yield 14, "AUC", spec.name, "regulariser", "regulariser without gradient", lambda d=spec.name: _paired(
            out.one("plus_ablation", dataset=d, setting="no cluster regulariser"))  # fmt: skip
    yield 19, "cells", "DATA4", "with a label", "all wells", lambda: tuple(
        sum(audit.CLASS_SIZES["DATA4", k]) for k in ("labelled cells", "all 1,419 wells"))  # fmt: skip
    for protocol in "SU":
        yield 19, f"AUC under {protocol}", stand_in["DATA4"], "labelled cells", "all wells", lambda q=protocol: tuple(
            auc("all_wells", stand_in["DATA4"], q, setting=s) for s in ("labelled cells", "all wells"))  # fmt: skip
    for p in ("DATA1", "DATA2"):
        yield 20, "AUC", stand_in[p], "holiday cells sensitive", "left out", lambda d=stand_in[p]: tuple(
            auc("holiday_cells", d, setting=s) for s in ("counted as sensitive", "left out"))  # fmt: skip
    for d in sets:
        yield 21, "AUC", d, "shared genes", "own genes, separate start", lambda d=d: after(
            d, "after transfer, separate start")  # fmt: skip
    confounded = "AUC of the database alone"
    for drug in ("DOCETAXEL", "CISPLATIN", "I.BET.762"):
        yield 23, confounded, drug, "GDSC only", "GDSC and CCLE", lambda drug=drug: (
            0.5, out.one("database_confounding", drug=drug)[confounded])  # fmt: skip
    yield 30, "Spearman ρ with P(resistant)", stand_in["DATA1"], "label-free root", "root from labels", lambda: tuple(
        out.one("pseudotime_correlations", root=r, **{"with": "P(resistant)"}).rho
        for r in ("without labels", "from labels"))  # fmt: skip


def _paired(row: pd.Series) -> tuple[float, float]:
    """Mean of the method as it is, over the seeds that it shares with a changed one, and mean of the changed one."""
    return row["mean"] - row.difference, row["mean"]


def ledger_numbers(out: Outputs, data: str) -> pd.DataFrame:
    """For each ambiguity with a number in this run: the value under the reading taken and under the alternative."""
    rows = []
    for number, measure, dataset, taken, alternative, read in _ledger_rows(out, data):
        try:
            a, b = (float(v) for v in read())
        except Missing:
            a = b = np.nan
        known = config.DATASETS.get(dataset)
        if measure == "cells":
            tier = "public"
        elif number == 6:
            tier = "print"
        else:
            tier = known.tier if known else "real"
        note = "" if np.isfinite(a) else MISSING
        rows.append((number, measure, dataset, tier, taken, a, alternative, b, b - a, note))
    columns = ["ambiguity", "measure", "dataset", "tier", "reading_taken", "mean", "alternative", "alternative_mean"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "note"])


# --- README -----------------------------------------------------------------------------------------------------------


def counted(values: pd.Series, words: tuple[str, ...]) -> str:
    """How often each word occurs, in the order of `words`, as text."""
    return ", ".join(f"{n} {word}" for word in words if (n := int((values == word).sum())))


def readme_block(out: Outputs) -> str:
    """Results at a glance, as Markdown, from the tables of the reference run."""
    if not (out.folder / "table3.csv").exists():
        return "*The reference run is not committed yet; `make reproduce` prints the results.*"
    card, twins, real = scorecard(out, "embedded"), twin_checks(out), real_findings(out)
    overview, _ = audit.run()
    picture = "figures/embedded-quick/transfer_real.png"
    lines = [
        f"![Three panels of real cells, one a data set, with seven groups of dots each: {_seven(out)}. A dot is the "
        f"AUC of one seed, a bar the median of a group.]({picture})",
        "",
        f"AUC of every seed on real cells, predicted without a label of any cell: {config.units(config.REAL)}. Below, "
        "real and simulated cells in numbers, with an interval over seeds (U) or folds (S). PC1 is the first principal "
        "component of the cells, with the sign that a logistic regression on bulk lines gives it; it depends on no "
        "seed, so no interval over seeds is shown for it.",
        "",
    ]
    lines += ["| cells | tier | AUC without labels (U) | PC1, bulk sign (U) | AUC with labels (S) |", "|---" * 5 + "|"]
    for spec in config.datasets("embedded", nulls=False):
        asked = (("U", OURS), ("U", "PC1, bulk sign"), ("S", OURS))
        found = [_attempt(lambda d=spec.name, how=how: _score(out, d, *how)) for how in asked]
        text = [note or f"{m:.2f} ({low:.2f}–{high:.2f})" for (m, low, high), note in found]
        text[1] = found[1][1] or f"{found[1][0][0]:.2f}"
        lines.append(f"| `{spec.name}` | {'**simulated**' if spec.simulated else spec.tier} | {' | '.join(text)} |")
    f1 = overview.set_index("check").loc["not_one_averaging"]
    claims, values = card[card["kind"] == "claim"], card[card["kind"] == "value"]
    lines += [
        "",
        _circular(out),
        "",
        f"- **The paper's claims**: {claims_said(claims)}. Those about the paper's own cells need them (`DATA=geo`).",
        f"- **Its printed numbers**: Table 4 seems to compare unlike measures: {audit.table4_said()}. That is a "
        f"reading that fits, not a proof. {f1.flagged} of {f1.examined} printed rows have an F1 that is not of one "
        f"averaging with its precision and recall (Table 1 and Figure 3 included); {len(overview)} checks in all. "
        f"{values['mean'].notna().sum()} of {len(values)} printed scores have a counterpart in this run; they need the "
        "paper's own cells.",
        *(
            f"- **Real cells, {what}**, {len(part)} questions: {counted(part['answer'], ANSWERS)}."
            for what, part in answers(real)
        ),
        f"- **Simulated twins**, about this pipeline and not about the paper: {counted(twins['outcome'], TWIN_WORDS)}; "
        f"{planted_said(out)}.",
    ]
    return "\n".join(lines)


def claims_said(claims: pd.DataFrame) -> str:
    """Verdicts on claims made in so many words and on implied ones, counted apart, as text."""
    parts = claims.groupby("made", sort=False)["verdict"]
    words = ((made, found) for made, found in sorted(parts, reverse=True))
    return "; ".join(f"{len(found)} made {made} ({counted(found, VERDICTS)})".replace("made implied", "implied")
                     for made, found in words)  # fmt: skip


def _seven(out: Outputs) -> str:
    """The groups of the figure of transfer on real cells, with their numbers of seeds, as text."""
    try:
        rows = out.table("transfer", dataset=config.REAL[0].name)
    except Missing:
        return MISSING
    seeds = sorted(rows["auc_count"].astype(int).unique())
    return f"{'; '.join(rows['setting'])}; each of {' or '.join(map(str, seeds))} seeds"


def _circular(out: Outputs) -> str:
    """Why the column with labels says little of SCC47, as text."""
    try:
        auc = f"with an AUC of {out.one('scc47_label', dataset='SCC47-afatinib', score='EpiSen').auc:.3f}"
    except Missing:
        auc = f"({MISSING})"
    return (
        "SCC47 under S is circular: its label is an end of the EpiSen score, and the EpiSen genes that are measured, "
        f"without any model, tell the classes apart {auc}."
    )


def answers(real: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What each unit is, in words, and its answers."""
    for unit, part in by_unit(real).groupby("unit", sort=False):
        yield config.units([spec for spec in config.REAL if spec.unit == unit]), part


def with_block(text: str, block: str) -> str:
    """`text` with what stands between the two marks replaced by `block`.

    Raises
    ------
    ValueError
        If the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: expected the lines {BEGIN!r} and {END!r}, in this order")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Command line: ``readme`` rewrites the block of results in README.md from ``figures/embedded-quick``."""
    if arguments != ["readme"]:
        print("usage: python -m atsdp_utils.reporting.findings readme", file=sys.stderr)
        return 2
    README.write_text(with_block(README.read_text(), readme_block(Outputs(REFERENCE))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
