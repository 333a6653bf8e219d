"""Every reported value and claim beside what a run found.

Whether a *claim* is supported and whether a *number* is reproduced are two questions. A rule turns tables into effects
with 95 % intervals, which :func:`~atsdp_utils.reporting.verdict.decide` compares with the claim's level and margin.

A claim about the paper's cells gets a verdict only from rows of tier ``geo``. What twins and the other real cells say
is in :mod:`atsdp_utils.reporting.findings`, in words of its own, so that no verdict can be mistaken for another.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.foundation import checksums, config, paths
from atsdp_utils.reporting import audit, rules, verdict
from atsdp_utils.reporting.outputs import Missing, Outputs
from atsdp_utils.reporting.verdict import Effect, Found, Untestable

#: Printed scores are reproduced to within this, the margin of the claims about AUC: about three standard errors of an
#: AUC of .85 (Hanley and McNeil 1982) on the 548 cells of DATA1.
MARGIN = 0.05
COLUMNS = ["id", "where", "claim", "made", "dataset", "metric", "quoted", "mean", "ci_low", "ci_high", "threshold",
           "margin", "tier", "protocol", "verdict", "reproduced", "by_reading", "note", "output", "page"]  # fmt: skip
#: What decides a claim, by scope: print is what the paper prints, real are embedded files and cells, public are
#: descriptions of files that nobody here opened, behind which no row of this run stands.
TIER_OF_CELLS = {"paper's cells": "geo", "real cells": "real", "public files": "real", "public descriptions": "public",
                 "contradicted": "public", "missing facts": "", "print": "print", "equations": "print",
                 "wording": "print"}  # fmt: skip
#: Scopes without a rule, and the verdict: public descriptions or equations say otherwise (`note` has the evidence),
#: nothing can decide, or something that no file of ours has (`note` says what).
WITHOUT_RULE = {"contradicted": verdict.FAILS, "equations": verdict.FAILS, "wording": verdict.ILL_POSED,
                "missing facts": verdict.UNTESTED}  # fmt: skip
NEEDS_CELLS = "needs the paper's own cells: DATA=geo"


def claims() -> pd.DataFrame:
    """The paper's claims, one row each: ``scope`` says what can decide it, ``readings`` what the paper leaves open."""
    return checksums.table("paper/claims.csv", dtype=str, keep_default_na=False)


def typed(claim) -> object:
    """The claim with its numbers as numbers: NaN where a margin or threshold is not needed, 0 where none is quoted."""
    values = {k: float(getattr(claim, k) or np.nan) for k in ("threshold", "margin")}
    return claim._replace(quoted=float(claim.quoted or 0), **values)


def judge_claim(out: Outputs, claim, cells_here: bool = True) -> Found:
    """What the tables say of one claim (a row of :func:`claims`), over all its readings; its cells may not be here."""
    c = typed(claim)
    try:
        rules.need_genes(c)
        if not cells_here:
            raise Untestable(NEEDS_CELLS)
        return verdict.agreed({reading: rules.find(out, c, reading) for reading in c.readings.split("|")})
    except Missing as gone:
        return Found(Effect(np.nan), verdict.MISSING, verdict.MISSING if c.quoted else "", str(gone))
    except Untestable as reason:
        return Found(Effect(np.nan), verdict.UNTESTED, verdict.NOT_TESTED if c.quoted else "", str(reason))


def judge(out: Outputs, data: str, asked: pd.DataFrame) -> pd.DataFrame:
    """Claims or printed values with their verdicts; those about the paper's cells get one from tier ``geo`` only."""
    rows = []
    for c in asked.itertuples():
        tier = TIER_OF_CELLS[c.scope]
        if c.scope in WITHOUT_RULE:
            found = Found(Effect(np.nan), WITHOUT_RULE[c.scope])
        elif c.scope == "paper's cells" and data != "geo":
            tier, found = "", judge_claim(out, c, cells_here=False)
        else:
            found = judge_claim(replace(out, tier=tier), c)
        word = "" if c.rule in VALUES else found.verdict
        note = "; ".join(filter(None, (found.note, c.note)))
        rows.append((c.id, c.section, c.claim, c.made, c.dataset, c.metrics, c.quoted, *found.effect[:3], c.threshold,
                     c.margin, tier, c.readings.replace("|", ", "), word, found.reproduced, found.by_reading, note,
                     c.output, c.page))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


#: Places of printed scores, whose rules bear their names, and the pages with the counterparts.
VALUES = {"Table 1": "nb-05", "Figure 2b": "nb-05", "Table 3": "nb-05", "Figure 3": "nb-06", "Table 4": "nb-07"}


def printed_values() -> pd.DataFrame:
    """Every printed score as a row of :func:`claims`: S and U (Figure 3: S) reproduce it to within :data:`MARGIN`."""
    mixed = audit.checked("not_one_averaging").query("flagged")[["where", "dataset", "model", "metric"]]
    mixed = set(mixed.itertuples(index=False, name=None))
    labels = {b.paper_name: b.label or name for name, b in REGISTRY.items()}
    rows = []
    for r in audit.reported().query("where in @VALUES").itertuples():
        name = "-".join([r.where, r.dataset, r.model, r.metric]).lower().replace(", ", "-").replace(" ", "")
        setting = {"Table 1": r.model.split(", ")[-1], "Figure 3": str(config.TABLE2[r.dataset].heads)}.get(r.where)
        note = "not with one averaging (ambiguity 26)" * ((r.where, r.dataset, r.model, r.metric) in mixed)
        rows.append({"id": name, "section": r.where, "claim": r.model, "made": "", "quoted": f"{r.value:g}",
                     "dataset": r.dataset, "scope": "paper's cells", "rule": r.where,
                     "argument": setting or labels.get(r.model, r.model), "metrics": r.metric,
                     "readings": "S" if r.where == "Figure 3" else "S|U", "threshold": f"{r.value:g}",
                     "margin": MARGIN, "output": rules.named_rule(r.where, "S").table, "page": VALUES[r.where],
                     "note": note})  # fmt: skip
    return pd.DataFrame(rows)


def scorecard(out: Outputs, data: str) -> pd.DataFrame:
    """Claims, then values; column ``kind`` tells them apart."""
    parts = (judge(out, data, claims()).assign(kind="claim"), judge(out, data, printed_values()).assign(kind="value"))
    return pd.concat(parts, ignore_index=True)[["kind", *COLUMNS]]


def chapter(page: str) -> str:
    """``05_cv_evaluation`` for ``nb-05``, from the name of its notebook."""
    return next((path.stem for path in paths.NOTEBOOKS.glob(f"{page[3:]}_*.ipynb")), page[3:])
