"""Image classifiers: a choice of architectures, trained by cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torchmetrics.classification import MulticlassAccuracy

from lightning_landscape.models.images.architectures import dss_cifar, dss_mnist, lenet, mlp, perceptron
from lightning_landscape.models.images.resnet import Normalization, resnet20

Architecture = Literal["mlp", "perceptron", "lenet", "dss-mnist", "dss-cifar", "resnet20"]
Batch = tuple[Tensor, Tensor]

ARCHITECTURES: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "perceptron": perceptron,
    "lenet": lenet,
    "dss-mnist": dss_mnist,
    "dss-cifar": dss_cifar,
    "resnet20": resnet20,
}
_SMALLEST_IMAGE = 4  # what the convolutional ones halve twice


class ImageClassifier(LightningModule):
    """Classifies square images by cross-entropy, ``-mean_i log softmax(f(x_i))[y_i]``, in nats.

    A batch is ``(images, labels)``: floats (N, in_channels, image_size, image_size) and int64 (N,).
    ``forward`` maps images to logits (N, num_classes). Logged are ``train/loss`` at every step, and per
    epoch ``train/accuracy``, ``val/loss``, ``val/accuracy``, ``test/loss`` and ``test/accuracy``, where an
    accuracy is the share of all examples that are classified correctly.

    ``training_step`` reads parameters, buffers and batch, and changes no state of the module but that of
    batch norm, so that ``torch.func`` can map it over stacks of parameters. Every submodule that owns
    parameters has ``reset_parameters``.

    Args:
        architecture: ``"mlp"`` (two hidden layers of 128), ``"perceptron"`` (one of ``width``), ``"lenet"`` (small,
            52,138 parameters on 28x28), ``"dss-mnist"`` (Freeman & Bruna 2017; 3,274,634 parameters on 28x28),
            ``"dss-cifar"`` (Freeman & Bruna 2017; 1,756,426 on 3x32x32) or ``"resnet20"`` (He et al. 2016; 272,474 on
            3x32x32).
        in_channels: channels of an image.
        image_size: height and width of an image in pixels; at least 4 for the convolutional ones.
        num_classes: number of classes, at least 2.
        learning_rate: step size of the optimiser, positive.
        optimizer: ``"adam"`` or ``"sgd"``.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: L2 penalty, at least 0.
        dropout: for ``lenet``, probability in [0, 1) of dropping a feature before the dense layers.
        batch_norm: for ``lenet``, normalise after each convolution.
        normalization: for ``resnet20``, ``"batch"`` or ``"group"`` norm after each convolution.
        width: for ``resnet20``, factor of the channels, a positive multiple of 1/4; for ``perceptron``, hidden units.

    Raises:
        ValueError: if an argument is out of its range or does not go with the architecture or optimiser.

    Example:
        >>> import torch
        >>> classifier = ImageClassifier("lenet", image_size=8)
        >>> classifier(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        architecture: Architecture = "lenet",
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int = 10,
        learning_rate: float = 1e-3,
        optimizer: Literal["adam", "sgd"] = "adam",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dropout: float = 0.0,
        batch_norm: bool = False,
        normalization: Normalization = "batch",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        _require(architecture in ARCHITECTURES, f"architecture must be one of {[*ARCHITECTURES]}, got {architecture!r}")
        _require(in_channels >= 1, f"in_channels must be at least 1, got {in_channels!r}")
        smallest = 1 if architecture in ("mlp", "perceptron") else _SMALLEST_IMAGE
        _require(
            image_size >= smallest, f"image_size must be at least {smallest} for {architecture!r}, got {image_size!r}"
        )
        _require(num_classes >= 2, f"num_classes must be at least 2, got {num_classes!r}")
        _require(0 < learning_rate < math.inf, f"learning_rate must be positive and finite, got {learning_rate!r}")
        _require(optimizer in ("adam", "sgd"), f"optimizer must be 'adam' or 'sgd', got {optimizer!r}")
        _require(0 <= momentum < 1, f"momentum must lie in [0, 1), got {momentum!r}")
        _require(
            not momentum or optimizer == "sgd", f"momentum={momentum!r} goes with optimizer='sgd' alone, set it to 0"
        )
        _require(0 <= weight_decay < math.inf, f"weight_decay must be finite and at least 0, got {weight_decay!r}")
        _require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        _require(
            architecture == "lenet" or not (dropout or batch_norm),
            f"dropout={dropout!r}, batch_norm={batch_norm!r}: options of 'lenet', leave them out for {architecture!r}",
        )
        _require(
            architecture == "resnet20" or (normalization == "batch" and (width == 1 or architecture == "perceptron")),
            f"normalization={normalization!r}, width={width!r}: options of 'resnet20', leave them out for "
            f"{architecture!r}",
        )
        _require(
            architecture != "perceptron" or (width >= 1 and width == int(width)),
            f"width must be a whole number of hidden units for 'perceptron', got {width!r}",
        )
        self.save_hyperparameters()
        self.image_shape = (in_channels, image_size, image_size)
        self.learning_rate = learning_rate
        self.optimizer_name = optimizer
        self.momentum = momentum
        self.weight_decay = weight_decay
        options: dict[str, dict[str, Any]] = {
            "lenet": {"dropout": dropout, "batch_norm": batch_norm},
            "perceptron": {"width": width},
            "resnet20": {"normalization": normalization, "width": width},
        }
        build = ARCHITECTURES[architecture]
        self.network = build(in_channels, image_size, num_classes, **options.get(architecture, {}))
        # Micro: the share of all examples. The default of torchmetrics averages over classes.
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The mean cross-entropy ``loss`` of a batch, and its ``logits``."""
        loss, logits = self._evaluate(batch)
        self.log("train/loss", loss, prog_bar=True)
        return {"loss": loss, "logits": logits}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count what the step classified correctly, outside of ``training_step``, which keeps no state."""
        self.train_accuracy.update(outputs["logits"], batch[1])
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and accuracy of a batch of the validation split."""
        loss, logits = self._evaluate(batch)
        self.val_accuracy.update(logits, batch[1])
        self.log("val/loss", loss, prog_bar=True, sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and accuracy of a batch of the test split."""
        loss, logits = self._evaluate(batch)
        self.test_accuracy.update(logits, batch[1])
        self.log("test/loss", loss, sync_dist=True)
        self.log("test/accuracy", self.test_accuracy)

    def configure_optimizers(self) -> Optimizer:
        """Adam or SGD over all parameters."""
        if self.optimizer_name == "sgd":
            return SGD(self.parameters(), self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
        return Adam(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images have shape {tuple(images.shape[1:])} and the classifier takes {self.image_shape}: "
                "build it with the in_channels and image_size of the data"
            )
        logits = self(images)
        return nn.functional.cross_entropy(logits, labels), logits


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
