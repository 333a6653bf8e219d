"""Worker processes: many calls at once, with a progress bar; a killed worker costs only what it was at."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from joblib import Parallel, delayed
from tqdm import tqdm

#: Environment variable with the address of a dask scheduler; without it ``BACKEND=dask`` starts a local cluster.
SCHEDULER = "ATSDP_DASK_SCHEDULER"
#: A pool that lost workers is started again this often without any call finishing in between.
MAX_RESTARTS = 3


def call_all(function: Callable, arguments: list[tuple], *, jobs: int = 1, backend: str = "loky", label: str) -> None:
    """Call a function many times in worker processes, with a progress bar; what it returns is dropped.

    Parameters
    ----------
    function : callable
        Called with each of `arguments`, in no fixed order; an error of a call is raised here.
    arguments : list of tuple
        Positional arguments of each call.
    jobs : int
        Number of workers; with 1 (and loky) the calls are made in this process.
    backend : str
        ``loky`` (joblib) or ``dask`` (extra ``[cluster]``).
    label : str
        Name of the progress bar.

    Raises
    ------
    ValueError
        If the backend is unknown.
    RuntimeError
        If workers (of loky) keep dying: more than :data:`MAX_RESTARTS` times without a call finishing in between.
    """
    ways = {"loky": by_loky, "dask": by_dask}
    if backend not in ways:
        raise ValueError(f"BACKEND: got {backend!r}, expected 'loky' or 'dask'")
    if not arguments:
        return
    with _log() as log:
        # a screen that keeps every line (a pipe, CI) gets fewer of them
        pause = 20 if log is sys.stderr and not log.isatty() else 2
        done, total = ways[backend](function, arguments, jobs), len(arguments)
        for _ in tqdm(done, label, total, unit="task", mininterval=pause, file=log, ncols=78):
            pass


def _log() -> contextlib.AbstractContextManager[TextIO]:
    """Where progress goes: the file ``ATSDP_LOG`` of a notebook's run (Make shows it), else the screen."""
    name = os.environ.get("ATSDP_LOG")
    return open(name, "a", encoding="utf-8", buffering=1) if name else contextlib.nullcontext(sys.stderr)


def workers(jobs: int, **options) -> Parallel:
    """Worker processes that end with this one; `options` go to :class:`joblib.Parallel`."""
    return Parallel(jobs, initializer=_live_with, initargs=(os.getpid(),), **options)


def _live_with(parent: int) -> None:
    """First act of a worker: end when `parent` does. After a SIGKILL of it nobody else would tell the worker."""
    from joblib.externals.loky import process_executor

    # loky ends a worker that grows by 300 MB, which is what importing torch and reading a data set does.
    process_executor._MAX_MEMORY_LEAK_SIZE = float("inf")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def by_loky(function: Callable, arguments: list[tuple], jobs: int) -> Iterator[int]:
    """Indices of finished calls, unordered; a killed worker costs what was running, and the pool starts again."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    def call(index: int, given: tuple) -> int:
        function(*given)
        return index

    left, restarts = dict(enumerate(arguments)), 0
    while left:
        try:
            calls = (delayed(call)(i, given) for i, given in list(left.items()))
            for i in workers(jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs")(calls):
                del left[i]
                restarts = 0
                yield i
        except TerminatedWorkerError as error:
            restarts += 1
            if restarts > MAX_RESTARTS:
                raise RuntimeError(
                    f"workers died {restarts} times in a row with {len(left)} tasks left (out of memory? try a smaller "
                    "JOBS); finished tasks are kept, run again to continue"
                ) from error
            with _log() as log:
                print(f"a worker was killed; starting again with {len(left)} tasks left", file=log)


def by_dask(function: Callable, arguments: list[tuple], jobs: int) -> Iterator:
    """A result a call; dask runs those of a lost worker again. joblib's own backend for it could move no bar."""
    from distributed import Client, LocalCluster, as_completed

    address = os.environ.get(SCHEDULER)
    with contextlib.ExitStack() as stack:
        if not address:
            address = stack.enter_context(LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None))
        client = stack.enter_context(Client(address))
        futures = [client.submit(function, *a, pure=False) for a in arguments]
        yield from (future.result() for future in as_completed(futures))
