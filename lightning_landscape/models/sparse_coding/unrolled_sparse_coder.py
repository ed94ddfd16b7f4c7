"""Unrolled sparse coding: a network whose layers are learned iterations of ISTA."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_landscape.models.sparse_coding.sparse_coding_scores import SparseCodingScores
from lightning_landscape.models.sparse_coding.warm_start import prefix_state, require_same_layer, require_same_problem
from lightning_landscape.models.theorems.squared_error import require_counts
from lightning_landscape.sparse_coding.batch import SparseCodingBatch, sparse_coding_batch
from lightning_landscape.sparse_coding.layers import LAYERS, UnrolledLayer
from lightning_landscape.sparse_coding.problem import LassoProblem, lasso_objective

# Help and errors of the command line name the kinds: jsonargparse reads them, where mypy wants a list in the source.
LayerName = Literal[tuple(LAYERS)]  # type: ignore[valid-type]
_OWN_ARGUMENTS = ("problem", "index", "noise", "start")  # of a layer, which the network gives it


class UnrolledSparseCoder(LightningModule):
    """Codes signals by K learned layers: ``z_0 = 0, z_{k+1} = layer_k(x, z_k, z_{k-1})``, ``forward(x) = z_K``.

    Untrained, every network but ALISTA (see :class:`~lightning_landscape.sparse_coding.layers.ALISTALayer`) and
    LISTA-CP with support selection is K iterations of ISTA, L-FISTA of FISTA.

    A batch is a :class:`~lightning_landscape.sparse_coding.SparseCodingBatch`, or signals alone, or what else
    :func:`~lightning_landscape.sparse_coding.sparse_coding_batch` reads. The training loss is the mean of
    ``F(z_K)``, which needs no codes (``loss="unsupervised"``), or of ``||z_K - code||^2`` (``"supervised"``). Adam
    trains it, and its rate falls by ``decay`` when ``val/loss`` has not improved for ``patience`` epochs. To keep the
    best weights give the trainer a ``ModelCheckpoint(monitor="val/loss")``, as the recipes do: after ``fit`` the module
    holds the last ones.

    Logged are ``train/loss`` at every step; per epoch ``val/loss`` and, from the optima that batches carry,
    ``val/suboptimality_<k>``, the mean of ``F(z_k) - F*``, for k = 1, ..., K, in float64. A test logs the same, and
    ``test/suboptimality``; ``test/ista_iterations`` and ``test/fista_iterations``, how many iterations reach the same
    mean objective (infinity for more than ``max_iterations``); and, where codes are known, ``test/nmse`` in dB and
    ``test/support_recall``.

    The problem is given by ``dictionary`` and ``lam``, or taken from the data module that the network is first fitted
    on, as by ``landscape fit``; it becomes part of every checkpoint, so that ``load_from_checkpoint`` needs neither.

    Args:
        layer: kind of the layers, a key of ``lightning_landscape.sparse_coding.LAYERS``.
        depth: K, the number of layers.
        dictionary: D (n, m), float32 or float64; ``None`` for that of the data module, attribute ``dictionary``.
        lam: weight of the l1 norm; ``None`` for that of the data module, attribute ``lam``.
        loss: ``"unsupervised"`` or ``"supervised"``.
        loss_over: ``"last"`` trains z_K alone, whose inner layers are no codes of their own; ``"all"`` trains the mean
            loss of z_1, ..., z_K, so that one network serves every depth: ``iterates(x)[k]``.
        learning_rate: step size of Adam, positive.
        decay: factor of the learning rate on a plateau, in (0, 1).
        patience: epochs without a better ``val/loss`` before it falls.
        init_noise: how far from ISTA the layers start: 0 is exactly there; otherwise matrices are moved by this share
            of their own size, and steps and thresholds by factors ``exp(init_noise * Gaussian)``. Without it twins
            would not differ.
        warm_start: checkpoint of a network of the same kind, on the same problem and not deeper, whose layers the first
            ones continue from; see :meth:`load_shallower`.
        layer_options: further arguments of the layers, such as ``{"mu": 1.0}`` of ``facnet_free``.
        max_iterations: how far a test runs ISTA and FISTA.

    Attributes:
        layers: the K layers; empty until the problem is known.
        trained_depth: the number of layers that the training loss is of; K, unless
            :class:`~lightning_landscape.models.sparse_coding.StageWise` trains them one after another.

    Raises:
        ValueError: if an argument is out of its range or does not go with the layer; if only one of ``dictionary``
            and ``lam`` is given, or as :class:`~lightning_landscape.sparse_coding.LassoProblem` refuses them. For
            signals of another shape or type than the dictionary asks for, or that are not finite (in training on the
            CPU alone; on an accelerator the next validation on such signals says so).
        MisconfigurationException: in a fit, if the data module has no dictionary and none was given, or has another.

    Example:
        >>> from lightning_landscape.sparse_coding import LassoProblem, ista
        >>> dictionary, x = torch.eye(3), torch.tensor([[2.0, 0.25, -1.0]])
        >>> network = UnrolledSparseCoder("lista", depth=2, dictionary=dictionary, lam=0.5)
        >>> network(x).tolist(), ista(network.problem, x, num_iterations=2).tolist()
        ([[1.5, 0.0, -0.5]], [[1.5, 0.0, -0.5]])
    """

    dictionary: Tensor | None

    def __init__(
        self,
        layer: LayerName = "lista",  # type: ignore[valid-type]
        depth: int = 7,
        dictionary: Tensor | None = None,
        lam: float | None = None,
        loss: Literal["unsupervised", "supervised"] = "unsupervised",
        loss_over: Literal["last", "all"] = "last",
        learning_rate: float = 1e-3,
        decay: float = 0.5,
        patience: int = 5,
        init_noise: float = 0.0,
        warm_start: str | Path | None = None,
        layer_options: dict[str, float] | None = None,
        max_iterations: int = 1000,
    ) -> None:
        super().__init__()
        _require(layer in LAYERS, f"layer must be one of {[*LAYERS]}, got {layer!r}")
        require_counts(depth=depth, max_iterations=max_iterations)
        _require(isinstance(patience, int) and patience >= 0, f"patience must be an integer from 0, got {patience!r}")
        _require(loss in ("unsupervised", "supervised"), f"loss must be 'unsupervised' or 'supervised', got {loss!r}")
        _require(loss_over in ("last", "all"), f"loss_over must be 'last' or 'all', got {loss_over!r}")
        _require(0 < learning_rate < math.inf, f"learning_rate must be positive and finite, got {learning_rate!r}")
        _require(0 < decay < 1, f"decay must lie in (0, 1), got {decay!r}")
        _require(0 <= init_noise < math.inf, f"init_noise must be finite and at least 0, got {init_noise!r}")
        _require(
            (dictionary is None) == (lam is None),
            "dictionary and lam go together: give both, or neither to take them from the data module",
        )
        options = dict(layer_options or {})
        known = [name for name in inspect.signature(LAYERS[layer]).parameters if name not in _OWN_ARGUMENTS]
        unknown = sorted(options.keys() - set(known))
        _require(not unknown, f"layer_options {unknown} are no options of {layer!r}, which has {known}")
        # A plain string, because checkpoints that hold a Path do not load with weights_only.
        warm_start = None if warm_start is None else str(warm_start)
        # The problem is saved beside the weights: its tensor is nothing for a logger.
        self.save_hyperparameters(ignore=["dictionary", "lam"])
        self.depth = depth
        self.loss = loss
        self.loss_over = loss_over
        self.trained_depth = depth
        self.learning_rate = learning_rate
        self.decay = decay
        self.patience = patience
        self._build = (LAYERS[layer], {"noise": init_noise, **options})
        self._warm_start = warm_start
        self._reference: LassoProblem | None = None
        self.layers = nn.ModuleList()
        self.register_buffer("dictionary", None)
        self.scores = SparseCodingScores(max_iterations)
        if dictionary is not None and lam is not None:
            self._set_problem(LassoProblem(dictionary, lam))
            self._continue()

    @property
    def lam(self) -> float:
        """Weight of the l1 norm."""
        return self._require_reference().lam

    @property
    def problem(self) -> LassoProblem:
        """The Lasso, on the device and in the floating type of the module."""
        reference = self._require_reference()
        assert self.dictionary is not None
        return LassoProblem(self.dictionary, reference.lam)

    def forward(self, x: Tensor) -> Tensor:
        """Codes z_K (batch, m) of signals x (batch, n)."""
        return self.iterates(x)[-1]

    def iterates(self, x: Tensor) -> list[Tensor]:
        """The codes z_0, ..., z_K, each (batch, m), of signals x (batch, n)."""
        self.problem.check(x)
        return self._codes(x, self.layers)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Refuse signals that do not fit or are not finite."""
        x = self._read(batch).x
        # On an accelerator the look would make every step wait for the device; validation looks there too.
        if x.device.type == "cpu":
            self.problem.check(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch, and what the layers add to it."""
        batch = self._read(batch)
        layers = self.layers[: self.trained_depth]
        codes = self._codes(batch.x, layers)[1 if self.loss_over == "all" else -1 :]
        loss = torch.stack([self._criterion(batch, z) for z in codes]).mean()
        penalties = [penalty for layer in layers if (penalty := layer.penalty()) is not None]  # type: ignore[operator]
        if penalties:
            loss = loss + torch.stack(penalties).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.x))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss, and the suboptimality of every layer."""
        self._evaluate(self._read(batch), "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss, the suboptimality of every layer, and what the network is worth in iterations."""
        batch = self._read(batch)
        z = self._evaluate(batch, "test")[-1]
        metrics = self.scores.update(self.problem, batch, z)
        self.log_dict({f"test/{name}": metric for name, metric in metrics.items()}, batch_size=len(batch.x))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The codes (batch, m) of the signals of a batch."""
        codes: Tensor = self(self._read(batch).x)
        return codes

    def configure_optimizers(self) -> Any:
        """Adam over all parameters, whose rate falls when ``val/loss`` stays."""
        optimizer = Adam(self.parameters(), self.learning_rate)
        scheduler = ReduceLROnPlateau(optimizer, factor=self.decay, patience=self.patience)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}

    def configure_model(self) -> None:
        """Take the problem from the data module, where none was given."""
        if self._trainer is None:
            return  # in load_from_checkpoint, and the checkpoint brings the problem
        data = self.trainer.datamodule  # type: ignore[attr-defined] # declared nowhere by Lightning
        dictionary, lam = getattr(data, "dictionary", None), getattr(data, "lam", None)
        if self._reference is None:
            if dictionary is None or lam is None:
                lacking = "there is no data module" if data is None else f"{type(data).__name__} has none either"
                raise MisconfigurationException(
                    f"{type(self).__name__} has no dictionary and lam, and {lacking}: pass both to the network, or fit "
                    "it with datamodule=SparseCodingDataModule(...)"
                )
            self._set_problem(LassoProblem(dictionary, lam))
            if self.trainer.state.fn == TrainerFn.FITTING:
                self._continue()
        elif dictionary is not None and lam is not None:
            require_same_problem(self._reference, dictionary, lam, f"of {type(data).__name__}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add lam; the dictionary is a buffer."""
        checkpoint["lam"] = self.lam

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the layers for the problem of the checkpoint, or refuse another problem or kind."""
        require_same_layer(checkpoint, self.hparams["layer"], "of the checkpoint")
        dictionary, lam = checkpoint["state_dict"]["dictionary"], checkpoint["lam"]
        if self._reference is None:
            self._set_problem(LassoProblem(dictionary, lam))
        else:
            require_same_problem(self._reference, dictionary, lam, "of the checkpoint")

    def load_shallower(self, source: str | Path | Mapping[str, Tensor]) -> None:
        """Continue from a trained network: its layers become the first ones, the others go back to their start.

        The codes z_1, ... of the layers taken over are unchanged, and a new layer starts as the iteration of ISTA (or
        FISTA) at its place.

        Args:
            source: a checkpoint, or the ``state_dict`` of such a network.

        Raises:
            ValueError: if the network is of another kind, another problem, or deeper than this one.
            FileNotFoundError: if the checkpoint does not exist.
        """
        own = self.state_dict()
        state = prefix_state(source, own, self._require_reference(), self.hparams["layer"])
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]
        self.load_state_dict(own | state)

    def _set_problem(self, problem: LassoProblem) -> None:
        """Build the layers."""
        self._reference = LassoProblem(problem.dictionary.cpu(), problem.lam)
        self.dictionary = problem.dictionary.clone()
        kind, options = self._build
        for index in range(self.depth):
            layer: UnrolledLayer = kind(self._reference, index, **options)
            if index > 0:
                layer.tie(self.layers[0])  # type: ignore[arg-type]
            self.layers.append(layer.to(problem.dictionary.device))

    def _continue(self) -> None:
        if self._warm_start is not None:
            self.load_shallower(self._warm_start)

    def _require_reference(self) -> LassoProblem:
        if self._reference is None:
            raise ValueError(
                f"{type(self).__name__} has no problem yet: pass dictionary and lam, or fit it with a data module"
            )
        return self._reference

    def _read(self, batch: Any) -> SparseCodingBatch:
        assert self.dictionary is not None
        return sparse_coding_batch(batch, self.dictionary.shape[1])

    def _codes(self, x: Tensor, layers: nn.ModuleList) -> list[Tensor]:
        dictionary = self.dictionary
        assert dictionary is not None
        previous = z = x.new_zeros(len(x), dictionary.shape[1])
        codes = [z]
        for layer in layers:
            previous, z = z, layer(dictionary, x, z, previous)
            codes.append(z)
        return codes

    def _criterion(self, batch: SparseCodingBatch, z: Tensor) -> Tensor:
        if self.loss == "unsupervised":
            assert self.dictionary is not None
            return lasso_objective(self.dictionary, self.lam, batch.x, z).mean()
        if batch.code is None:
            raise ValueError("loss='supervised' needs batches with codes, and these have none: take 'unsupervised'")
        return (z - batch.code).square().sum(dim=1).mean()

    def _evaluate(self, batch: SparseCodingBatch, stage: str) -> list[Tensor]:
        codes = self.iterates(batch.x)
        values = {"loss": self._criterion(batch, codes[-1])}
        if batch.optimum is not None:
            problem, x = self.problem.to(torch.float64), batch.x.double()
            for k, z in enumerate(codes[1:], start=1):
                values[f"suboptimality_{k}"] = (problem.objective(x, z.double()) - batch.optimum).mean()
        self.log(f"{stage}/loss", values.pop("loss"), prog_bar=True, sync_dist=True, batch_size=len(batch.x))
        self.log_dict({f"{stage}/{name}": v for name, v in values.items()}, sync_dist=True, batch_size=len(batch.x))
        return codes


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
