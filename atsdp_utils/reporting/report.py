"""What a run leaves behind: tables, figures, the manifest, a summary on the screen, the comparison with the reference.

``figures/<data>-<profile>/`` is a contract that programs outside this repository read, so everything goes through
:class:`Run`: it checks, writes atomically and records where each output came from. This module imports neither torch
nor scanpy; it is loaded by every notebook and by Make.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.foundation import cache, config, paths

TIDY = ("dataset", "metric", "mean", "std", "n", "ci_low", "ci_high", "tier", "protocol", "paper")
TIDY_TABLES = ("table1", "table2", "table3", "table4")
PROTOCOLS = ("U", "S", "F", "")
#: Inputs that are not single-cell sets of :mod:`atsdp_utils.foundation.config`, and their tier.
OTHER_INPUTS = {"GDSC-bulk": "real", "PC9-erlotinib": "real", "paper": "reported"}
REFERENCE = paths.ROOT / "figures" / "embedded-quick"


def tier_of(name: str) -> str:
    """Tier of an input: ``real``, ``simulated``, ``geo``, or ``reported`` for the paper's own numbers.

    Raises
    ------
    ValueError
        If `name` is not known, with the names that are.
    """
    if name in config.DATASETS:
        return config.DATASETS[name].tier
    if name in OTHER_INPUTS:
        return OTHER_INPUTS[name]
    raise ValueError(f"dataset: got {name!r}, expected one of {', '.join([*config.DATASETS, *OTHER_INPUTS])}")


def check_tidy(df: pd.DataFrame, name: str) -> None:
    """Check the contract of ``table1`` … ``table4``: one row per data set x model (or setting) x metric.

    Printed values are rows of tier ``print`` under the paper's names of its sets. The column ``paper`` is filled on the
    paper's own cells (tier ``geo``) only; ``table2``, which holds settings and nothing measured, may fill it anywhere.

    Raises
    ------
    ValueError
        If columns are missing, a row is repeated, a row's tier is not the tier of its data set, or a printed value
        stands beside other cells than the paper's.
    """
    missing = [c for c in TIDY if c not in df.columns]
    keys = [k for k in ("model", "setting") if k in df.columns]
    if missing or not keys:
        missing += [] if keys else ["model or setting"]
        raise ValueError(f"{name}: columns {missing} are missing; a tidy table has {[*TIDY, 'model or setting']}")
    printed = (df["tier"] == "print") & df["dataset"].isin(config.TABLE2)
    bad = df.index[(df["dataset"].map(tier_of) != df["tier"]) & ~printed]
    if len(bad):
        row = df.loc[bad[0]]
        raise ValueError(f"{name}: {row['dataset']} has tier {row['tier']!r}, expected {tier_of(row['dataset'])!r}")
    beside = df[df["paper"].notna() & (df["tier"] != "geo")]
    if len(beside) and name != "table2":
        row = beside.iloc[0]
        raise ValueError(f"{name}: {row['dataset']} (tier {row['tier']!r}) has a value in 'paper', expected it empty")
    unknown = sorted(set(df["protocol"].fillna("")) - set(PROTOCOLS))
    if unknown:
        raise ValueError(f"{name}: protocol {unknown} is not one of {PROTOCOLS}")
    key = ["dataset", *keys, "metric", "protocol"]
    if df.duplicated(key).any():
        raise ValueError(f"{name}: repeated row {df.loc[df.duplicated(key), key].iloc[0].to_dict()}")


class Run:
    """The outputs of one notebook in one run.

    Parameters
    ----------
    notebook
        Name without suffix, such as ``05_cv_evaluation``.
    data, profile
        The two parameters of the notebook.
    """

    def __init__(self, notebook: str, data: str, profile: str) -> None:
        config.datasets(data), config.profile(profile)  # a wrong name fails here, not after an hour
        self.notebook, self.data, self.profile = notebook, data, profile
        self.folder = paths.figures_dir(data, profile)
        self.fragment = paths.run_dir(data, profile) / "manifest" / f"{notebook}.json"
        self._start = time.monotonic()
        self._hashes: dict[str, str] = {}
        self._outputs: dict[str, dict] = {}
        pd.set_option("display.precision", 4, "display.max_rows", 80, "display.max_columns", 40)

    def table(
        self,
        df: pd.DataFrame,
        name: str,
        *,
        caption: str,
        datasets: Sequence[str] = (),
        protocol: str = "",
        seeds: Sequence[int] = (),
    ) -> pd.DataFrame:
        """Write ``<name>.csv``, record it, and return `df` for display."""
        if name in TIDY_TABLES:
            check_tidy(df, name)
        # Six digits: more than any reader uses, fewer than the last bits in which processors differ.
        text = df.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        cache.write_text(self.folder / f"{name}.csv", text)
        self._record(name, [f"{name}.csv"], caption, datasets, protocol, seeds)
        return df

    def figure(
        self,
        fig,
        name: str,
        *,
        caption: str = "",
        datasets: Sequence[str] = (),
        protocol: str = "",
        seeds: Sequence[int] = (),
    ):
        """Write ``<name>.png`` and ``<name>.svg`` with their source line, record them, and return the picture.

        The returned object shows exactly the bytes of the PNG; `fig` is closed.
        """
        from IPython.display import Image

        from atsdp_utils.reporting import plots

        tiers = {d: tier_of(d) for d in datasets}
        plots.mark_tier(fig, "simulated" in tiers.values(), source_line(tiers, protocol, self.profile))
        pictures = plots.save_figure(fig, self.folder / name)
        self._record(name, [p.name for p in pictures], caption, datasets, protocol, seeds)
        return Image(data=pictures[0].read_bytes(), format="png", alt=caption or name)

    def inputs(self, datasets: Iterable[str], bulk: bool = True) -> None:
        """Show a table of inputs: name, tier, origin, shape and short hash."""
        from IPython.display import HTML, display

        rows = [_describe(name, self.profile) for name in [*(["GDSC-bulk"] if bulk else []), *datasets]]
        self._hashes.update({row["input"]: row["sha256"] for row in rows})
        table = pd.DataFrame(rows).assign(sha256=lambda t: t["sha256"].str[:12])
        with pd.option_context("display.max_colwidth", None):
            display(HTML(table.to_html(index=False, classes="inputs")))

    def say(self, text: str) -> None:
        """Show Markdown made from computed values."""
        from IPython.display import Markdown, display

        display(Markdown(text))

    def _record(self, name, files, caption, datasets, protocol, seeds) -> None:
        for dataset in datasets:
            if dataset not in self._hashes:
                self._hashes[dataset] = _describe(dataset, self.profile)["sha256"]
        # A table and the figure drawn from it may share a name; the one written last describes both.
        earlier = self._outputs.get(name, {}).get("files", [])
        self._outputs[name] = {
            "files": [*(f for f in earlier if f not in files), *files],
            "notebook": self.notebook,
            "caption": caption,
            "tiers": sorted({tier_of(d) for d in datasets}),
            "datasets": list(datasets),
            "protocol": protocol,
            "data": self.data,
            "profile": self.profile,
            "seeds": [int(s) for s in seeds],
            "inputs": {d: self._hashes[d] for d in datasets},
            "code": cache.package_version(),
            "wall_seconds": round(time.monotonic() - self._start, 1),
        }
        cache.write_text(self.fragment, json.dumps(self._outputs, indent=1, ensure_ascii=False) + "\n")


def source_line(tiers: dict[str, str], protocol: str, profile: str) -> str:
    """One line under a figure: which data, of which tier, under which protocol and profile."""
    groups = [(t, [d for d in tiers if tiers[d] == t]) for t in dict.fromkeys(tiers.values())]
    data = "; ".join(f"{', '.join(names)} ({tier})" for tier, names in groups) or "none (schematic)"
    return f"Data: {data}" + (f" · protocol {protocol}" if protocol else "") + f" · profile {profile}"


@lru_cache
def _describe(name: str, profile: str) -> dict[str, str]:
    """Name, tier, origin, shape and content hash of an input; loads it once a process."""
    from atsdp_utils.data import datasets, gdsc, real_cells

    if name == "paper":
        digest = hashlib.sha256(b"".join(f.read_bytes() for f in sorted(paths.PAPER.glob("*.csv"))))
        return {"input": name, "tier": "reported", "origin": "data/paper", "shape": "", "sha256": digest.hexdigest()}
    if name == "GDSC-bulk":
        values, origin = gdsc.load_bulk().X, "GDSC basal expression"
    else:
        cells = real_cells.load_pc9() if name == "PC9-erlotinib" else datasets.load_cells(name)
        values, origin = cells.X, str(cells.uns.get("origin", cells.uns.get("source", "")))
    dense = values if isinstance(values, np.ndarray) else values.toarray()
    digest = hashlib.sha256(np.ascontiguousarray(dense)).hexdigest()
    shape = f"{dense.shape[0]:,} × {dense.shape[1]:,}"
    return {"input": name, "tier": tier_of(name), "origin": origin, "shape": shape, "sha256": digest}


# --- after the notebooks: manifest, summary, comparison with the reference --------------------------------------------


def manifest(data: str, profile: str) -> Path:
    """Merge the notebooks' fragments into ``manifest.json`` of the run.

    Raises
    ------
    FileNotFoundError
        If a recorded output is not there.
    """
    folder, outputs = paths.figures_dir(data, profile), {}
    for fragment in sorted((paths.run_dir(data, profile) / "manifest").glob("*.json")):
        outputs.update(json.loads(fragment.read_text()))
    gone = [f for o in outputs.values() for f in o["files"] if not (folder / f).exists()]
    if gone:
        raise FileNotFoundError(f"{folder}: {', '.join(gone)} recorded but missing; run 'make clean reproduce'")
    text = json.dumps({"run": f"{data}-{profile}", "outputs": dict(sorted(outputs.items()))}, indent=1)
    cache.write_text(folder / "manifest.json", text + "\n")
    return folder / "manifest.json"


def summary(data: str, profile: str, stream=None) -> None:
    """Print the AUC of every table of the run on one screen: the best model or setting, and ATSDP-NET beside it."""
    from rich.console import Console
    from rich.table import Table

    folder = paths.figures_dir(data, profile)
    console = Console(file=stream, width=None if sys.stdout.isatty() and stream is None else 110)
    out = Table(title=f"AUC, {data} data, {profile} profile", title_justify="left", box=None, pad_edge=False)
    for column in ("table", "data set", "tier", "protocol", "best", "mean ± sd", "ATSDP-NET", "paper"):
        out.add_column(column, no_wrap=True)
    for name in TIDY_TABLES:
        if (folder / f"{name}.csv").exists():
            for row in _headlines(pd.read_csv(folder / f"{name}.csv")):
                out.add_row(name, *row)
    console.print(out if out.row_count else "No AUC in the tables of this run yet.")


def _headlines(df: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """One row of :func:`summary` a data set and protocol of this run; printed values are no result of it."""
    df = df[(df["metric"] == "auc") & (df["tier"] != "print")].dropna(subset=["mean"])
    key = "setting" if "setting" in df and ("model" not in df or df["model"].nunique() == 1) else "model"
    for (dataset, tier, protocol), group in df.groupby(["dataset", "tier", "protocol"], sort=False, dropna=False):
        best = group.loc[group["mean"].idxmax()]
        ours = group[group[key].astype(str).str.startswith("ATSDP")] if key == "model" else group.head(0)
        paper = ours["paper"].dropna()
        yield (
            dataset, tier, str(protocol), str(best[key]), f"{best['mean']:.3f} ± {np.nan_to_num(best['std']):.3f}",
            f"{ours['mean'].iloc[0]:.3f}" if len(ours) else "", f"{paper.iloc[0]:.3f}" if len(paper) else "",
        )  # fmt: skip


def differences(run: Path, reference: Path | dict[str, pd.DataFrame], tolerances: dict) -> list[str]:
    """Compare the CSV files of two runs within `tolerances`; one readable line a difference.

    Text and missing values must agree exactly; a number x may differ from the reference r by
    ``absolute + relative * |r|`` of its column (``tolerances['columns']``, else ``tolerances['default']``).
    """
    if isinstance(reference, Path):
        reference = {f.name: pd.read_csv(f) for f in sorted(reference.glob("*.csv"))}
    found = []
    for name, expected in reference.items():
        if not (run / name).exists():
            found.append(f"{name}: missing")
            continue
        found += _table_differences(name, pd.read_csv(run / name), expected, tolerances)
    return found


def _table_differences(name: str, actual: pd.DataFrame, expected: pd.DataFrame, tolerances: dict) -> list[str]:
    if list(actual.columns) != list(expected.columns):
        return [f"{name}: columns {list(actual.columns)}, expected {list(expected.columns)}"]
    if len(actual) != len(expected):
        return [f"{name}: {len(actual)} rows, expected {len(expected)}"]
    found = []
    for column in expected:
        rule = tolerances["columns"].get(column, tolerances["default"])
        if rule == "ignore":
            continue
        for row, (a, e) in enumerate(zip(actual[column], expected[column], strict=True)):
            if not _agree(a, e, rule):
                found.append(f"{name}, row {row + 1}, {column}: {a}, expected {e} (tolerance {rule})")
    return found


def _agree(actual, expected, rule: dict) -> bool:
    if pd.isna(actual) or pd.isna(expected):
        return bool(pd.isna(actual) and pd.isna(expected))
    if isinstance(expected, str) or isinstance(actual, str):
        return actual == expected
    return math.isclose(actual, expected, rel_tol=0, abs_tol=rule["absolute"] + rule["relative"] * abs(expected))


def check(data: str, profile: str) -> int:
    """Compare a run with the committed reference; print the differences; return the exit status."""
    run = paths.figures_dir(data, profile)
    if (data, profile) != ("embedded", "quick"):
        print(f"check: the reference is embedded-quick; {data}-{profile} computes other amounts. Use PROFILE=quick.")
        return 2
    tolerances = json.loads((REFERENCE / "tolerances.json").read_text())
    reference = _committed_reference() if run.resolve() == REFERENCE.resolve() else REFERENCE
    found = differences(run, reference, tolerances)
    print("\n".join(found[:40]) + (f"\n… and {len(found) - 40} more" if len(found) > 40 else "")) if found else None
    print(f"check: {len(found)} differences from the committed figures/embedded-quick")
    return int(bool(found))


def _committed_reference() -> dict[str, pd.DataFrame]:
    """The reference as committed: a run in place has overwritten the files themselves."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        names = git("ls-tree", "--name-only", "HEAD", "figures/embedded-quick/").split()
        return {Path(n).name: pd.read_csv(io.StringIO(git("show", f"HEAD:{n}"))) for n in names if n.endswith(".csv")}
    except (OSError, subprocess.CalledProcessError) as error:
        way_out = "without git, run with ATSDP_FIGURES=<another folder> and check with the same"
        raise SystemExit(f"check: the committed reference cannot be read through git ({error}); {way_out}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of Make: ``python -m atsdp_utils.reporting.report manifest|summary|check DATA PROFILE``."""
    parser = argparse.ArgumentParser(prog="atsdp_utils.reporting.report", description=main.__doc__)
    parser.add_argument("command", choices=("manifest", "summary", "check"))
    parser.add_argument("data", choices=("embedded", "geo"))
    parser.add_argument("profile", choices=tuple(config.PROFILES))
    args = parser.parse_args(arguments)
    if args.command == "check":
        return check(args.data, args.profile)
    {"manifest": manifest, "summary": summary}[args.command](args.data, args.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
