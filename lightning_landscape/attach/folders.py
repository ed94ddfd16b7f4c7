"""Where a callback writes its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_landscape.attach.ranks import on_rank_zero


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


def _run_folder(trainer: pl.Trainer) -> str:
    if not trainer.loggers:
        return trainer.default_root_dir
    logger = trainer.loggers[0]
    save_dir = logger.save_dir if logger.save_dir is not None else trainer.default_root_dir
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(save_dir, str(logger.name), version)
