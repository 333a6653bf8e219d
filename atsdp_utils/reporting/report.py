"""What a notebook leaves behind: tables, figures, and their entries of the manifest.

``figures/<data>-<profile>/`` is a contract that programs outside this repository read, so everything goes through
:class:`Run`. This module imports neither torch nor scanpy; it is loaded by every notebook and by Make.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from IPython.core.inputtransformer2 import TransformerManager
from IPython.display import HTML, Image, display

from atsdp_utils.foundation import cache, closure, config, paths
from atsdp_utils.reporting import plots

TIDY = ("dataset", "metric", "mean", "std", "n", "ci_low", "ci_high", "tier", "protocol", "paper")
TIDY_TABLES = ("table1", "table2", "table3", "table4")
WRITTEN_PROTOCOLS = ("U", "S", "F", "")
#: Inputs that are not single-cell sets of :mod:`atsdp_utils.foundation.config`, and their tier.
OTHER_INPUTS = {
    **dict.fromkeys(("GDSC-bulk", "PC9-erlotinib", "mixology-5", "mixology-3", "CCLE-bulk"), "real"),
    **dict.fromkeys(("paper", "peers"), "reported"),
}


def tier_of(name: str) -> str:
    """Tier of an input: ``real``, ``simulated``, ``geo``, or ``reported`` for numbers of the paper or of peers."""
    tiers = config.TIERS | OTHER_INPUTS
    if name not in tiers:
        raise ValueError(f"dataset: got {name!r}, expected one of {', '.join(tiers)}")
    return tiers[name]


def units(specs: Sequence[config.Dataset]) -> str:
    """Data sets counted in words, each unit once and kinds of label apart."""
    parts = []
    for kind, word in (("culture", "culture task"), ("programme", "programme axis")):
        names: dict[str, list[str]] = {}
        for spec in specs:
            if spec.label == kind:
                names.setdefault(spec.unit, []).append(spec.name)
        told = [", ".join(v) if [*v] == [k] else f"{k}, under the names {' and '.join(v)}" for k, v in names.items()]
        plural = word if len(names) == 1 else word.replace("axis", "axe") + "s"
        parts += [f"{len(names)} {plural} ({'; '.join(told)})"] if names else []
    return " and ".join(parts)


def check_tidy(df: pd.DataFrame, name: str) -> None:
    """Check the contract of ``table1`` … ``table4``: one row per data set x model (or setting) x metric.

    Printed values are rows of tier ``print``. The column ``paper`` is filled on the paper's own cells (tier ``geo``)
    only; ``table2``, which holds settings and nothing measured, may fill it anywhere.
    """
    keys = [k for k in ("model", "setting") if k in df]
    if missing := [*(c for c in TIDY if c not in df), *([] if keys else ["model or setting"])]:
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
    if unknown := sorted(set(df["protocol"].fillna("")) - set(WRITTEN_PROTOCOLS)):
        raise ValueError(f"{name}: protocol {unknown} is not one of {WRITTEN_PROTOCOLS}")
    key = ["dataset", *keys, "metric", "protocol"]
    if df.duplicated(key).any():
        raise ValueError(f"{name}: repeated row {df.loc[df.duplicated(key), key].iloc[0].to_dict()}")


@lru_cache
def made_by(notebook: str) -> dict[str, str | list[str]]:
    """Mark of a notebook's outputs: its name, the modules that it imports (in turn), a hash of their and its code."""
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not file.exists():
        raise ValueError(f"notebook: got {notebook!r}, expected the name of a file in {paths.NOTEBOOKS}")
    cells = [c for c in json.loads(file.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    program = "\n".join(TransformerManager().transform_cell("".join(c["source"])) for c in cells)
    modules = closure.modules(program)
    text = "\0".join((ast.unparse(ast.parse(program)), *(f"{m}\0{modules[m]}" for m in sorted(modules))))
    code = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {"notebook": notebook, "modules": sorted(m for m in modules if modules[m]), "code": code}


def shown_as(name: str) -> dict[str, dict]:
    """What the cell that draws a figure says of it to the book (``figure``, ``image``); empty if there is none."""
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            drawn = re.search(rf'(run.figure|radar)\([^"]*,\s*"{name}"', "".join(cell["source"]))
            if drawn and "image" in cell["metadata"].get("mystnb", {}):
                return cell["metadata"]["mystnb"]
    return {}


class Run:
    """The outputs of one notebook (its name without suffix) in one run, for its parameters `data` and `profile`."""

    def __init__(self, notebook: str, data: str, profile: str) -> None:
        config.datasets(data), config.profile(profile)  # a wrong name fails here, not after an hour
        self.made, self.data, self.profile = made_by(notebook), data, profile
        self.folder = paths.figures_dir(data, profile)
        self.fragment = paths.run_dir(data, profile) / "manifest" / f"{notebook}.json"
        self.captions = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_bytes())["metadata"].get("tables", {})
        self._outputs: dict[str, dict] = {}
        plots.style()
        pd.set_option("display.precision", 4, "display.max_rows", 80, "display.max_columns", 40)

    def table(self, df: pd.DataFrame, name: str, *, caption: str = "", **source) -> pd.DataFrame:
        """Write ``<name>.csv``, to six digits, and its entry of the manifest.

        Parameters
        ----------
        df, name : DataFrame and str
            The table, without its index, and the name of the file. :data:`TIDY_TABLES` must keep to :func:`check_tidy`.
        caption : str
            What the manifest says of it; without one, that in the notebook's metadata.
        **source
            Where it comes from: ``datasets``, ``protocol`` and ``seeds``.

        Returns
        -------
        DataFrame
            `df` itself, to be shown.
        """
        if name in TIDY_TABLES:
            check_tidy(df, name)
        # Six digits: more than any reader uses, fewer than the last bits in which processors differ.
        cache.write_text(self.folder / f"{name}.csv", df.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        self._record(name, [f"{name}.csv"], caption or self.captions.get(name, ""), **source)
        return df

    def figure(self, fig, name: str, *, caption: str = "", legend=(), **source) -> Image:
        """Write ``<name>.png`` and ``<name>.svg`` with their source line, record them, and close `fig`.

        Parameters
        ----------
        fig, name : Figure and str
            The figure, and the name of its files.
        caption : str
            What the manifest says of it; without one, the first sentence of that in the book.
        legend : Axes or sequence of Axes
            Those whose key stands above all.
        **source
            Where it comes from: ``datasets``, ``protocol`` and ``seeds``. What is simulated is marked
            (:func:`plots.mark_tier`).

        Returns
        -------
        Image
            The PNG.
        """
        if len(axes := np.ravel(legend)):
            plots.legend(fig, *axes)
        in_book = shown_as(name).get("figure", {}).get("caption", "")
        caption = caption or re.match(r"((Figure \w+\. )?.*?)(\. |\.?$)", in_book)[1]
        tiers = {d: tier_of(d) for d in source.get("datasets", ())}
        plots.mark_tier(fig, tiers, source_line(tiers, source.get("protocol", ""), self.profile))
        pictures = plots.save_figure(fig, self.folder / name)
        self._record(name, [p.name for p in pictures], caption, **source)
        return Image(data=pictures[0].read_bytes(), format="png", alt=caption or name)

    def inputs(self, datasets: Iterable[str], bulk: bool = True) -> None:
        """Show a table of inputs: name, tier, origin, shape and short hash.

        Parameters
        ----------
        datasets : iterable of str
            Names of data sets, or of :data:`OTHER_INPUTS`.
        bulk : bool
            Whether the GDSC lines are put first.
        """
        table = pd.DataFrame([_describe(name) for name in [*(["GDSC-bulk"] if bulk else []), *datasets]])
        table["sha256"] = table["sha256"].str[:12]
        with pd.option_context("display.max_colwidth", None):
            display(HTML(table.to_html(index=False, classes="inputs")))

    def glue(self, **values: str | float) -> None:
        """Give computed values to the text of the chapter, which shows ``value`` as ``{glue:text}`value:.2f```.

        Parameters
        ----------
        **values
            A number or word for each name.

        Raises
        ------
        TypeError
            If a value is neither.
        """
        from myst_nb import glue

        for name, value in values.items():
            value = value.item() if isinstance(value, np.generic) else value
            if not isinstance(value, str | int | float):
                raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a word")
            glue(name, value, display=False)

    def glue_interval(self, **intervals: Sequence[float]) -> None:
        """Give a value and its limits (the first three of each) to the text: ``name``, ``name_low``, ``name_high``."""
        for name, (value, low, high, *_) in intervals.items():
            self.glue(**{name: value, f"{name}_low": low, f"{name}_high": high})

    def glue_range(self, **ranges: Iterable[float]) -> None:
        """Give the smallest and the largest of some values to the text: ``name_low`` and ``name_high``."""
        for name, values in ranges.items():
            values = pd.Series(list(values))
            self.glue(**{f"{name}_low": values.min(), f"{name}_high": values.max()})

    def _record(self, name: str, files: list[str], caption: str, *, datasets=(), protocol: str = "", seeds=()) -> None:
        # A table and the figure drawn from it may share a name; the one written last describes both.
        earlier = self._outputs.get(name, {}).get("files", [])
        self._outputs[name] = {
            "files": [*(f for f in earlier if f not in files), *files],
            "caption": caption,
            "tiers": sorted({tier_of(d) for d in datasets}),
            "datasets": list(datasets),
            **{"protocol": protocol, "data": self.data, "profile": self.profile},
            "seeds": [int(s) for s in seeds],
            "inputs": {d: _describe(d)["sha256"] for d in datasets},
            **self.made,
        }
        cache.write_text(self.fragment, json.dumps(self._outputs, indent=1, ensure_ascii=False) + "\n")


def source_line(tiers: dict[str, str], protocol: str, profile: str) -> str:
    """One line under a figure: which data, of which tier, under which protocol and profile."""
    groups = [(t, [d for d in tiers if tiers[d] == t]) for t in dict.fromkeys(tiers.values())]
    data = "; ".join(f"{', '.join(names)} ({tier})" for tier, names in groups) or "none (schematic)"
    return f"Data: {data}" + (f" · protocol {protocol}" if protocol else "") + f" · profile {profile}"


@lru_cache
def _describe(name: str) -> dict[str, str]:
    """Name, tier, origin, shape and content hash of an input; loads it once a process."""
    from atsdp_utils.data import cell_lines, datasets, gdsc, real_cells

    about = {"input": name, "tier": tier_of(name)}
    if about["tier"] == "reported":
        content = b"".join(f.read_bytes() for f in sorted((paths.DATA / name).glob("*.csv*")))
        return about | {"origin": f"data/{name}", "shape": "", "sha256": hashlib.sha256(content).hexdigest()}
    if name == "GDSC-bulk":
        values, origin = gdsc.load_bulk().X, "GDSC basal expression"
    elif name == "CCLE-bulk":
        values, origin = cell_lines.load_ccle().X, "CCLE RNA-seq, lines with calls"
    else:
        load = cell_lines.load_mixology if name in cell_lines.MIXOLOGY else datasets.load_cells
        cells = real_cells.load_pc9() if name == "PC9-erlotinib" else load(name)
        values, origin = cells.X, str(cells.uns.get("origin", cells.uns.get("source", "")))
    dense = values if isinstance(values, np.ndarray) else values.toarray()
    digest = hashlib.sha256(np.ascontiguousarray(dense)).hexdigest()
    return about | {"origin": origin, "shape": f"{dense.shape[0]:,} × {dense.shape[1]:,}", "sha256": digest}
