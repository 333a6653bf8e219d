"""The command ``atsdp``: score a person's own cells, list the drugs, check the installation.

Exit status: 0 done, 1 a failure inside, 2 something wrong with what was given, or with a file of ``data/``. Never a
traceback; nothing half-written.
"""

import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__.split("\n")[0]
)
Model = Literal["regression", "network"]


@app.callback()
def surroundings() -> None:
    """Predict which single cells a drug kills, from bulk cell lines."""
    for stream in (sys.stdout, sys.stderr):  # a terminal in Latin-1 has no dots, a name may be no UTF-8
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Trained networks of any checkout or working folder are kept once a person; which `paths` reads on import.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    os.environ.setdefault("ATSDP_BUILD", str(cache / "atsdp"))
    os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(os.environ["ATSDP_BUILD"], "numba"))  # else beside packages
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    for variable, value in held_arithmetic().items():
        os.environ.setdefault(variable, value)


def held_arithmetic() -> dict[str, str]:
    """What the Makefile tells libraries of the processor, so that a file has the same scores on every x86 with AVX2."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        flags = set()
    held = {"MKL_CBWR": "COMPATIBLE"}
    if "avx2" in flags:
        held |= {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    if "avx512f" in flags:
        held["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL AVX512_SPR"
    return held


def say(line: str) -> None:
    """A line on stdout; where nobody reads on, or there is no room for it, the work is finished without it."""
    try:
        typer.echo(line)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"atsdp: stdout takes no more ({error.strerror}); files are written all the same", err=True)


def guarded(command: Callable) -> Callable:
    """A command that turns whatever its body raises into one clear message on stderr and an exit status."""

    @functools.wraps(command)
    def run(*given, **options) -> None:
        from atsdp_utils.foundation.checksums import DataError
        from atsdp_utils.own_cells.cellfile import InputError

        warnings.simplefilter("ignore")  # what a person must know is said in words, not by libraries
        try:
            return command(*given, **options)
        except BrokenPipeError:  # the reader of a pipe has read enough
            raise typer.Exit(0) from None
        except (InputError, DataError) as error:
            status, said = 2, str(error)
        except MemoryError:
            status, said = 1, "out of memory. Store the matrix sparse, keep fewer cells, or use a larger machine."
        except OSError as error:
            status, said = 1, f"the system refused: {error}. No scores were written."
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
                said += " The disk is full: make room, or choose another with --out or the variable ATSDP_BUILD."
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(at.filename).name}, line {at.lineno}"
            status, said = 1, f"failed inside ({type(error).__name__}: {error}; {where}). No scores were written."
        typer.echo(f"atsdp: {said}", err=True)
        raise typer.Exit(status)

    return run


@app.command()
@guarded
def predict(
    cells: Annotated[Path, typer.Argument(help="h5ad, 10x .h5, 10x folder, .csv or .tsv (also .gz); it is only read")],
    drug: Annotated[list[str], typer.Option(help="one of 'atsdp drugs', or a synonym; several, or 'all': a table")],
    out: Annotated[Path | None, typer.Option(help="default: <CELLS>.<DRUG>.atsdp.h5ad or .drugs.atsdp.csv")] = None,
    layer: Annotated[str | None, typer.Option(help="layer of an h5ad file, or 'raw'; default: X")] = None,
    values: Annotated[Literal["auto", "counts", "lognorm", "zscored"], typer.Option(help="what values are")] = "auto",
    species: Annotated[Literal["human", "mouse"] | None, typer.Option(help="default: human")] = None,
    labels: Annotated[str | None, typer.Option(help="known responses: column of obs, column or row of a table")] = None,
    report: Annotated[Path | None, typer.Option(help="report; default: <OUT>.html")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="fixes every draw")] = 0,
    model: Annotated[Model, typer.Option(help="what learns; network: ATSDP-NET+, trained first")] = "regression",
    members: Annotated[int, typer.Option(min=1, max=50, help="models of the ensemble")] = 5,
) -> None:
    """Score every cell: P(sensitive), its spread over models, a label, calibration on lines; with an HTML report."""
    from atsdp_utils.own_cells import drugs
    from atsdp_utils.own_cells.cellfile import InputError

    drugs.find(drug)  # a typing error is told before the rest is imported, which takes seconds
    several = len(drug) > 1 or drug[0].strip().lower() == drugs.ALL
    if several and labels:
        raise InputError(f"--labels {labels}: scores are compared with labels one drug at a time. Name one drug.")
    from atsdp_utils.own_cells import predict as pipeline
    from atsdp_utils.own_cells import ranking

    asked = {
        "out": out, "report": report, "layer": layer, "values": values, "seed": seed, "say": say, "species": species,
        "settings": replace(pipeline.SETTINGS, model=model, members=members),
    }  # fmt: skip
    if several:
        ranking.rank(cells, drug, **asked)
    else:
        pipeline.predict(cells, drug[0], labels=labels, **asked)


@app.command()
@guarded
def drugs() -> None:
    """List the drugs with their sensitive and resistant cell lines."""
    from atsdp_utils.own_cells.drugs import drug_table

    say(drug_table().to_string(index=False))


@app.command()
@guarded
def doctor() -> None:
    """Check Python, packages, data files and disk, one line each."""
    from atsdp_utils.own_cells import doctor as checks

    sys.exit(checks.main())


if __name__ == "__main__":
    app()
