"""The subcommands that train and evaluate: a LightningCLI with a last word on the landscape."""

from __future__ import annotations

import os

from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import WandbLogger


class LandscapeCLI(LightningCLI):
    """A LightningCLI that closes a fit with the tables of what the landscape callbacks have found.

    Model and data are chosen by ``class_path``, so a user's own classes work as they are. The resolved
    configuration goes to ``resolved_<subcommand>.yaml`` in the run's folder, where ``validate`` does not
    overwrite what ``fit`` wrote and nothing overwrites a ``config.yaml`` of the user's.
    """

    def before_instantiate_classes(self) -> None:
        """Name the saved configuration after the subcommand."""
        self.save_config_kwargs = {"config_filename": f"resolved_{self.subcommand}.yaml", "overwrite": True}

    def after_fit(self) -> None:
        """Print what each landscape callback found and where an offline W&B run lies, on rank zero."""
        # Imported here so that `landscape --help` waits for neither matplotlib nor the path finders.
        from rich.console import Console

        from lightning_landscape.callbacks import LevelSetConnectivity, MergeTree

        if not self.trainer.is_global_zero:
            return
        console = Console()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined] # declared nowhere by Lightning
            if isinstance(callback, LevelSetConnectivity | MergeTree):
                console.print(callback.summary())
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                console.print(
                    f"W&B run: {os.path.abspath(os.path.dirname(logger.experiment.dir))}", markup=False, soft_wrap=True
                )
