"""Several drugs, or all, for one file, each with what is known of it; finished ones are kept in the cache."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from atsdp_utils.baselines.classical import Logistic, PC1Sign
from atsdp_utils.data import gdsc, preprocess
from atsdp_utils.foundation import cache, checksums, paths
from atsdp_utils.models import plus
from atsdp_utils.own_cells import drugs, output, page, predict, prediction
from atsdp_utils.own_cells.cellfile import InputError
from atsdp_utils.own_cells.prediction import agreement, pooled

#: Columns of the table, and what they are.
COLUMNS = checksums.table("ranking_columns.csv", index_col="column")["meaning"].to_dict()
#: Those that the command prints.
BRIEF = ["drug", "held_out_auc", "ci_low", "ci_high", "models", "company_unlike", "share_sensitive"]
#: Those that count lines.
WHOLE = ("held_out_sensitive", "held_out_resistant", "sensitive_lines", "resistant_lines")


def rank(
    path: Path, names: Sequence[str], *, out: Path | None = None, report: Path | None = None,
    say: Callable[[str], object] = print, **asked,
) -> pd.DataFrame:  # fmt: skip
    """Score the cells of a file for several drugs, or ``all``, and write a table and a page, a row a drug.

    Options are those of :func:`predict.prepare`; the table is by default ``<stem>.drugs.atsdp.csv`` beside the input.
    """
    wanted = drugs.find(names)
    out, report = output.destinations(path, "drugs", out, report, ".csv")
    if kept := sorted(_ranked(out) - set(wanted)):
        rows = f"holds rows of drugs that were not asked for ({', '.join(kept[:4])}), which are kept"
        raise InputError(f"--out {out}: {rows}. Ask for them too, or choose another name with --out.")
    given = predict.prepare(path, say, **asked)
    output.check_output(given.file, out, given.settings.members)
    arrays = (given.Z.data, given.Z.indices, given.Z.indptr) if sparse.issparse(given.Z) else (given.Z,)
    cells = cache.key(*arrays, given.chosen, *(x for name, codes in given.parts.items() for x in (name, codes)))
    rows = [_kept(drug, given, cells) for drug in tqdm(wanted, "drugs", **predict.BAR)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["clusters_auc"] = table["drug"].map(page.of_drugs()).astype(float)
    table = table.sort_values("ci_low", ascending=False, kind="stable", ignore_index=True)
    facts = given.known | {"seed": given.seed, "members": given.settings.members}
    shown = table.astype(object)
    for column in table.select_dtypes("number"):
        form = ("{:.0f}" if column in WHOLE else "{:.2f}").format
        shown[column] = ["–" if pd.isna(v) else form(v) for v in table[column]]
    page_text = page.TEMPLATES.get_template("ranking.html").render(
        facts=facts, notes=given.notes, columns=COLUMNS, rows=shown.to_numpy().tolist(),
        tested=int(table.ci_low.notna().sum()), made=page.made(facts), beside=page.held_out_clusters(),
    )  # fmt: skip

    def write(part: str) -> None:
        table.to_csv(part, index=False, float_format="%.6g")
        cache.write_text(report, page_text)

    cache.write_atomically(out, write)
    for note in given.notes:
        say(f"warning: {note}")
    say(shown[BRIEF].head(10).to_string(index=False))
    order = "in the order of the lower limit of the AUC on held-out lines, which says nothing of these cells"
    say(f"{order}; share_sensitive compares no two drugs")
    say(f"written: {out}\nreport:  {report}")
    return table


def _ranked(table: Path) -> set[str]:
    """Drugs of a table of an earlier run; none if there is no file."""
    with suppress(ValueError):
        found = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=list(COLUMNS))
        if {"drug", "held_out_auc", "ci_low"} <= {*found} <= {*COLUMNS}:  # of this version or one with fewer columns
            return set(found["drug"].astype(str))
    raise InputError(f"--out {table}: holds no table of this command, and is kept. Choose another name with --out.")


def _kept(drug: str, given: predict.Ready, cells: str) -> dict:
    """The row of a drug, from the cache if cells of this hash were scored for it before."""
    source = gdsc.bulk_source(gdsc.load_bulk(drug), given.chosen, given.seed)
    model = predict.model_hash(source, given.seen, given.seed, given.settings)
    file = paths.CACHE / "ranking" / f"{drug}-{cache.key(model, cache.code('own_cells.ranking.row'), cells)}.json"

    def write(part: str) -> None:
        Path(part).write_text(json.dumps(row(drug, source, given), default=np.generic.item))

    return cache.kept(file, lambda kept: json.loads(kept.read_text()), write)


def row(drug: str, source: preprocess.Source, given: predict.Ready) -> dict:
    """What is known of the scores for a drug, :data:`COLUMNS`; a note in their place where lines are too few."""
    try:
        found = predict.learn(drug, source, given, lambda line: None)
    except InputError as error:
        return {"drug": drug, "note": str(error).partition(": ")[2]}
    return known_of(drug, source, given, found)


def known_of(drug: str, source: preprocess.Source, given: predict.Ready, found: predict.Learned) -> dict:
    """The row of a drug whose models were learned from `source`."""
    p, alike = pooled(found.members), agreement(found.members)
    held = found.model.line_logits(source.X[source.test_rows])
    low, high = prediction.auc_limits(source.y[source.test_rows], plus.expit(held))
    signed = PC1Sign(C=plus.LINEAR_C, class_weight="balanced")
    signed.fit(source.X[source.fit_rows], source.y[source.fit_rows])
    drawn = pd.Series(p[given.rows])  # simple scores are compared over the cells drawn
    alone = {way: of["labels_changed"] for way, of in found.company.items()}  # of few cells nothing can be told
    by = {"logistic": Logistic.predict_proba(signed, given.seen), "pc1": signed.predict_proba(given.seen)}
    return {
        "drug": drug, "held_out_auc": found.auc, "ci_low": low, "ci_high": high,
        "held_out_sensitive": found.held[1], "held_out_resistant": found.held[0],
        "sensitive_lines": found.lines[1], "resistant_lines": found.lines[0],
        "models": alike["mean"], "same_label": alike["same"],
        "company_random": alone.get(prediction.RANDOM, np.nan),
        "company_unlike": alone.get(prediction.UNLIKE, np.nan),
        "share_sensitive": (p >= 0.5).mean(),
        "note": "; ".join(prediction.doubts(found.lines, found.auc, found.members, p)),
    } | {name: drawn.corr(pd.Series(scores), "spearman") for name, scores in by.items()}  # fmt: skip
