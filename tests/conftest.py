"""Shared fixtures. No test reaches the network: a connection to anything but this machine is an error."""

import ipaddress
import os
import socket
from collections import Counter
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")


def _is_local(address) -> bool:
    if not isinstance(address, tuple):  # a path or an abstract name: AF_UNIX
        return True
    try:
        return address[0] == "localhost" or ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Let sockets connect to AF_UNIX and loopback only, and names resolve only if they are local."""
    patch = pytest.MonkeyPatch()
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address) -> None:
        if not _is_local(address):
            raise RuntimeError(f"a test tried to reach {address}; tests use files they make or localhost")

    def guarded_connect(self, address):
        refuse(address)
        return connect(self, address)

    def guarded_connect_ex(self, address):
        refuse(address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host, *arguments, **options):
        if host is not None:
            refuse((host.decode() if isinstance(host, bytes) else host,))
        return getaddrinfo(host, *arguments, **options)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    yield
    patch.undo()


@pytest.fixture
def run_folders(tmp_path, monkeypatch):
    """Send what a run writes to a temporary folder; returns it."""
    from atsdp_utils.foundation import paths

    build, cache = tmp_path / "build", paths.CACHE
    monkeypatch.setattr(paths, "BUILD", build)
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    for name, folder in vars(paths).copy().items():
        if isinstance(folder, Path) and folder.is_relative_to(cache):
            monkeypatch.setattr(paths, name, build / "cache" / folder.relative_to(cache))
    return tmp_path


def pytest_collection_modifyitems(items):
    """Mark as `unit` what tests a room of the package and is not slow; put files that may take longest first.

    A worker takes a file whole, so that a long one at the end would keep the others waiting.
    """
    rooms = {path.name for path in (Path(__file__).parents[1] / "atsdp_utils").iterdir() if path.is_dir()}
    for item in items:
        if item.path.parent.name in rooms and "slow" not in item.keywords:
            item.add_marker("unit")
    allowed = Counter()  # seconds by file
    for item in items:
        if "slow" in item.keywords:
            limit = item.get_closest_marker("timeout")
            allowed[item.path] += limit.args[0] if limit else float(item.config.getini("timeout"))
    items.sort(key=lambda item: -allowed[item.path])
