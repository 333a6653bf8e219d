"""A deterministic part of tests/chaos/chaos.py: a kill at a known moment, workers without a parent, no network."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

from atsdp_utils.foundation import paths

pytestmark = pytest.mark.slow
SPEC = importlib.util.spec_from_file_location("chaos", paths.ROOT / "tests" / "chaos" / "chaos.py")
chaos = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(chaos)

#: A pool of two workers that wait, without the weight of the package's trainings.
WAITING = """
import time
from atsdp_utils.foundation import pool
list(pool.by_loky(time.sleep, [(120,), (120,)], jobs=2))
"""
#: Put on PYTHONPATH: every process notes connections and look-ups that leave the machine, and refuses them.
GUARD = """
import os, socket
def note(line):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(line + "\\n")
def check(host):
    if host is not None and str(host) not in ("localhost", "::1") and not str(host).startswith("127."):
        note(str(host))
        raise OSError("no network here")
def guarded_getaddrinfo(host, *arguments, **options):
    check(host)
    return getaddrinfo(host, *arguments, **options)
class Socket(socket.socket):
    def connect(self, address):
        if isinstance(address, tuple):
            check(address[0])
        return super().connect(address)
getaddrinfo, socket.getaddrinfo, socket.socket = socket.getaddrinfo, guarded_getaddrinfo, Socket
note("guarded")
"""
#: Fewer trainings than the script's.
chaos.CODE = chaos.CODE.replace("range(3)", "range(1)").replace('"Logistic", "CNN"', '"Logistic"')


def test_workers_end_with_a_killed_parent(tmp_path):
    surroundings = os.environ | {"ATSDP_BUILD": str(tmp_path / "build"), "ATSDP_LOG": os.devnull}
    process = subprocess.Popen([sys.executable, "-c", WAITING], env=surroundings, stderr=subprocess.DEVNULL)
    parent = chaos.psutil.Process(process.pid)
    until = time.monotonic() + 60
    while len(chaos.family(parent).get("worker", [])) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    workers = chaos.family(parent)["worker"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    gone, alive = chaos.psutil.wait_procs(workers, timeout=30)
    assert len(gone) == 2 and alive == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run of the tiny grid, under the guard of the network."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "sitecustomize.py").write_text(GUARD)
    vehicle = chaos.Vehicle(folder, jobs=1)
    vehicle.extra = {"PYTHONPATH": str(folder), "NETWORK_LOG": str(folder / "network")}
    vehicle.finish(240)
    return vehicle


def test_embedded_data_need_no_network(reference):
    assert set((reference.build.parent / "network").read_text().split()) == {"guarded"}


def test_the_guard_notices_a_connection(reference):
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    log = reference.build.parent / "attempt"
    surroundings = reference.surroundings | {"NETWORK_LOG": str(log)}
    assert subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True).returncode
    assert log.read_text().split() == ["guarded", "192.0.2.1"]


def test_a_run_killed_after_some_results_ends_with_the_same_table(reference):
    expected = reference.table.read_bytes()
    reference.forget(keep=("datasets",))
    process = reference.start()
    results = reference.build / "cache" / "results"
    until = time.monotonic() + 120
    while len(list(results.glob("*/*.npz"))) < 2 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not reference.table.exists()
    assert 2 <= len(list(results.glob("*/*.npz"))) < 5
    reference.finish(240)
    chaos.same(reference, expected)
