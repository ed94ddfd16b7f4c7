"""Where a callback writes its files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytorch_lightning as pl

from lightning_landscape.attach.ranks import on_rank_zero
from lightning_landscape.either_lightning import MisconfigurationException


def resolve_folder(trainer: pl.Trainer, dirpath: str | os.PathLike[str] | None, default: str) -> Path:
    """The absolute folder for a callback's files, the same in every process; call it in ``setup``.

    Args:
        trainer: the trainer that the callback is attached to.
        dirpath: the folder that the user asked for, if any.
        default: folder to use without ``dirpath``, relative to where ``ModelCheckpoint`` makes its
            ``checkpoints``: the first logger's ``save_dir/name/version``, else ``default_root_dir``.

    Raises:
        MisconfigurationException: if the folder is on a remote file system.
    """
    own = os.fspath(dirpath) if dirpath is not None else os.path.join(_run_folder(trainer), default)
    # A version may be numbered by rank zero alone.
    folder = on_rank_zero(trainer, lambda: own, "the choice of a folder")
    if "://" in folder:
        raise MisconfigurationException(
            f"files are written and renamed in a local folder, and {folder!r} is remote: pass dirpath='/a/local/folder'"
        )
    return Path(os.path.abspath(folder))


def require_writable(folder: Path) -> None:
    """Refuses a folder in which no file can be made; it need not be there yet, and nothing is left behind.

    Raises:
        MisconfigurationException: naming the folder and what stands in the way.
    """
    try:
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"1")
    except OSError as error:
        raise MisconfigurationException(
            f"no file can be written into {folder} ({error}): make it a folder that you may write to, or pass another "
            "dirpath="
        ) from error


def _run_folder(trainer: pl.Trainer) -> str:
    if not trainer.loggers:
        return trainer.default_root_dir
    logger = trainer.loggers[0]
    save_dir = logger.save_dir if logger.save_dir is not None else trainer.default_root_dir
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(save_dir, str(logger.name), version)
