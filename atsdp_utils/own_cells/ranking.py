"""Several drugs, or all, for one file: which drugs' scores have most behind them, each with what is known of it.

The file is read once. Every finished drug is kept in the cache, so a run that was stopped goes on.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from atsdp_utils.data import gdsc, preprocess
from atsdp_utils.evaluation import stats
from atsdp_utils.foundation import cache, paths
from atsdp_utils.models import plus
from atsdp_utils.own_cells import company, drugs, predict, predict_report
from atsdp_utils.own_cells.readers import InputError

ALL = "all"
#: What stands in the place of a drug's name in the names of the files.
NAME = "drugs"
#: Columns of the table, and what they are.
COLUMNS = {
    "drug": "name in the table of labels",
    "held_out_auc": "AUC of the ensemble on labelled lines that no training saw",
    "ci_low": "lower limit of its 95 % interval (DeLong); the order of this table",
    "ci_high": "upper limit",
    "held_out_sensitive": "sensitive lines among these",
    "held_out_resistant": "resistant lines among these",
    "sensitive_lines": "sensitive lines that trained it",
    "resistant_lines": "resistant lines that trained it",
    "networks": "mean rank correlation of two networks over the cells",
    "same_label": "share of cells that all networks label alike",
    "logistic": "rank correlation of the score with a logistic regression trained on the same lines",
    "pc1": "rank correlation of the score with the cells' first principal component, turned to that regression",
    "company_random": "share of labels that change when random halves are standardised by themselves",
    "company_unlike": "share of labels that change when the two most unlike halves are",
    "share_sensitive": "share of the cells with a score that are called sensitive",
    "note": "why there is no score",
}

PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drugs for $input</title>
<style>$style body { max-width: 80rem; } td.number { text-align: right; }</style></head><body>
<h1>$drugs drugs for the cells of $input</h1>
<div class="warning"><strong>Before you use the ranking</strong><ul>
<li>Drugs are in the order of the lower limit of their AUC on held-out cell lines: how well lines predict the drug, not
how well the drug works on these cells.</li>
<li>The share called sensitive compares no two drugs. Genes are standardised over the cells of the file, so every file
has cells on both sides.</li>
<li>Nothing here says how good a score is on these cells. A few cells of known response would
(<code>atsdp predict --drug NAME --labels COLUMN</code>).</li>
<li>$tested intervals of 95 % are shown at once: some lie off by chance alone.</li>
$notes</ul></div>
<table><tr>$head</tr>
$rows
</table>
<h2>Columns</h2>
<table>$columns</table>
<h2>How it was made</h2>
<table>$facts</table>
<p>For research and teaching. Not a statement about a patient.</p>
</body></html>
""")


def find(names: Sequence[str]) -> list[str]:
    """Drugs by any of their names, each once, in the order given; ``all`` stands for every drug of the table.

    Raises
    ------
    InputError
        If a drug is not known.
    """
    if any(name.strip().lower() == ALL for name in names):
        return gdsc.drugs()
    return list(dict.fromkeys(drugs.find_drug(name) for name in names))


def rank(
    path: Path, names: Sequence[str], *, out: Path | None = None, report: Path | None = None, layer: str | None = None,
    values: str = "auto", species: str | None = None, seed: int = 0, settings: predict.Settings = predict.SETTINGS,
    say: Callable[[str], object] = print,
) -> pd.DataFrame:  # fmt: skip
    """Score the cells of a file for several drugs and write a table and a page, a row a drug.

    Parameters
    ----------
    names
        Drugs, as :func:`find` understands them.
    out, report
        Files to write; None: beside the input, ``<stem>.drugs.atsdp.csv``, and beside that, ``.html``.
    path, layer, values, species, seed, settings, say
        As of :func:`predict.predict`.

    Returns
    -------
    pandas.DataFrame
        The table, with :data:`COLUMNS`.

    Raises
    ------
    InputError
        If something is wrong with what was given; nothing is written then.
    """
    wanted = find(names)
    out, report = predict.destinations(path, NAME, out, report, ".csv")
    given = predict.prepare(path, layer, values, species, seed, settings, say)
    predict.check_output(given.file, out, settings.members)
    cells = _content(given)
    rows = []
    for drug in tqdm(wanted, "drugs", unit="drug", disable=None, ncols=78):
        rows.append(_kept(drug, given, cells, seed, settings))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("ci_low", ascending=False, kind="stable")
    table = table.reset_index(drop=True)
    facts = given.known | {"seed": seed, "members": settings.members}
    predict.publish({
        out: lambda part: table.to_csv(part, index=False, float_format="%.6g"),
        report: lambda part: part.write_text(render(table, facts, given.notes), encoding="utf-8"),
    })  # fmt: skip
    for note in given.notes:
        say(f"warning: {note}")
    say(shown(table).head(10).to_string(index=False))
    say("in the order of the lower limit of the AUC on held-out lines, which says nothing of these cells; share_"
        "sensitive compares no two drugs")  # fmt: skip
    say(f"written: {out}\nreport:  {report}")
    return table


def _content(given: predict.Ready) -> str:
    """Hash of the values of the cells and of what divides them."""
    Z = given.Z
    arrays = (Z.data, Z.indices, Z.indptr) if sparse.issparse(Z) else (Z,)
    return cache.key(*arrays, given.chosen, *(x for name, codes in given.parts.items() for x in (name, codes)))


def _kept(drug: str, given: predict.Ready, cells: str, seed: int, settings: predict.Settings) -> dict:
    """The row of a drug, from the cache if these cells were scored for it before."""
    source = gdsc.bulk_source(gdsc.load_bulk(drug), given.chosen, seed)
    model, code = predict.model_hash(source, given.seen, seed, settings), cache.code("ranking.row")
    file = paths.CACHE / "ranking" / f"{drug}-{cache.key(model, code, cells)}.json"
    if file.exists():
        return json.loads(file.read_text())
    found = row(drug, source, given, seed, settings)
    cache.write_text(file, json.dumps(found))
    return found


def row(drug: str, source: preprocess.Source, given: predict.Ready, seed: int, settings: predict.Settings) -> dict:
    """What is known of the scores for a drug, :data:`COLUMNS`; a note in their place where lines are too few."""
    try:
        lines = predict.training_lines(drug, source)
    except InputError as error:
        return {"drug": drug, "note": str(error).partition(": ")[2]}
    model, members = predict.learn(source, given, seed, settings)
    p = plus.expit(plus.logit(members).mean(0))
    alike, among = predict.agreement(members), predict.company_of(model, given, members, seed, settings)
    held = np.bincount(source.y[source.test_rows], minlength=2)
    found = {
        "drug": drug, "held_out_sensitive": held[1], "held_out_resistant": held[0], "sensitive_lines": lines[1],
        "resistant_lines": lines[0], "networks": alike["mean"], "same_label": alike["same"],
        "company_random": among[company.RANDOM]["labels_changed"],
        "company_unlike": among[company.UNLIKE]["labels_changed"], "share_sensitive": (p >= 0.5).mean(), "note": "",
    }  # fmt: skip
    found |= _held_out(model, source) | _references(source, given.seen, p[given.rows])
    return {
        k: v if isinstance(v, str) else (int(v) if isinstance(v, np.integer) else float(v)) for k, v in found.items()
    }


def _held_out(model: plus.ATSDPPlus, source: preprocess.Source) -> dict[str, float]:
    """AUC on held-out lines with its interval; of fewer than two lines of a class there is none."""
    y = source.y[source.test_rows]
    if np.bincount(y, minlength=2).min() < 2:
        return {"held_out_auc": predict.held_out_auc(model, source), "ci_low": np.nan, "ci_high": np.nan}
    auc, low, high = stats.auc_interval(y, plus.expit(model.line_logits(source.X[source.test_rows])))
    return {"held_out_auc": auc, "ci_low": low, "ci_high": high}


def _references(source: preprocess.Source, cells: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Spearman correlation of scores with those of the simple references, over the cells drawn."""
    from atsdp_utils.baselines.classical import Logistic
    from atsdp_utils.baselines.pc1 import PC1Sign

    how = {"C": plus.LINEAR_C, "class_weight": "balanced"}
    simple = {"logistic": Logistic(**how), "pc1": PC1Sign(**how)}
    found = {}
    for name, reference in simple.items():
        reference.fit(source.X[source.fit_rows], source.y[source.fit_rows])
        found[name] = pd.Series(p).corr(pd.Series(reference.predict_proba(cells)), "spearman")
    return found


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers as they are read."""
    wide = table.select_dtypes("number").columns
    whole = [c for c in wide if c.endswith(("_sensitive", "_resistant", "_lines")) and not c.startswith("share")]
    out = table.astype(object)
    for column in wide:
        form = "{:.0f}" if column in whole else "{:.2f}"
        out[column] = ["–" if pd.isna(v) else form.format(v) for v in table[column]]
    return out


def render(table: pd.DataFrame, facts: dict, notes: list[str]) -> str:
    """The page as text."""
    said = shown(table)
    rows = ("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in values) + "</tr>" for values in said.to_numpy())
    return PAGE.substitute(
        input=html.escape(str(facts["input"])), style=predict_report.STYLE, drugs=len(table),
        tested=int(table.ci_low.notna().sum()), notes="".join(f"<li>{html.escape(n)}</li>" for n in notes),
        head="".join(f"<th>{html.escape(c.replace('_', ' '))}</th>" for c in said), rows="\n".join(rows),
        columns=predict_report.as_rows(COLUMNS),
        facts=predict_report.as_rows({k.replace("_", " "): str(v) for k, v in facts.items()}),
    )  # fmt: skip
