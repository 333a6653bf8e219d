"""The parts of ``README.md`` that are written from the committed runs: ``python -m book.readme``."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pandas as pd

from atsdp_utils.foundation import config, paths
from atsdp_utils.reporting import audit, findings, profiles, report
from atsdp_utils.reporting.outputs import Missing, Outputs
from atsdp_utils.reporting.scorecard import chapter, scorecard
from atsdp_utils.reporting.verdict import MISSING, SUPPORTED, VERDICTS
from book import build, opening

README = paths.ROOT / "README.md"
#: What opens and closes the two parts of the README that are written from a run.
RESULTS = "<!-- results: python -m book.readme -->", "<!-- end of results -->"
MADE = "<!-- made: python -m book.readme -->", "<!-- end of made -->"
SCORE = "dataset={dataset};model={model};setting=;protocol={protocol};metric=auc"
#: Words for more than one.
PLURAL = {"does not hold": "do not hold", "false alarm": "false alarms"}


def counted(values: pd.Series, words: tuple[str, ...]) -> str:
    """How often each word occurs, in the order of `words`, as text."""
    counts = ((word, int((values == word).sum())) for word in words)
    return ", ".join(f"{n} {PLURAL.get(word, word) if n > 1 else word}" for word, n in counts if n)


def _auc(out: Outputs, spec: config.Dataset, protocol: str, model: str) -> str:
    """AUC of Table 3 as text, with its interval if it is that of the network, and the share of right signs."""
    names = {"dataset": spec.name, "protocol": protocol, "model": model}
    (mean, low, high), computed = findings.estimate(out, "table3", SCORE, "mean;ci_low;ci_high", **names)
    if not computed:
        return MISSING
    text = f"{mean:.2f}" + f" ({low:.2f}–{high:.2f})" * (model == "ATSDP-NET")
    if spec.tier == "real" and protocol == "U" and "right" in out.read("table3"):
        right, low, high = findings.first(out, "table3", SCORE, "right;right_low;right_high", **names)
        text += f"; {right:.0%} right ({low:.0%}–{high:.0%})"
    return text


def _scores(*runs: Outputs) -> Iterator[str]:
    """Rows of the README's table: AUC without labels, of the first component, and with labels, each of every run."""
    for spec in config.datasets("embedded", nulls=False):
        cells = [f"`{spec.name}`", "**simulated**" if spec.simulated else spec.tier]
        for protocol, model in (("U", "ATSDP-NET"), ("U", "PC1, bulk sign"), ("S", "ATSDP-NET")):
            cells += [_auc(out, spec, protocol, model) for out in runs]
        yield f"| {' | '.join(cells)} |"


def readme_block(out: Outputs, published: Outputs) -> str:
    """Results at a glance, as Markdown, from the committed runs and a template."""
    ran, numbered = opening.chapters_of(published.folder), build.numbered()
    of_runs = {name: {"paper": published, "quick": out}[name] for name in opening.ORDER}
    profile, judged = next(iter(of_runs.items()))
    card, checks = scorecard(judged, "embedded"), audit.run()[0].set_index("check")
    claims, values = card[card["kind"] == "claim"], card[card["kind"] == "value"]

    def link(number: str) -> str:
        return f"[chapter {int(number)}](notebooks/{chapter(f'nb-{number}')}.ipynb)"

    real = []
    for unit, part in findings.by_unit(findings.real_findings(judged)).groupby("unit", sort=False):
        what = report.units([spec for spec in config.REAL if spec.unit == unit])
        yes = part.loc[part["answer"] == "yes", "question"]
        named = f" Yes: {' '.join(yes)}" * bool(len(yes))
        said = counted(part["answer"], findings.ANSWERS)
        real.append(f"- **Real cells, {what}**, {len(part)} questions ({link('11')}): {said}.{named}")

    made = sorted(claims.groupby("made")["verdict"], reverse=True)  # in so many words, then implied
    made = "; ".join(f"{len(found)} made {how} ({counted(found, VERDICTS)})" for how, found in made)
    apart = out.read("profiles_compared").itertuples()
    # What a training decides is read under a protocol; the readings of what is printed or public are others.
    supported = claims.loc[claims["verdict"] == SUPPORTED, "protocol"]
    printed, mixed = audit.printed_rows(), audit.checked("not_one_averaging")["flagged"].to_numpy(bool)
    first = ~printed.duplicated(["dataset", *config.METRICS]).to_numpy()
    episen = f"({MISSING})"
    with suppress(Missing):
        episen = f"with an AUC of {out.one('scc47_label', dataset='SCC47-afatinib', score='EpiSen').auc:.3f}"

    def picture(drawn: Path | None) -> str:
        if drawn is None:
            return MISSING
        return f"![{report.shown_as(drawn.stem)['image']['alt']}]({drawn.relative_to(paths.ROOT)})"

    return (opening.TEMPLATES / "readme.md").read_text(encoding="utf-8").strip().format(
        opening=opening.opening(of_runs, claims["verdict"], link, picture),
        episen=episen, scores="\n".join(_scores(out, published)),
        chapters=opening.chapters_said(ran, len(numbered)), paper=config.profile("paper"),
        apart=", ".join(f"{row.apart:,} of {row.compared:,} on {row.tier} data" for row in apart), profile=profile,
        claims=made.replace("made implied", "implied"), supported=len(supported),
        untrained=(~supported.isin(["S", "U", "S, U"])).sum(),
        compared=", ".join(f"`{name}`" for name in profiles.TABLES), mixed=int((mixed & first).sum()), rows=first.sum(),
        f1=checks.loc["not_one_averaging"], checks=len(checks),
        found=values["mean"].notna().sum(), printed=len(values), planted=findings.planted_said(judged),
        twins=counted(findings.twin_checks(judged)["outcome"], findings.TWIN_WORDS), real="\n".join(real),
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
    """Rewrite two parts of README.md from the committed runs."""
    block = readme_block(Outputs(paths.REFERENCE), Outputs(paths.PUBLISHED))
    text = with_block(README.read_text(), block, RESULTS)
    README.write_text(with_block(text, made_block(paths.REFERENCE), MADE))


if __name__ == "__main__":
    main()
