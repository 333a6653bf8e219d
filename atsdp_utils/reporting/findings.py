"""What a run shows besides the paper's claims: twins with a known truth, the other real cells, the ledger's choices.

The words of :func:`twin_checks` (:data:`TWIN_WORDS`) say something about this pipeline and nothing about the paper.
Run ``python -m atsdp_utils.reporting.findings readme`` to write the results of the reference run into ``README.md``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.data import twins
from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import audit, found, report
from atsdp_utils.reporting.outputs import Missing, Outputs, numbers
from atsdp_utils.reporting.scorecard import chapter, scorecard
from atsdp_utils.reporting.verdict import MISSING, VERDICTS

TWIN_WORDS = ("recovered", "unclear", "silent", "false alarm", MISSING)
ANSWERS = ("yes", "no", "open", "mixed", MISSING)
README, TEMPLATE = paths.ROOT / "README.md", Path(__file__).with_name("readme.md")
#: What opens and closes the two parts of the README that are written from a run.
RESULTS = "<!-- results: python -m atsdp_utils.reporting.findings readme -->", "<!-- end of results -->"
MADE = "<!-- made: python -m atsdp_utils.reporting.findings readme -->", "<!-- end of made -->"
SCORE = "dataset={dataset};model={model};setting=;protocol={protocol};metric=auc"


def _asked(file: str, sets: dict[str, Sequence[config.Dataset]]) -> Iterator[tuple]:
    """Rows of a file of ``data/paper``, each with the data sets that it names, in a word of `sets` or each."""
    rows = pd.read_csv(paths.PAPER / file, dtype=str, keep_default_na=False).itertuples()
    for word, part in groupby(rows, key=lambda row: row.datasets):
        names = [spec.name for spec in sets[word]] if word in sets else word.split("|")
        yield from product(names, list(part))


def _first(out: Outputs, table: str, rows: str, columns: str, **names) -> list[float]:
    """Columns of the first row that `rows` names; its names may be a data set's, and the heads of its network."""
    known = config.DATASETS.get(names["dataset"])
    heads = known.architecture.heads if known else ""
    return numbers(out.named(table, rows, heads=heads, **names).iloc[:1], columns)[0]


def _interval(out: Outputs, *asked: str, **names) -> tuple[list[float], bool]:
    """Mean and limits, and whether all three were computed."""
    found = [np.nan] * 3
    with suppress(Missing):
        found = _first(out, *asked, **names)
    return found, bool(np.isfinite(found).all())


def twin_checks(out: Outputs) -> pd.DataFrame:
    """Whether the pipeline finds what was planted, and nothing where nothing was: a row a question and twin.

    ``nothing`` is the value where there is nothing to find, ``outcome`` one of :data:`TWIN_WORDS`.
    """
    sets = {"twins": config.TWINS, "nulls": config.NULLS, "planted": config.TWINS[:1], "real": ()}
    rows = []
    for d, q in _asked("questions.csv", sets):
        (mean, low, high), computed = _interval(out, q.table, q.rows, q.columns, dataset=d, protocol=q.protocol)
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
    try:
        ranked = int(out.one("planted_gene_recovery", ranking="IG, mean size", dataset="DATA1-sim").planted)
    except Missing:
        return said
    planted = 2 * twins.DESIGNS["DATA1"].key_genes  # so many a list
    unread = "" if ranked == planted else ", as the network reads no other"
    return f"{said}, and of {planted} planted key genes {ranked} could be ranked{unread}"


def real_findings(out: Outputs) -> pd.DataFrame:
    """Questions that the embedded real cells can answer, one row a question and set.

    Yes or no where 0 is outside, and where Holm's correction for all that was asked with it agrees.
    """
    rows = []
    for d, q in ((d, q) for d, q in _asked("questions.csv", {"real": config.REAL}) if q.datasets == "real"):
        (mean, low, high), computed = _interval(out, q.table, q.rows, q.columns, dataset=d, protocol=q.protocol)
        answer = ("yes" if low > 0 else "no" if high < 0 else "open") if computed else MISSING
        if computed and "p_holm" in out.read(q.table):
            (p_holm,) = _first(out, q.table, q.rows, "p_holm", dataset=d, protocol=q.protocol)
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
            a, b = (_first(out, q.table, f"{q.rows};{side}".strip(";"), column, dataset=d)[0] for side, column in sides)
        known, note = config.DATASETS.get(d), "" if np.isfinite(a) else MISSING
        tier, taken = q.tier or (known.tier if known else "real"), q.reading_taken
        if known:
            taken = taken.format(heads=known.architecture.heads)
        rows.append((int(q.ambiguity), q.measure, d, tier, taken, a, q.alternative, b, b - a, note))
    columns = ["ambiguity", "measure", "dataset", "tier", "reading_taken", "mean", "alternative", "alternative_mean"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "note"])


# --- README -----------------------------------------------------------------------------------------------------------


def counted(values: pd.Series, words: tuple[str, ...]) -> str:
    """How often each word occurs, in the order of `words`, as text."""
    return ", ".join(f"{n} {word}" for word in words if (n := int((values == word).sum())))


def claims_said(claims: pd.DataFrame) -> str:
    """Verdicts on claims made in so many words and on implied ones, counted apart, as text."""
    parts = sorted(claims.groupby("made")["verdict"], reverse=True)
    said = (f"{len(found)} made {made} ({counted(found, VERDICTS)})" for made, found in parts)
    return "; ".join(said).replace("made implied", "implied")


def _scores(out: Outputs) -> Iterator[str]:
    """Rows of the README's table: AUC of ATSDP-NET without and with labels, and of the first component."""
    for spec in config.datasets("embedded", nulls=False):
        cells = [f"`{spec.name}`", "**simulated**" if spec.simulated else spec.tier]
        for protocol, model in (("U", "ATSDP-NET"), ("U", "PC1, bulk sign"), ("S", "ATSDP-NET")):
            names = {"dataset": spec.name, "protocol": protocol, "model": model}
            (mean, low, high), computed = _interval(out, "table3", SCORE, "mean;ci_low;ci_high", **names)
            text = f"{mean:.2f}" + f" ({low:.2f}–{high:.2f})" * (model == "ATSDP-NET")
            if computed and spec.tier == "real" and protocol == "U" and "right" in out.read("table3"):
                text += f"; {_first(out, 'table3', SCORE, 'right', **names)[0]:.0%} right"
            cells.append(text if computed else MISSING)
        yield f"| {' | '.join(cells)} |"


def readme_block(out: Outputs) -> str:
    """Results at a glance, as Markdown, from the tables of the reference run and a template."""
    if not (out.folder / "table3.csv").exists():
        return "*The reference run is not committed yet; `make reproduce` prints the results.*"
    card, checks = scorecard(out, "embedded"), audit.run()[0].set_index("check")
    claims, values = card[card["kind"] == "claim"], card[card["kind"] == "value"]
    real = []
    for unit, part in by_unit(real_findings(out)).groupby("unit", sort=False):
        what = config.units([spec for spec in config.REAL if spec.unit == unit])
        real.append(f"- **Real cells, {what}**, {len(part)} questions: {counted(part['answer'], ANSWERS)}.")

    def link(number: str) -> str:
        return f"[chapter {int(number)}](notebooks/{chapter(f'nb-{number}')}.ipynb)"

    episen = f"({MISSING})"
    with suppress(Missing):
        episen = f"with an AUC of {out.one('scc47_label', dataset='SCC47-afatinib', score='EpiSen').auc:.3f}"
    picture = f"![{report.shown_as(found.PICTURE)['image']['alt']}](figures/embedded-quick/{found.PICTURE}.png)"
    return TEMPLATE.read_text().strip().format(
        opening=found.opening(out, claims["verdict"], "quick", link, picture),
        episen=episen, scores="\n".join(_scores(out)),
        claims=claims_said(claims), f1=checks.loc["not_one_averaging"], checks=len(checks),
        found=values["mean"].notna().sum(), printed=len(values), planted=planted_said(out),
        twins=counted(twin_checks(out)["outcome"], TWIN_WORDS), real="\n".join(real),
    )  # fmt: skip


def made_block(folder: Path) -> str:
    """Which notebook makes each table and figure of the paper, and with which rooms, as Markdown from the manifest."""
    outputs = json.loads((folder / "manifest.json").read_text())["outputs"]
    of_paper = filter(None, (re.fullmatch(r"(table|fig)(\d+)[a-z]?", name) for name in outputs))
    in_order = sorted(of_paper, key=lambda match: (match[1] != "table", match[2], match[0]))
    rows = ["| of the paper | here | notebook | rooms that it calls |", "|---|---|---|---|"]
    for (kind, number), part in groupby(in_order, key=lambda match: match.group(1, 2)):
        names = [match[0] for match in part]
        notebook = outputs[names[0]]["notebook"]
        text = (paths.NOTEBOOKS / f"{notebook}.ipynb").read_text()
        called = re.findall(r"from atsdp_utils\.(?!foundation)(\w+)(?:\.\w+)? import", text)
        here = ", ".join(f"`{name}`" for name in names)
        modules = ", ".join(f"`{room}`" for room in dict.fromkeys(called))
        rows.append(f"| {kind.replace('fig', 'figure').title()} {number} | {here} | `{notebook}` | {modules} |")
    return "\n".join(rows)


def with_block(text: str, block: str, marks: tuple[str, str]) -> str:
    """`text` with what stands between two marks replaced by `block`."""
    found = re.fullmatch(f"(.*{re.escape(marks[0])}\n).*?({re.escape(marks[1])}.*)", text, re.DOTALL)
    if not found:
        raise ValueError(f"README.md: expected the lines {marks[0]!r} and {marks[1]!r}, in this order")
    return f"{found[1]}{block}\n{found[2]}"


def main() -> None:
    """``readme`` rewrites two parts of README.md from ``figures/embedded-quick``."""
    text = with_block(README.read_text(), readme_block(Outputs(paths.REFERENCE)), RESULTS)
    README.write_text(with_block(text, made_block(paths.REFERENCE), MADE))


if __name__ == "__main__":
    if sys.argv[1:] != ["readme"]:
        sys.exit(__doc__)
    main()
