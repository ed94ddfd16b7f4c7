"""One running process a folder: who writes into it, and whether the last one ended well."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

LOCK = "running.lock"  # there while a run writes into the folder, and after one that did not end
_held: dict[Path, Claim] = {}  # by the lock's path; a process never refuses a lock to itself


class Claim:
    """A folder that one run of one process writes into, until it ends or the process is gone.

    The claim is a lock of the operating system on a file, which ends with the process. It keeps apart runs on one
    machine, in containers too, and runs on several where the shared disk passes locks on, as NFS, Lustre with ``flock``
    and GPFS do. Child processes do not inherit it. A folder that cannot be locked is claimed with a warning.

    Attributes:
        folder: the folder.
        interrupted: whether the run that wrote here before did not end.
    """

    def __init__(self, folder: Path, path: Path, run: object, handle: int, interrupted: bool, made: bool) -> None:
        self.folder = folder
        self._path = path
        self.interrupted = interrupted
        self._run = run
        self._handle = handle
        self._made = made
        self._holders = 1

    @classmethod
    def take(cls, folder: Path, run: object) -> Claim | None:
        """Claims a folder, which is made if need be.

        Args:
            folder: where the run wants to write.
            run: stands for the run; whoever claims for the same object shares the claim.

        Returns:
            The claim; ``None`` if another run has it.

        Example:
            >>> from tempfile import mkdtemp
            >>> folder, run = Path(mkdtemp()), object()
            >>> claim = Claim.take(folder, run)
            >>> Claim.take(folder, object()) is None, Claim.take(folder, run) is claim
            (True, True)
        """
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / LOCK
        known = _held.get(path)
        if known is not None:
            if known._run is not run:
                return None
            known._holders += 1
            return known
        while True:
            interrupted = path.exists()
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _lock(handle, path):
                os.close(handle)
                return None
            # Its holder may have ended, and removed the file, between the two calls.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
            os.close(handle)
        claim = _held[path] = cls(folder, path, run, handle, interrupted, made)
        return claim

    def end(self) -> None:
        """The run has ended, or leaves the folder as it found it."""
        self._leave(remove=True)

    def abandon(self) -> None:
        """The run was interrupted, and may be resumed here."""
        self._leave(remove=False)

    def _leave(self, remove: bool) -> None:
        self._holders -= 1
        path = self._path
        if self._holders or _held.pop(path, None) is None:
            return
        with contextlib.suppress(OSError):  # the folder was lost while the run went on
            if remove and os.name != "nt":  # while it is locked: closed, it may be another run's
                path.unlink()
        os.close(self._handle)
        with contextlib.suppress(OSError):  # another run has it, or something was written
            if remove and os.name == "nt":  # Windows removes no open file
                path.unlink()
            if remove and self._made:
                self.folder.rmdir()


def _lock(handle: int, path: Path) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (PermissionError, BlockingIOError):
        return False
    except OSError as error:
        warnings.warn(f"{path} cannot be locked ({error}): see to it that no other run writes there", stacklevel=2)
    return True
