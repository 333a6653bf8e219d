"""Values of a person's cells: what they are, which rows are no cells, and what they become on the genes used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans

from atsdp_utils.data.preprocess import MIN_GENES, TARGET_SUM, Standardizer
from atsdp_utils.own_cells import cellfile
from atsdp_utils.own_cells.cellfile import CellFile, Genes, InputError, Matrix, dense, dense_chunks, of_other_species

#: Log-normalised values stay below this; counts and TPM do not.
MAX_LOG = 30
#: Below this share of values that are not whole, the others are counts.
DAMAGED = 0.01
#: Bases of logarithms.
BASES = (np.e, 2.0, 10.0)
#: Stands among them for square roots.
ROOT = 0.5
UNKNOWN = "logarithms of unknown base, or none, taken as natural: depth of cells is not judged"
#: Below this share of its standard deviation the mean of a z-scored gene lies (median over genes and the first
#: thousands of cells: a file may hold some of the cells that were scaled together).
CENTRED = 0.3
#: Depths of cells whose logarithms are undone spread less, in standard deviations of their logarithms, even to base 2.
SPREAD = 0.7
NOT_SCORED = "not scored"
#: Why a row has no score; ``scored`` where it has one.
SCORED, ZERO, SHALLOW, FOREIGN, OUTSIDE, BARE = REASONS = (
    "scored", "zero on every gene used", "far less depth than the other cells", "mostly genes of the other species",
    "transcripts outside cells (cell_ID 0)", "spot beside the tissue (in_tissue 0)",
)  # fmt: skip
#: A row is no cell if it is thirty times less deep than the cells that hold most of the file, or ten times (the rule of
#: Cell Ranger 2 for droplets) with a smaller share of the genes of a whole file than quality control asks for.
FAR, FARTHER, GENOME_SIZE = 10, 30, 20_000
#: Droplets are told from cells, however many they are, where fewer than this share of the cells that are at most eight
#: times less deep lie between the two.
NEAR, BETWEEN = 8, 0.2
#: Two kinds of rows are as many times as deep, in logarithms; more rows than this share that fall call for a word.
GAP, MANY = np.log(8), 1 / 3
#: A gene without a count in a batch, where the other cells let expect so many, is not measured there (else by chance
#: once in 20,000 times). A word is said if it is so of more than this share of such genes.
EXPECTED, ABSENT = 10, 0.05
#: A value so many times as large as nearly all others is none that was measured.
ABSURD = 1e6
#: z-scores have a standard deviation of one; with a gene in a hundred above this they are others.
WIDE = 2.5


def from_zero(X: Matrix, asked: str = "auto") -> tuple[Matrix, list[str]]:
    """X less the lowest value of each cell if that stands for zero, as where counts then come back; with a remark."""
    some = dense(_some(X))
    lowest = some.min(1, keepdims=True)
    zeros = 0.3 < np.median((some == lowest).mean(1)) < 1 and (lowest != 0).mean() > 0.9 and np.isfinite(lowest).all()
    powers = (1, 2) if lowest.min() > 0 else (1,)  # what was added before a root is added to the square
    for power in powers if zeros and asked != "zscored" else ():
        above = sparse.csr_matrix(_above_lowest(some, power))
        if _fits(above, (None, ROOT, *(BASES if above.max() <= MAX_LOG else ()))):
            moved = sparse.vstack([sparse.csr_matrix(_above_lowest(part, power)) for part in dense_chunks(X, 1000)])
            said = "most genes of a cell have its lowest value, which is not zero (a number was added?): taken for zero"
            return sparse.csr_matrix(moved), [said]
    return X, []


def _above_lowest(X: np.ndarray, power: int = 1) -> np.ndarray:
    """By how much values, or their squares, are above the lowest of their cell, (cells, genes) float64."""
    high, low = X.astype(np.float64) ** power, X.min(1, keepdims=True).astype(np.float64) ** power
    return np.where(high - low < 1e-5 * np.abs(low), 0, np.abs(high - low)) ** (1 / power)


def detect_values(file: CellFile, asked: str = "auto", every: Matrix | None = None) -> tuple[str, list[str]]:
    """Whether the values are ``counts``, ``lognorm`` or ``zscored``, with remarks; what was asked has the last word.

    `file` may hold the genes of the bulk alone, `every` all of the file.

    Unlogged but scaled values (TPM, CPM) count as counts: dividing by the total and taking logs treats both the same.
    """
    v = _stored(file.X)
    if not np.isfinite(v).all():
        first = _first(file, lambda values: ~np.isfinite(values))
        found = f"{(~np.isfinite(v)).sum():,} values are missing (NaN) or infinite, {first}. Expected finite numbers"
        way = "drop those cells or genes, or fill in zeros where nothing was detected"
        raise InputError(f"{file.path}: {found}; {way}.")
    low, high = float(file.X.min()), float(file.X.max())
    if low == high:
        raise InputError(f"{file.path}: every value is {low:g}. Expected expression; is it in another --layer?")
    some = _some_values(v)
    usual = np.quantile(some[some > 0], 0.99) if (some > 0).any() else 0
    if high > ABSURD * usual > 0:
        found = f"{_first(file, lambda values: values > ABSURD * usual)}, 99 % of the others below {usual:.3g}"
        raise InputError(f"{file.path}: {found}. Expected no such value: correct it, or leave the cell out.")
    broken = _broken(v)
    whole = broken < DAMAGED
    if file.kind == "table" and 0 < broken < DAMAGED and _thousands(v):
        example = f"{_first(file, lambda values: ~_whole(values))}, all others up to 999"
        raise InputError(f"{file.path}: {example}: is the point one of thousands? Write such numbers without it.")
    seen = f"values from {low:.3g} to {high:.3g}, {broken:.0%} of those not zero no integers"
    guess = "counts" if whole or low < 0 else _kind_of_fractions(file.X, file.X if every is None else every)
    if low < 0:
        negative = f"{file.path}: {(v < 0).sum():,} of {np.prod(file.X.shape):,} values are negative ({seen})"
        if asked == "counts":
            first = _first(file, lambda values: values < 0)
            raise InputError(f"{negative}, {first}. Expected no negative counts; take raw counts or another --values.")
        part = dense(file.X[:5000]).astype(np.float64)
        spread = part.std(0)
        off_centre = np.median(np.abs(part.mean(0)) / np.maximum(spread, 1e-9))
        guess = "zscored" if not whole and off_centre < CENTRED else "neither counts, lognorm nor zscored"
        if asked == "auto" and guess != "zscored":
            way = "take raw counts, or say what they are: --values lognorm (corrected for batches), zscored"
            found = f"{negative}, {_first(file, lambda values: values < 0)}, genes not centred at zero"
            raise InputError(f"{found}. Expected no negative counts, or z-scores; {way}.")
        if asked == "auto" and (part >= 0).all(1).mean() > 0.05:
            way = "Score two files, or say --values lognorm if some were corrected for batches."
            raise InputError(f"{negative}, but none in some of the cells: logarithms and z-scores? {way}")
    if asked == "auto" and guess == "counts" and not whole and (others := _no_logarithms(file.X)).any():
        found = f"values above {MAX_LOG} in {others.sum():,} of {len(others):,}, {_first(file, lambda v: v > MAX_LOG)}"
        way = "correct typing errors, and score cells of another unit in another file"
        raise InputError(f"{file.path}: cells hold logarithms, but {found}. Expected one unit: {way}.")
    if asked == "auto" and _of_two_kinds(file.X):
        raise InputError(f"{file.path}: counts in some cells, no whole numbers in others. Score them in two files.")
    kind, of = guess if asked == "auto" else asked, file.X.dtype
    few = f"{broken:.2%}" if broken > 1e-4 else "under 0.01%"
    wide = np.quantile(spread, 0.99) if low < 0 else 1
    said = [
        (kind != guess, f"values look like {guess} ({seen}) but are taken as {asked}, as asked"),
        (kind == "counts" and 0 < broken < DAMAGED, f"{few} of the counts are no integers: damaged, corrected?"),
        (kind == "counts" and not whole and guess != "lognorm",
         "neither integers nor logarithms (TPM, CPM, roots?): values are scaled and logged like counts"),
        (of.kind in "iu" and high == np.iinfo(of).max,
         f"values reach {high:g}, the largest that {of} holds: larger ones were cut or changed"),
        (whole and high == 1, "no value but 0 and 1: detected or not is no count"),
        (kind == guess == "zscored" and low >= 0, "scaled by gene and not centred: used as they are, as z-scores are"),
        (kind == "zscored" and wide > WIDE,
         f"standard deviations of genes reach {wide:.1f}: residuals (SCTransform, Pearson)? Raw counts are better"),
        (low >= 0 and np.count_nonzero(v) > 0.99 * np.prod(file.X.shape),
         "hardly a value is zero: imputed, denoised, offset or bulk, not measured single cells"),
    ]  # fmt: skip
    return kind, [line for holds, line in said if holds]


def _first(file: CellFile, wrong: Callable[[np.ndarray], np.ndarray]) -> str:
    """The first of the values that are wrong, and where it stands."""
    X = sparse.coo_matrix(file.X)
    i = np.flatnonzero(wrong(X.data))[0]
    return f"first {X.data[i]:g} at cell {file.obs.index[X.row[i]]}, gene {next(iter(file.names.values()))[X.col[i]]}"


def _stored(X: Matrix) -> np.ndarray:
    """The values of X that are stored, all those that are not zero among them."""
    return X.data if sparse.issparse(X) else X.ravel()


def _some_values(v: np.ndarray, most: int = 2_000_000) -> np.ndarray:
    """Values at equal steps, about `most` of many."""
    return v[:: max(1, v.size // most)].astype(np.float64)


def _broken(v: np.ndarray) -> float:
    """Share of values that are not whole, among those that are not zero; of some millions."""
    some = _some_values(v)
    return np.mean(~_whole(some[some != 0]))


def _thousands(v: np.ndarray) -> bool:
    """Whether the values that are not whole look like 1.234 for 1,234 among whole ones up to 999."""
    split = v[(v != 0) & ~_whole(v.astype(np.float64))].astype(np.float64)
    return len(split) > 2 and split.min() >= 1 and _whole(1000 * split).all() and v[v % 1 == 0].max() <= 999


def _whole(v: np.ndarray) -> np.ndarray:
    """Whether values are whole numbers but for rounding, as counts that were scaled and scaled back are."""
    near = np.rint(v)
    return (near != 0) & (np.abs(v - near) < 1e-4 * np.maximum(1, np.abs(v) / 10))


def _kind_of_fractions(X: Matrix, every: Matrix) -> str:
    """What values that are not whole are: of logarithms, counts or their multiples come back when undone."""
    if X.max() > MAX_LOG:
        return "zscored" if _scaled_by_gene(X) else "counts"
    some = _some(X)
    if _of_one_total(every) or any(_multiples(some, base)[1].mean() > 0.5 for base in BASES):
        return "lognorm"
    values = _stored(X)
    if _roots(some) or _broken(values) < 0.5 and values[values > 0].min() < 1:  # shared reads; log2 is at least 1
        return "counts"
    if _scaled_by_gene(X):
        return "zscored"
    depth = _sums(_filled(some, np.exp2(some.data) - 1))
    unlike = np.subtract(*np.quantile(np.log(depth[depth > 0]), (0.75, 0.25))) > 1.35 * SPREAD  # a few may be empty
    return "counts" if unlike or _multiples(some, None)[1].mean() > 0.5 else "lognorm"


def _of_one_total(every: Matrix) -> float | None:
    """The base by which cells, undone, have one total over all genes, more so than as they are; None if none does."""
    wide = _some(every)
    if not 0 <= wide.min() <= wide.max() <= MAX_LOG:
        return None
    totals = {b: _sums(wide if b is None else _filled(wide, _undone(wide.data, b))) for b in (None, *BASES)}
    spread = {b: t.std() / max(t.mean(), 1e-9) for b, t in totals.items()}
    best = min(spread, key=spread.get)
    return best if spread[best] < 0.01 else None


def _scaled_by_gene(X: Matrix) -> bool:
    """Whether most genes have one standard deviation, about 1."""
    scale = streaming_standardizer(X).scale_
    low, high = np.quantile(scale[np.isfinite(scale)], (0.25, 0.75)) if np.isfinite(scale).any() else (0, np.inf)
    return high < min(1.02 * low, 2)


def _some(X: Matrix, most: int = 200) -> sparse.csr_matrix:
    """Cells at equal steps, about `most` of many."""
    return sparse.csr_matrix(X[:: max(1, X.shape[0] // most)], dtype=np.float64)


def _no_logarithms(X: Matrix) -> np.ndarray:
    """(rows,) bool: cells with a value that no logarithm reaches, where the others hold logarithms; else none."""
    high = dense(X.max(1)).ravel() > MAX_LOG
    rows = np.flatnonzero(~high)
    if not high.any() or len(rows) < 10:
        return np.zeros(len(high), bool)
    low, typed = _some(X[rows[:: max(1, len(rows) // 200)]]), (_stored(X) > MAX_LOG).sum() < 2 * high.sum()
    logs = _multiples(low, None)[1].mean() <= 0.5 and _kind_of_fractions(low, low) == "lognorm"
    return high & (logs and (typed or bool(_fits(low))))


def _of_two_kinds(X: Matrix) -> bool:
    """Whether some cells hold counts and others no whole numbers; of some thousand cells."""
    some = _some(X, 2000)
    some.eliminate_zeros()
    whole, every = _whole(some.data), _sums(some != 0)
    split, ones = (_sums(_filled(some, of)) for of in (~whole, whole & (np.rint(some.data) == 1)))
    of_counts = (split == 0) & (ones > 0)  # in CPM no value is 1
    of_others = split > 0.9 * np.maximum(every, 20)
    return min(of_counts.mean(), of_others.mean()) > 0.05


def not_cells(
    file: CellFile, X: Matrix, genes: Genes, counted: bool, batch: np.ndarray, least: int = 10
) -> tuple[np.ndarray, list[str]]:
    """Why each row is no cell to score, (rows,) str, by depth within its `batch`; X is on bulk genes. With remarks."""
    reason, detected = np.full(X.shape[0], SCORED, dtype=object), _sums(X != 0)
    foreign = np.flatnonzero(of_other_species(file, genes))
    reason[_sums(file.X[:, foreign] != 0) > detected] = FOREIGN
    if {"cell_ID", "fov"} <= set(file.obs):  # as CosMx calls them
        reason[file.obs["cell_ID"].astype(str).isin(["0", "0.0"]).to_numpy()] = OUTSIDE
    if "in_tissue" in file.obs:  # as Space Ranger calls it
        reason[file.obs["in_tissue"].astype(str).str.lower().isin(["0", "0.0", "false", "out"]).to_numpy()] = BARE
    own = np.flatnonzero((reason == SCORED) & (detected > 0))
    if not counted or not len(own):
        said = "genes of two species, and values that do not tell of which a cell is: score cells of one species alone"
        return reason, [said] * bool(len(foreign) and len(own) and np.median(detected[own]) > 0.8 * X.shape[1])
    depth, doubtful = _sums(X), 0
    few = detected < MIN_GENES * X.shape[1] / GENOME_SIZE
    for rows in (own[batch[own] == code] for code in np.unique(batch[own])):
        order = np.sort(depth[rows])
        typical = order[np.searchsorted(np.cumsum(order), order.sum() / 2)]  # half of the counts is deeper
        farther, lower = depth[rows] < typical / FARTHER, _lower_of_two(depth[rows])
        near = depth[rows] >= typical / NEAR
        apart = (~near & ~farther).sum() < BETWEEN * near.sum()
        clear = lower.any() or apart or farther.mean() < MANY
        shallow = (few[rows] & (depth[rows] < typical / FAR)) | (farther & clear)
        if near.sum() < least <= shallow.sum() and few[rows[shallow]].mean() < 0.5:  # else empty droplets
            raise InputError(f"{file.path}: {_too_deep(file, X, genes, rows[near], np.median(depth[rows]))}")
        reason[rows[shallow]] = SHALLOW
        doubtful += (shallow | farther | lower).sum()
    raw = "a raw matrix with empty droplets (take filtered_feature_bc_matrix, or EmptyDrops)"
    two = "two kinds of cells, libraries or values (score them in two files, or name them in a column 'batch')"
    said = f"{doubtful:,} of {len(own):,} cells are far less deep than the others: {raw}, or {two}?"
    return reason, [said] if doubtful > MANY * len(own) else []


def _too_deep(file: CellFile, X: Matrix, genes: Genes, rows: np.ndarray, usual: float) -> str:
    """What is said of rows that are far deeper than all others, whose depth is `usual`."""
    total, cells = _sums(sparse.csr_matrix(X[rows]).T), cellfile.listed(file.obs.index[rows], 4)
    found = f"{cells}: {total.sum() / len(rows) / usual:,.0f} times the depth of the other cells"
    name = genes.symbol[genes.symbol != ""][total.argmax()]
    most = f", most of it in gene {name}" if total.max() > total.sum() / 2 else ""
    return f"{found}{most}. Expected like cells: a control, a sum, an annotation, a typing error? Correct or leave out."


def _lower_of_two(depth: np.ndarray) -> np.ndarray:
    """(rows,) bool: the lower of two kinds of rows with few depths between them; none if there is one kind."""
    log = np.log(depth)[:, None]
    if np.ptp(log) < GAP:
        return np.zeros(len(log), bool)
    kinds = KMeans(2, n_init=5, random_state=0).fit(np.sort(log, axis=0))
    apart = np.ptp(kinds.cluster_centers_) > GAP and kinds.inertia_ < 0.15 * len(log) * log.var()
    return apart & (log.ravel() < kinds.cluster_centers_.mean())


def _sums(X: Matrix) -> np.ndarray:
    return np.asarray(X.sum(1, dtype=np.float64)).ravel()


def _filled(X: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    """X with other values in the places of its own."""
    return sparse.csr_matrix((data, X.indices, X.indptr), X.shape)


def unscored(path: Path, reason: np.ndarray, least: int) -> list[str]:
    """What is said of rows without a score; an :class:`InputError` if fewer than `least` cells remain."""
    why = pd.Series(reason[reason != SCORED]).value_counts()
    n = int((reason == SCORED).sum())
    if n < least:
        others = "".join(f"; {count:,} more are {said}" for said, count in why.items())
        expected = f"at least {least}, better hundreds: genes are standardised over the cells of the file"
        raise InputError(f"{path}: {n} cells with values{others}. Expected {expected}.")
    return [f"{NOT_SCORED} (atsdp_label): {count:,}; atsdp_reason: {said}" for said, count in why.items()]


def dominant(X: Matrix, symbol: np.ndarray) -> list[str]:
    """A remark if one gene holds most of all counts, as an intensity or annotation of cells called like a gene does."""
    of_gene = np.asarray(X.sum(0)).ravel()
    most = int(of_gene.argmax())
    share = of_gene[most] / max(of_gene.sum(), 1)
    said = f"{share:.0%} of the counts of all genes are in {symbol[most]}: a measurement that is called like a gene?"
    return [said] if share > 0.5 else []


def absent(X: sparse.csr_matrix, parts: dict[str, np.ndarray], scored: np.ndarray) -> list[str]:
    """What is said of parts of a file in which genes that the other cells have were not measured; X are counts."""
    notes = []
    for name, codes in parts.items():
        rows = np.flatnonzero(scored & (codes >= 0))
        members = sparse.csr_matrix((np.ones(len(rows)), (codes[rows], rows)), (codes.max() + 1, len(codes)))
        by_code = members @ X
        total = np.asarray(by_code.sum(0)).ravel()
        for code in range(by_code.shape[0]):
            own = by_code[[code]].toarray().ravel()
            others = total - own
            expected = others / max(others.sum(), 1) * own.sum()
            missing = (own == 0) & (expected > EXPECTED)
            if missing.sum() > ABSENT * (expected > EXPECTED).sum():
                n = f"{missing.sum():,} genes of the bulk that the other cells have"
                cells = f"{(codes == code).sum():,} cells of one value of {name}"
                notes.append(f"{n} are zero in all {cells}: not measured there? Join files by the genes of all only")
    return notes


def counts(X: Matrix, every: Matrix, kind: str, chunk: int) -> tuple[sparse.csr_matrix | None, list[str]]:
    """Counts as they were before they were scaled and logged, (cells, genes) float64; None for values that hold none.

    Logarithms are undone. Values that mostly are whole are taken as they are. Else, values of a cell that are multiples
    of one number become these multiples, exactly: counts, their logarithms and CPM of the same cells are then the same.
    A cell whose values are no multiples (TPM; large counts logged in half precision) keeps them, in units of a low one:
    the smaller that is, the deeper was the cell. With remarks. Logarithms have the base by which most cells are
    multiples, or the cells of the whole file (`every`, all genes) have one total; else roots are tried, or e assumed.
    """
    if kind == "zscored" or (kind == "lognorm" and not 0 <= X.min() <= X.max() <= MAX_LOG):
        return None, []
    base, notes, some = None, [], _some(X)
    broken = _broken(_stored(X)) if kind == "counts" else 1.0
    if kind == "lognorm":
        base = _of_one_total(every) or next(iter(_fits(some)), None)
    if base is None and broken and _roots(some):
        base, notes = ROOT, ["square roots: counts are their squares"]
    elif kind == "lognorm":
        said = f"logarithms to base {base:g}" if base else UNKNOWN
        base, notes = base or BASES[0], [said] * (base != BASES[0])
    elif broken < 0.5:
        return sparse.csr_matrix(X, dtype=np.float64), []
    rows = (sparse.csr_matrix(X[start : start + chunk], dtype=np.float64) for start in range(0, X.shape[0], chunk))
    return sparse.csr_matrix(sparse.vstack([_multiples(part, base)[0] for part in rows])), notes


def _fits(X: sparse.csr_matrix, bases: tuple = BASES) -> list[float | None]:
    """The bases by which most cells are multiples, first that by which most are small ones, as counts are."""
    fit = {}
    for base in bases:
        multiples, found = _multiples(X, base)
        times = multiples.data[np.repeat(found, np.diff(multiples.indptr))]
        small = (times[times > 1] < 9.5).sum() / max((times > 1).sum(), 1)
        if found.mean() > 0.5 and (small > 0.4 or (times > 1).mean() < 0.05):  # or nearly all counts are one
            fit[base] = found.mean() * small
    return sorted(fit, key=fit.get, reverse=True)


def _roots(X: sparse.csr_matrix) -> bool:
    """Whether values are square roots: in most cells their squares are multiples, and they are none themselves."""
    return _multiples(X, None)[1].mean() <= 0.5 and ROOT in _fits(X, (ROOT,))


def _undone(values: np.ndarray, base: float) -> np.ndarray:
    """What values are the logarithms to `base` of, after one was added; or the square roots of."""
    return values**2 if base == ROOT else np.expm1(values * np.log(base))


def _multiples(X: sparse.csr_matrix, base: float | None) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Some rows of :func:`counts`, and which of them are multiples, (rows,) bool; values are logarithms to `base`."""
    X.eliminate_zeros()
    sizes = np.diff(X.indptr)
    data = linear = X.data
    if base is not None:  # rounded, or a file's precision would be learned
        linear, data = (_undone(v.astype(np.float64), base) for v in (X.data, _half(X.data)))
    row, filled = np.repeat(np.arange(len(sizes)), sizes), np.flatnonzero(sizes)
    least, found = np.ones(len(sizes)), np.zeros(len(sizes), bool)
    least[filled] = np.minimum.reduceat(linear, X.indptr[filled]) if len(filled) else 1
    order, start = np.lexsort((data, row)), X.indptr[filled]
    median = data[order[start + sizes[filled] // 2]]
    tiny = np.bincount(row, data < 0.01 * median[np.searchsorted(filled, row)], len(sizes))[filled].astype(int)
    low = order[start + tiny + (sizes[filled] - tiny) // 10]
    data = data / np.maximum(data[low], np.finfo(np.float32).tiny)[np.searchsorted(filled, row)]
    for unit in (least, least / 2, least / 3):  # the smallest value of a cell is mostly that of one count
        multiple = linear / unit[row]
        off = np.abs(multiple - np.rint(multiple)) > np.minimum(0.2, 2e-3 * multiple)
        off |= multiple > 1e8  # where every number is whole, as beside the residues of a decontamination
        tens = [k * unit for k in (1, 2, 3)]  # a unit of 0.1, 0.01, ... is the last digit that a file was rounded to
        digit = (unit < 0.4) & np.any([abs(t - 10.0 ** np.rint(np.log10(t))) < 1e-3 * t for t in tens], axis=0)
        new = ~found & ~digit & (np.bincount(row, off, len(sizes)) == 0)
        data, found = np.where(new[row], np.rint(multiple), data), found | new
    return _filled(X, data), found


def shared_matrix(X: Matrix, symbol: np.ndarray, chosen: np.ndarray, counted: bool) -> tuple[Matrix, list[str]]:
    """Values on the genes `chosen`, (cells, genes) float32: :func:`counts` as logarithms at one depth, others as given.

    X holds genes of the bulk only, called `symbol`. Of genes measured twice counts are summed, of other values the most
    variable is kept. Half precision keeps the order of a sum from changing what is learned.
    """
    position = pd.Index(chosen).get_indexer(symbol)
    columns = np.flatnonzero(position >= 0)
    twice = len(columns) - len(chosen)
    if counted:
        way, total = "their counts are summed", _sums(X)
        pick = sparse.csr_matrix((np.ones(len(columns)), (columns, position[columns])), (X.shape[1], len(chosen)))
        Z = sparse.csr_matrix(sparse.diags(TARGET_SUM / np.where(total > 0, total, np.inf)) @ (X @ pick))
        Z.data = np.log1p(Z.data)
    else:
        way, part = "the most variable of each is kept", X[:, columns]
        spread = streaming_standardizer(part).scale_ if twice else np.ones(len(columns))
        order = np.lexsort((np.where(np.isinf(spread), 0, -spread), position[columns]))
        first = np.unique(position[columns][order], return_index=True)[1]
        Z = part[:, order[first]]
    Z = _filled(Z, _half(Z.data)) if sparse.issparse(Z) else _half(Z)
    if not twice:
        return Z, []
    names = pd.Series(symbol[columns])
    doubled = cellfile.listed(names[names.duplicated()].unique(), 4)
    return Z, [f"{twice} of the genes used are measured more than once: {way} ({doubled})"]


def _half(V: np.ndarray) -> np.ndarray:
    """Values rounded to half precision, as float32."""
    return np.clip(V, np.finfo(np.float16).min, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)


def canonical(Z: Matrix, chunk: int) -> np.ndarray:
    """Rows of Z in the order of a weighted sum of values: that of the file stays unknown, rounding moves little."""
    scale = streaming_standardizer(Z, chunk).scale_
    weights = np.random.default_rng(0).normal(size=(Z.shape[1], 2)) / scale[:, None]
    return np.lexsort((Z.astype(np.float64) @ weights).T)


def streaming_standardizer(X: Matrix, chunk: int = 4096) -> Standardizer:
    """A fitted :class:`preprocess.Standardizer`, from two passes over chunks of X."""
    n = X.shape[0]
    mean = sum(block.sum(0, dtype=np.float64) for block in dense_chunks(X, chunk)) / n
    variance = sum(((block - mean) ** 2).sum(0) for block in dense_chunks(X, chunk)) / n
    scaler = Standardizer()
    scaler.mean_, scaler.scale_ = mean, np.where(variance > 1e-12, np.sqrt(variance), np.inf)
    return scaler
