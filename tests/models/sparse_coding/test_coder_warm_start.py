"""A warm start of an unrolled coder: what it leaves, what it adds, and what is no prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_landscape.models import UnrolledSparseCoder
from lightning_landscape.sparse_coding import (
    ista,
)
from lightning_landscape.sparse_coding.layers import LAYERS
from tests.models.sparse_coding.coder_runs import Data, M, coder, dictionary_of, trained, trainer_in


@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_warm_start_leaves_the_prefix_and_adds_iterations_of_ista(layer: Any, tmp_path: Path) -> None:
    shallow = trained(tmp_path, layer, 3).eval()
    deep = coder(layer, 5).eval()
    start = coder(layer, 5).eval()
    deep.load_shallower(shallow.state_dict())
    x = Data().x
    for before, after in zip(shallow.iterates(x), deep.iterates(x)[:4], strict=True):
        assert torch.equal(before, after)
    own = {key: value for key, value in start.state_dict().items() if key.startswith(("layers.3.", "layers.4."))}
    taken = {key: value for key, value in deep.state_dict().items() if key in own and not key.endswith(".W")}
    assert all(torch.equal(value, own[key]) for key, value in taken.items())
    if layer in ("lista", "facnet", "lista_cp", "slista"):
        expected = ista(deep.problem, x, 2, initial=shallow(x))
        assert (deep(x) - expected).abs().max() <= 1e-5
    if layer == "tilista":
        assert all(kept.W is deep.layers[0].W for kept in deep.layers)
        assert torch.equal(deep.layers[4].W, shallow.layers[0].W)


def test_a_warm_start_undoes_what_was_trained_before(tmp_path: Path) -> None:
    module, again = trained(tmp_path, depth=4), coder(depth=4)
    shallow = coder(depth=2)
    module.load_shallower(shallow.state_dict())
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), again.parameters(), strict=True))


def test_a_fit_warm_starts_from_a_checkpoint_and_reloads_without_it(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="shallow")
    trainer_in(tmp_path, keep, max_epochs=1).fit(shallow := coder(depth=2, learning_rate=0.02), Data())
    module = UnrolledSparseCoder("lista", 3, warm_start=tmp_path / "shallow.ckpt", learning_rate=1e-12)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="deep")
    trainer_in(tmp_path, keep, max_epochs=1).fit(module, Data())
    x = Data().x
    torch.testing.assert_close(module.iterates(x)[2], shallow(x))
    assert (module(x) - coder(depth=3)(x)).abs().max() > 1e-3
    (tmp_path / "shallow.ckpt").unlink()
    reloaded = UnrolledSparseCoder.load_from_checkpoint(tmp_path / "deep.ckpt")
    assert torch.equal(reloaded(x), module(x))
    with pytest.raises(FileNotFoundError):
        coder(depth=3, warm_start=tmp_path / "shallow.ckpt")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layer": "lista_cp"}, "has layers of kind 'lista_cp', and this one 'lista'"),
        ({"depth": 4}, "has 4 layers, which are not the first ones"),
        ({"lam": 0.2}, "with lam=0.2 and a dictionary .* is not that of the network, with lam=0.1"),
        ({"dictionary": 2 * dictionary_of()}, "is not that of the network"),
        ({"dictionary": torch.eye(4)}, "is not that of the network"),
    ],
)
def test_a_warm_start_refuses_what_is_no_prefix(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    module = coder(**{"depth": 2, **other})
    trainer = trainer_in(tmp_path)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        coder().load_shallower(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("kind", "other"), [("facnet", "facnet_free"), ("facnet_free", "facnet"), ("lista_cp", "lista_cpss")]
)
def test_kinds_whose_tensors_look_alike_are_not_mixed_up(kind: Any, other: Any, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    trainer.strategy.connect(coder(kind))
    trainer.save_checkpoint(tmp_path / "kind.ckpt")
    message = f"has layers of kind '{kind}', and this one '{other}': take one kind"
    with pytest.raises(ValueError, match=message):
        coder(other, warm_start=tmp_path / "kind.ckpt")
    with pytest.raises(ValueError, match=message):
        trainer_in(tmp_path, max_epochs=1).fit(coder(other), Data(), ckpt_path=tmp_path / "kind.ckpt")


def test_a_warm_start_refuses_what_is_no_state(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="is no checkpoint of UnrolledSparseCoder"):
        coder().load_shallower(tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no dictionary"):
        coder().load_shallower({"layers.0.W_g": torch.eye(M)})
    with pytest.raises(ValueError, match=r"has 2 layers, which are not the first ones .*W_m'\] differ"):
        coder("l_fista").load_shallower(coder(depth=2).state_dict())
    with pytest.raises(ValueError, match="has 0 layers"):
        coder().load_shallower({"dictionary": dictionary_of()})
    state = coder().state_dict()
    del state["layers.1.theta"]
    with pytest.raises(ValueError, match=r"\['layers.1.theta'\] differ"):
        coder().load_shallower(state)
