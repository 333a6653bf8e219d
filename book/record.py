"""What is done when the notebooks of a run have ended: manifest, summary on the screen, comparison with the reference.

Make calls it: ``python -m book.record manifest|summary|check <data> <profile>``.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.foundation import cache, paths
from atsdp_utils.reporting.report import TIDY_TABLES


def manifest(data: str, profile: str) -> None:
    """Merge fragments into ``manifest.json``; outputs of chapters that did not run, or stopped halfway, stay."""
    written, ran = paths.figures_dir(data, profile) / "manifest.json", paths.run_dir(data, profile)
    ended = {path.stem: path.stat().st_mtime for path in (ran / "notebooks").glob("*.ipynb")}
    parts = {p.stem: p for p in sorted((ran / "manifest").glob("*.json")) if ended.get(p.stem, 0) >= p.stat().st_mtime}
    earlier = json.loads(written.read_text())["outputs"] if written.exists() else {}
    outputs = {name: made for name, made in earlier.items() if made["notebook"] not in parts}
    ran_here = {k: v for fragment in parts.values() for k, v in json.loads(fragment.read_text()).items()}
    outputs |= ran_here
    # Of other chapters, what git does not keep may be absent.
    if gone := [f for o in ran_here.values() for f in o["files"] if not (written.parent / f).exists()]:
        again = f"remove {ran / 'notebooks'} and run again, trainings stay"
        raise FileNotFoundError(f"{written.parent}: {', '.join(gone)} recorded but missing; {again}")
    text = json.dumps({"run": f"{data}-{profile}", "outputs": dict(sorted(outputs.items()))}, indent=1)
    text = re.sub(r"\[\n[^\[\]]*\]", lambda found: " ".join(found[0].split()), text)  # one line a list
    cache.write_text(written, text + "\n")


def summary(data: str, profile: str) -> None:
    """Print the AUCs of Tables 1, 3 and 4 on one screen: the best model or setting, and ATSDP-NET beside it."""
    files = [paths.figures_dir(data, profile) / f"{name}.csv" for name in TIDY_TABLES]
    rows = [(file.stem, *row) for file in files if file.exists() for row in _headlines(pd.read_csv(file))]
    names = ("table", "data set", "tier", "protocol", "best", "mean ± sd", "ATSDP-NET", "paper")
    shown = pd.DataFrame([names, *rows]).apply(lambda column: column.str.ljust(column.str.len().max() + 2))
    text = shown.to_string(index=False, header=False) if rows else "No AUC in the tables of this run yet."
    print(f"AUC, {data} data, {profile} profile", text, sep="\n")


def _headlines(df: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """One row of :func:`summary` a data set and protocol of this run; printed values are no result of it."""
    df = df[(df["metric"] == "auc") & (df["tier"] != "print")].dropna(subset=["mean"])
    key = "setting" if "setting" in df and ("model" not in df or df["model"].nunique() == 1) else "model"
    for (dataset, tier, protocol), group in df.groupby(["dataset", "tier", "protocol"], sort=False, dropna=False):
        best = group.loc[group["mean"].idxmax()]
        ours = group[group[key].astype(str).str.startswith("ATSDP")] if key == "model" else group.head(0)
        values = [f"{v.iloc[0]:.3f}" if len(v) else "" for v in (ours["mean"], ours["paper"].dropna())]
        spread = f"{best['mean']:.3f} ± {np.nan_to_num(best['std']):.3f}"
        yield dataset, tier, str(protocol), str(best[key]), spread, *values


def differences(run: Path, reference: dict[str, pd.DataFrame], tolerances: dict) -> list[str]:
    """Differences of a run's tables from those of the `reference`, one readable line each.

    Text and missing values must agree; a number x may differ from the reference r by ``absolute + relative * |r|`` of
    its column (``tolerances['columns']``, else ``tolerances['default']``).
    """
    found = []
    for name, expected in reference.items():
        if not (run / name).exists():
            found.append(f"{name}: missing")
            continue
        actual = pd.read_csv(run / name)
        if list(actual) != list(expected):
            found.append(f"{name}: columns {list(actual)}, expected {list(expected)}")
        elif len(actual) != len(expected):
            found.append(f"{name}: {len(actual)} rows, expected {len(expected)}")
        else:
            found += [f"{name}, {line}" for column in expected
                      for line in _disagreements(actual[column], expected[column], tolerances)]  # fmt: skip
    return found


def _disagreements(actual: pd.Series, expected: pd.Series, tolerances: dict) -> list[str]:
    """Lines on the rows of a column that differ."""
    rule = tolerances["columns"].get(expected.name, tolerances["default"])
    if rule == "ignore":
        return []
    if pd.api.types.is_numeric_dtype(actual) and pd.api.types.is_numeric_dtype(expected):
        near = {"atol": rule["absolute"], "rtol": rule["relative"], "equal_nan": True}
        agree = np.isclose(actual.astype(float), expected.astype(float), **near)
    else:
        agree = (actual == expected) | (actual.isna() & expected.isna())
    return [f"row {i + 1}, {expected.name}: {actual[i]}, expected {expected[i]} (tolerance {rule})"
            for i in np.flatnonzero(~agree)]  # fmt: skip


def check(data: str, profile: str) -> int:
    """Print the differences of a run from the committed run of its profile; return the exit status."""
    run, committed = paths.figures_dir(data, profile), paths.ROOT / "figures" / f"{data}-{profile}"
    if committed not in paths.COMMITTED.values():
        use = "Use DATA=embedded with PROFILE=quick or PROFILE=paper."
        print(f"check: no run of {committed.name} is committed to compare with. {use}")
        return 2
    found = differences(run, _reference(run, committed), json.loads(paths.TOLERANCES.read_text()))
    more = [f"… and {len(found) - 40} more"] if len(found) > 40 else []
    print(*found[:40], *more, f"check: {len(found)} differences from the committed figures/{committed.name}", sep="\n")
    return int(bool(found))


def _reference(run: Path, committed: Path) -> dict[str, pd.DataFrame]:
    """Tables of a committed run, read through git where the run has overwritten the files themselves."""
    if run.resolve() != committed.resolve():
        return {f.name: pd.read_csv(f) for f in sorted(committed.glob("*.csv"))}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        names = git("ls-tree", "--name-only", "HEAD", f"figures/{committed.name}/").split()
        return {Path(n).name: pd.read_csv(io.StringIO(git("show", f"HEAD:{n}"))) for n in names if n.endswith(".csv")}
    except (OSError, subprocess.CalledProcessError) as error:
        way_out = "without git, run with ATSDP_FIGURES=<another folder> and check with the same"
        raise SystemExit(f"check: the committed reference cannot be read through git ({error}); {way_out}") from None


if __name__ == "__main__":
    command, *of = sys.argv[1:]  # as Make calls it: a command, the data and the profile
    sys.exit({"manifest": manifest, "summary": summary, "check": check}[command](*of))
