"""Run a command while holding the checkout's lock: ``python3 book/lock.py LOCKFILE COMMAND ...``.

Two `make reproduce` in one checkout would write the same files; the second waits here and says so. Standard library
only and run by its path, because it also guards the installation of everything else. The lock is the kernel's
(``flock``), so it ends with its holders however they end: a killed run leaves nothing to clean up.
"""

import fcntl
import os
import sys


def main(lockfile: str, *command: str) -> None:
    """Take the lock, then become `command`; the open file, and with it the lock, is inherited."""
    os.makedirs(os.path.dirname(lockfile) or ".", exist_ok=True)
    descriptor = os.open(lockfile, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 64).decode().strip() or "unknown"
        print(f"Another make (process {holder}) is at work in this checkout; waiting for it to end.", file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    os.set_inheritable(descriptor, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
