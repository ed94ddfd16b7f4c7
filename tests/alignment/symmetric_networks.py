"""Networks whose permutation symmetries the tests know: how many units each group has, and an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_landscape.models import ImageClassifier, LSTMLanguageModel


class ResidualGroupNorm(nn.Module):
    """Two residual blocks whose stream is normalised in 4 groups of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class PaddedShortcut(nn.Module):
    """A shortcut that pads channels with zeros, as the residual nets of He et al. (2016) on CIFAR do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.widen = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.stem(images))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = functional.relu(self.widen(x) + shortcut)
        return self.head(x.mean(dim=(2, 3)))


class Dense(nn.Module):
    """Concatenated features, flattened with their pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.head = nn.Linear(7 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = torch.relu(self.first(images))
        both = self.norm(torch.cat([first, self.second(first)], dim=1))
        logits: Tensor = self.head(functional.max_pool2d(both, 2).view(images.shape[0], -1))
        return logits


class Attention(nn.Module):
    """A transformer block: tokens and learned positions, attention of 4 heads of 2, a dense part."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Parameter(torch.zeros(20, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.dense(self.norms[1](x))
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class HandwrittenAttention(nn.Module):
    """Attention as people write it: one projection, heads by view and transpose."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.tokens, self.qkv = nn.Embedding(11, 8), nn.Linear(8, 24)
        self.out, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        batch, length, width = x.shape
        if self.fused:
            q, k, v = self.qkv(x).view(batch, length, 3, 4, 2).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (part.view(batch, length, 4, 2).transpose(1, 2) for part in (q, k, v))
            y = torch.softmax(q @ k.transpose(-2, -1) / 2**0.5, dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        logits: Tensor = self.head(x[:, -1])
        return logits


class Recurrent(nn.Module):
    """A classifier on the last state of a recurrent net."""

    def __init__(self, kind: type[nn.RNNBase], **options: int | bool) -> None:
        super().__init__()
        self.tokens, self.net = nn.Embedding(11, 5), kind(5, 6, batch_first=True, **options)
        self.long = kind is nn.LSTM
        self.head = nn.Linear(int(options.get("proj_size", 6)), 5)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.net(self.tokens(tokens))[1]
        logits: Tensor = self.head((states[0] if self.long else states)[-1])
        return logits


class Cells(nn.Module):
    """Recurrent cells in a loop over three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTMCell(4, 6), nn.GRUCell(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, hidden = None, None
        for step in range(3):
            state = self.first(x[:, step], state)
            hidden = self.second(state[0], hidden)
        logits: Tensor = self.head(hidden)
        return logits


class Tied(nn.Module):
    """An encoder whose transpose decodes: both axes of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


class Translator(nn.Module):
    """An encoder and a decoder of torch.nn, whose streams are one as attention joins them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(11, 8), nn.Linear(8, 5)
        self.net = nn.Transformer(8, 4, 1, 1, 12, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        mask = torch.triu(torch.ones(6, 6, dtype=torch.bool), 1)
        logits: Tensor = self.head(self.net(x, x.flip(1), tgt_mask=mask, src_key_padding_mask=tokens == 5))
        return logits


class Packing(nn.Module):
    """A recurrent net over sequences of their own lengths, packed and padded again."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.tokens, self.net, self.head = nn.Embedding(11, 5), kind(5, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens > 1).sum(1)
        packed = pack_padded_sequence(self.tokens(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        padded, _ = nn.utils.rnn.pad_packed_sequence(self.net(packed)[0], batch_first=True)
        logits: Tensor = self.head(padded.max(1).values)
        return logits


@dataclass(frozen=True)
class Case:
    """A network, an input, the (size, block) of its groups, and how far single precision keeps an output."""

    make: Callable[[], nn.Module]
    input: Tensor
    groups: list[tuple[int, int]]


def _free(*sizes: int) -> list[tuple[int, int]]:
    return [(size, 1) for size in sizes]


_DIGIT = torch.linspace(-1, 1, 3 * 64).sin().view(3, 1, 8, 8)
_IMAGE = torch.linspace(-9, 9, 2 * 3 * 64).sin().view(2, 3, 8, 8)
_TOKENS = torch.arange(12).view(2, 6) % 11
_STEPS = torch.linspace(-3, 3, 2 * 3 * 4).view(2, 3, 4)

CASES: dict[str, Case] = {
    "mlp": Case(lambda: ImageClassifier("mlp", image_size=8), _DIGIT, _free(128, 128)),
    "lenet": Case(lambda: ImageClassifier("lenet", image_size=8), _DIGIT, _free(8, 16, 64)),
    "lenet-bn": Case(lambda: ImageClassifier("lenet", image_size=8, batch_norm=True), _DIGIT, _free(8, 16, 64)),
    "resnet20": Case(
        lambda: ImageClassifier("resnet20", in_channels=3, image_size=8),
        _IMAGE,
        _free(*[16] * 4, *[32] * 4, *[64] * 4),
    ),
    "resnet-gn": Case(ResidualGroupNorm, _IMAGE, [(8, 2), (6, 1), (6, 1)]),
    "padded-shortcut": Case(PaddedShortcut, _IMAGE, _free(4, 2, 2)),
    "dense": Case(Dense, _IMAGE, _free(4, 3)),
    "depthwise-separable": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 6, 3, groups=6, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        ),
        _IMAGE,
        _free(6, 4),
    ),
    "depthwise-widened": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(8 * 36, 5)
        ),
        _IMAGE,
        _free(4, 2),
    ),
    "grouped": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.GELU(), nn.Flatten(), nn.Linear(324, 5)
        ),
        _IMAGE,
        _free(3, 2, 3),
    ),
    "group-norm": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 1),
            nn.GroupNorm(1, 6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 1),
            nn.InstanceNorm2d(6, affine=True),
            nn.PReLU(6),
            nn.Flatten(),
            nn.Linear(6 * 64, 5),
        ),
        _IMAGE,
        [(8, 2), (6, 1), (6, 1)],
    ),
    "autoencoder": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 6, 3, groups=2),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose2d(6, 3, 3),
        ),
        _IMAGE,
        _free(2, 2, 3),
    ),
    "layer-norm-mlp": Case(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 12), nn.GLU(), nn.Linear(6, 5)
        ),
        _DIGIT,
        _free(7, 6),
    ),
    "language-model": Case(lambda: LSTMLanguageModel(11, 5, 6), _TOKENS, _free(5, 6, 6)),
    "language-model-tied": Case(lambda: LSTMLanguageModel(11, 6, 6, tied=True), _TOKENS, _free(6, 6)),
    "lstm-bidirectional": Case(
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), _TOKENS, _free(5, *[6] * 4)
    ),
    "lstm-projected": Case(lambda: Recurrent(nn.LSTM, num_layers=2, proj_size=3), _TOKENS, _free(5, 6, 3, 6, 3)),
    "gru": Case(lambda: Recurrent(nn.GRU), _TOKENS, _free(5, 6)),
    "rnn": Case(lambda: Recurrent(nn.RNN), _TOKENS, _free(5, 6)),
    "cells": Case(Cells, _STEPS, _free(6, 5)),
    "attention": Case(Attention, _TOKENS, _free(8, 4, 2, 2, 16)),
    "attention-by-hand": Case(lambda: HandwrittenAttention(fused=False), _TOKENS, _free(8, 4, 2, 2)),
    "attention-fused": Case(lambda: HandwrittenAttention(fused=True), _TOKENS, _free(8, 4, 2)),
    "transformer": Case(
        lambda: nn.Sequential(
            nn.Linear(4, 8),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 4, 12, 0.0, "gelu", batch_first=True), 2, nn.LayerNorm(8)
            ),
            nn.Linear(8, 5),
        ),
        _STEPS,
        _free(8, *[4, 2, 2, 12] * 2),
    ),
    "transformer-layer": Case(
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 12, 0.0, batch_first=True, norm_first=True), nn.Flatten()
        ),
        _STEPS,
        _free(2, 2, 2, 12),
    ),
    "translator": Case(Translator, _TOKENS, _free(8, *[4, 2, 2] * 3, 12, 12)),
    "packed": Case(lambda: Packing(nn.LSTM), _TOKENS, _free(5, 6)),
    "packed-gru": Case(lambda: Packing(nn.GRU), _TOKENS, _free(5, 6)),
    "tied": Case(Tied, torch.linspace(-1, 1, 12).view(2, 6), _free(4)),
}
NAMES = [*CASES]


def scattered(case: Case, seed: int = 0) -> nn.Module:
    """The network in eval mode, none of whose parameters and statistics are zeros or ones as layers start."""
    torch.manual_seed(seed)
    module = case.make().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer += torch.rand(buffer.shape)
    return module


def theta_of(module: nn.Module) -> Tensor:
    """The flat vector of trainable parameters."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters() if parameter.requires_grad])
