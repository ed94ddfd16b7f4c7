"""The LSTM language model of Zaremba, Sutskever & Vinyals (2014)."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.text import Perplexity

Batch = tuple[Tensor, Tensor]
State = tuple[Tensor, Tensor]

_INITIAL_RANGE = 0.1


class LSTMLanguageModel(LightningModule):
    """Predicts the next word by an LSTM; by default the small model of Zaremba et al. (2014).

    A batch is ``(tokens, targets)``, int64 (B, T): B parallel streams of text, of which each batch is the
    continuation of the one before. The loss is the mean cross-entropy of a word in nats,
    ``E = -(1 / BT) sum_bt log p(targets[b, t] | tokens[b, :t + 1], state)``, and perplexity is ``exp(E)``.
    Logged are ``train/loss`` at every step, and per epoch ``train/perplexity``, ``val/loss``,
    ``val/perplexity``, ``test/loss`` and ``test/perplexity``, each a mean over all words.

    **Carried state.** Training is truncated BPTT: in train mode ``training_step`` starts from the state, cut
    off its graph, that the step before it ended with, and from zero where ``batch_idx`` is 0. Validation and
    test carry a state of their own. In eval mode ``training_step`` starts from zero and keeps nothing, so
    that a loss surface, which evaluates it so, is a mean over independent sequences, whatever their order
    and whatever ran before. The state is part of a checkpoint: training goes on in the middle of an epoch.

    **Optimisation.** Zaremba et al. take SGD steps of ``learning_rate`` on the cross-entropy summed over the
    T words of a window and averaged over the B streams, which is T times E, its gradient clipped to the norm
    5. So does this module: before it clips, it multiplies the gradient of E by T. The learning rate is
    halved after each epoch from number ``halve_after`` on. A ``gradient_clip_val`` of the Trainer takes the
    place of ``clip_norm`` and applies to the same multiplied gradient.

    All parameters start uniform in [-0.1, 0.1]. Dropout acts on what enters and leaves each layer, never on
    the recurrent connection.

    Args:
        vocabulary_size: number of words V, at least 2.
        embedding_size: number of entries of a word's vector.
        hidden_size: units of each layer.
        num_layers: LSTM layers.
        dropout: probability in [0, 1) of dropping a unit; the small model has none.
        tied: use the embedding as softmax weights too (Press & Wolf 2017); needs embedding_size = hidden_size.
        learning_rate: step size of SGD, on the scale described above.
        halve_after: epochs at the full learning rate.
        clip_norm: largest norm of a gradient, on the scale described above.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> model = LSTMLanguageModel(vocabulary_size=50, embedding_size=8, hidden_size=8)
        >>> logits, (hidden, cell) = model(torch.zeros(4, 7, dtype=torch.int64))
        >>> logits.shape, hidden.shape
        (torch.Size([4, 7, 50]), torch.Size([2, 4, 8]))
    """

    def __init__(
        self,
        vocabulary_size: int = 10_000,
        embedding_size: int = 200,
        hidden_size: int = 200,
        num_layers: int = 2,
        dropout: float = 0.0,
        tied: bool = False,
        learning_rate: float = 1.0,
        halve_after: int = 4,
        clip_norm: float = 5.0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("vocabulary_size", vocabulary_size, 2),
            ("embedding_size", embedding_size, 1),
            ("hidden_size", hidden_size, 1),
            ("num_layers", num_layers, 1),
            ("halve_after", halve_after, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name, number in (("learning_rate", learning_rate), ("clip_norm", clip_norm)):
            if not 0 < number < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {number!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        if tied and embedding_size != hidden_size:
            raise ValueError(
                f"tied=True needs embedding_size = hidden_size, got {embedding_size} and {hidden_size}: make them equal"
            )
        self.save_hyperparameters()
        self.vocabulary_size = vocabulary_size
        self.learning_rate = learning_rate
        self.halve_after = halve_after
        self.clip_norm = clip_norm
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        between = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        # Owned here rather than by an nn.Linear: whoever resets each owner of parameters reaches our reset_parameters.
        self.softmax_weight = self.embedding.weight if tied else nn.Parameter(torch.empty(vocabulary_size, hidden_size))
        self.softmax_bias = nn.Parameter(torch.empty(vocabulary_size))
        self.reset_parameters()
        self.train_perplexity = Perplexity()
        self.val_perplexity = Perplexity()
        self.test_perplexity = Perplexity()
        self._carried: State | None = None  # from one training step to the next
        self._evaluated: State | None = None  # the state carried through validation and test
        self._window = 1  # T of the last training step

    def reset_parameters(self) -> None:
        """Draw all parameters anew, uniform in [-0.1, 0.1]."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_INITIAL_RANGE, _INITIAL_RANGE)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, T, V) of the word after each of ``tokens``, and the state that the text ends with.

        Args:
            tokens: int64 (B, T).
            state: hidden and cell state to start from, (num_layers, B, hidden_size) each; ``None``: zeros.
        """
        outputs, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return nn.functional.linear(self.dropout(outputs), self.softmax_weight, self.softmax_bias), state

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The mean cross-entropy ``loss`` of a batch, and its ``logits``; carries the state in train mode alone."""
        loss, logits, state = self._evaluate(batch, self._carried if self.training and batch_idx > 0 else None)
        if self.training:
            self._carried = state
            self._window = batch[0].shape[1]
        self.log("train/loss", loss, prog_bar=True)
        return {"loss": loss, "logits": logits}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count what the step predicted, outside of ``training_step``, whose evaluations elsewhere do not count."""
        self.train_perplexity.update(outputs["logits"], batch[1])
        self.log("train/perplexity", self.train_perplexity, on_step=False, on_epoch=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and perplexity of a batch of the validation split."""
        self._assess("val", self.val_perplexity, batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and perplexity of a batch of the test split."""
        self._assess("test", self.test_perplexity, batch, batch_idx)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD whose learning rate is halved after each epoch from number ``halve_after`` on."""
        optimizer = SGD(self.parameters(), self.learning_rate)
        schedule = LambdaLR(optimizer, lambda epoch: 0.5 ** max(0, epoch + 1 - self.halve_after))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Turn the gradient of a mean over T words into that of a sum over them, then clip it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(self._window)
        limit = self.clip_norm if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, limit, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the carried state, with which an epoch that has begun goes on."""
        checkpoint["carried_state"] = self._carried

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the carried state."""
        self._carried = checkpoint.get("carried_state")

    def _assess(self, split: str, perplexity: Perplexity, batch: Batch, batch_idx: int) -> None:
        loss, logits, self._evaluated = self._evaluate(batch, self._evaluated if batch_idx > 0 else None)
        perplexity.update(logits, batch[1])
        self.log(f"{split}/loss", loss, prog_bar=True, batch_size=batch[1].numel(), sync_dist=True)
        self.log(f"{split}/perplexity", perplexity, prog_bar=True)

    def _evaluate(self, batch: Batch, state: State | None) -> tuple[Tensor, Tensor, State]:
        """Loss, logits and the state at the end, without its graph."""
        tokens, targets = batch
        if state is not None and state[0].shape[1] != len(tokens):
            raise ValueError(
                f"a batch of {len(tokens)} streams follows one of {state[0].shape[1]}: the batches of an epoch must "
                "continue the same streams, as those of PennTreebankDataModule do"
            )
        if state is not None:  # a checkpoint's lies where Lightning has loaded it
            state = (state[0].to(tokens.device), state[1].to(tokens.device))
        try:
            logits, (hidden, cell) = self(tokens, state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        except IndexError as error:
            largest = max(int(tokens.max()), int(targets.max()))
            raise ValueError(
                f"the batch holds word {largest} and vocabulary_size={self.vocabulary_size}: words are numbered from 0 "
                "to vocabulary_size - 1, build the model with the size of the data's vocabulary"
            ) from error
        return loss, logits, (hidden.detach(), cell.detach())
