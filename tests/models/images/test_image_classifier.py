from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningCLI
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lightning_landscape.datamodules import DigitsDataModule, MNISTDataModule
from lightning_landscape.models import ImageClassifier

CASES = [
    ("mlp", {}),
    ("lenet", {}),
    ("lenet", {"dropout": 0.25, "batch_norm": True}),
    ("dss-mnist", {}),
    ("dss-cifar", {}),
    ("resnet20", {"width": 0.25}),
    ("resnet20", {"width": 0.25, "normalization": "group"}),
]


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{**quiet, "enable_checkpointing": False, **arguments})


def batch_of(count: int, image_size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, image_size, image_size, generator=generator)
    return images, torch.randint(10, (count,), generator=generator)


def dense(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def convolution(kernel: int, inputs: int, outputs: int) -> int:
    return (kernel**2 * inputs + 1) * outputs


@pytest.mark.parametrize(
    ("architecture", "image_size", "expected"),
    [
        ("mlp", 8, dense(64, 128) + dense(128, 128) + dense(128, 10)),
        ("mlp", 28, dense(784, 128) + dense(128, 128) + dense(128, 10)),
        ("lenet", 8, convolution(3, 1, 8) + convolution(3, 8, 16) + dense(2 * 2 * 16, 64) + dense(64, 10)),
        ("lenet", 28, convolution(3, 1, 8) + convolution(3, 8, 16) + dense(7 * 7 * 16, 64) + dense(64, 10)),
        ("dss-mnist", 28, convolution(5, 1, 32) + convolution(5, 32, 64) + dense(7 * 7 * 64, 1024) + dense(1024, 10)),
    ],
)
def test_parameter_count(architecture: Any, image_size: int, expected: int) -> None:
    classifier = ImageClassifier(architecture, image_size=image_size)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == expected


def test_dss_mnist_is_the_network_of_the_paper() -> None:
    assert sum(parameter.numel() for parameter in ImageClassifier("dss-mnist").parameters()) == 3_274_634
    layers = list(ImageClassifier("dss-mnist").network)
    shapes = [tuple(layer.weight.shape) for layer in layers if hasattr(layer, "weight")]
    assert shapes == [(32, 1, 5, 5), (64, 32, 5, 5), (1024, 3136), (10, 1024)]
    assert [type(layer) for layer in layers[-3:]] == [nn.ReLU, nn.Dropout, nn.Linear]
    assert layers[-2].p == 0.5


@pytest.mark.parametrize(("architecture", "options"), CASES)
@pytest.mark.parametrize(("image_size", "in_channels"), [(8, 1), (28, 1), (5, 3)])
def test_logits(architecture: Any, options: dict[str, Any], image_size: int, in_channels: int) -> None:
    classifier = ImageClassifier(architecture, in_channels, image_size, num_classes=7, **options)
    logits = classifier(torch.randn(3, in_channels, image_size, image_size))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("image_size", "expected"), [(24, 1_068_298), (32, 1_756_426)])
def test_dss_cifar_is_the_network_of_the_paper(image_size: int, expected: int) -> None:
    classifier = ImageClassifier("dss-cifar", in_channels=3, image_size=image_size)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == expected
    shapes = [tuple(layer.weight.shape) for layer in classifier.network if hasattr(layer, "weight")]
    features = 64 * (image_size // 4) ** 2
    assert shapes == [(64, 3, 5, 5), (64, 64, 5, 5), (384, features), (192, 384), (10, 192)]


def test_lenet_options() -> None:
    plain, full = ImageClassifier("lenet"), ImageClassifier("lenet", dropout=0.3, batch_norm=True)
    assert not any(isinstance(child, nn.Dropout | nn.BatchNorm2d) for child in plain.modules())
    assert [child.p for child in full.modules() if isinstance(child, nn.Dropout)] == [0.3]
    assert [child.num_features for child in full.modules() if isinstance(child, nn.BatchNorm2d)] == [8, 16]
    assert all(child.bias is None for child in full.modules() if isinstance(child, nn.Conv2d))


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_reset_parameters_of_all_owners_gives_a_fresh_initialisation(
    architecture: Any, options: dict[str, Any]
) -> None:
    torch.manual_seed(1)
    expected = ImageClassifier(architecture, image_size=8, **options).state_dict()
    classifier = ImageClassifier(architecture, image_size=8, **options)
    with torch.no_grad():
        for value in classifier.state_dict().values():
            value.fill_(3)
    torch.manual_seed(1)
    for child in classifier.modules():
        if any(True for _ in child.parameters(recurse=False)):
            child.reset_parameters()
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_traces_with_fx(architecture: Any, options: dict[str, Any]) -> None:
    classifier = ImageClassifier(architecture, image_size=8, **options).eval()
    images, _ = batch_of(4, 8)
    assert torch.equal(torch.fx.symbolic_trace(classifier)(images), classifier(images))


class Step(nn.Module):
    """The training loss as a forward, as ``functional_call`` needs it."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        classifier.log = lambda *args, **kwargs: None
        self.classifier = classifier

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.classifier.training_step(batch, 0)["loss"]


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_training_step_maps_over_stacked_parameters(architecture: Any, options: dict[str, Any]) -> None:
    steps = [Step(ImageClassifier(architecture, image_size=8, **options)).eval() for _ in range(3)]
    batch = batch_of(5, 8)
    parameters, buffers = stack_module_state(steps)
    state = {**parameters, **buffers}
    stacked = vmap(lambda values: functional_call(steps[0], values, (batch,)))(state)
    torch.testing.assert_close(stacked, torch.stack([step(batch) for step in steps]))


def test_training_step_is_the_cross_entropy_and_counts_nothing() -> None:
    step = Step(ImageClassifier("mlp", image_size=8))
    images, labels = batch_of(6, 8)
    log_probabilities = step.classifier(images).log_softmax(1)
    expected = -log_probabilities[torch.arange(6), labels].mean()
    torch.testing.assert_close(step((images, labels)), expected)
    assert step.classifier.train_accuracy.update_count == 0


def test_state_dict_holds_the_network_alone() -> None:
    assert all(name.startswith("network.") for name in ImageClassifier(batch_norm=True).state_dict())


def exact(classifier: ImageClassifier, split: Any) -> tuple[float, float]:
    """Loss and accuracy over a whole split at once."""
    images, labels = split.tensors
    with torch.no_grad():
        logits = classifier.eval()(images)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return nn.functional.cross_entropy(logits, labels).item(), accuracy


def test_logs_the_exact_losses_and_accuracies() -> None:
    seed_everything(0, verbose=False)
    data = DigitsDataModule(batch_size=100)
    classifier = ImageClassifier("lenet", image_size=8, learning_rate=1e-30)
    run = trainer(max_epochs=1)
    run.fit(classifier, datamodule=data)
    fitted = dict(run.callback_metrics)
    run.test(classifier, datamodule=data, verbose=False)
    tested = dict(run.callback_metrics)
    assert set(fitted) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert set(tested) == {"test/loss", "test/accuracy"}
    for name, metrics in (("val", fitted), ("test", tested)):
        loss, accuracy = exact(classifier, data.splits[name])
        assert metrics[f"{name}/loss"].item() == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{name}/accuracy"].item() == pytest.approx(accuracy, rel=1e-6)
    assert fitted["train/accuracy"].item() == pytest.approx(exact(classifier, data.splits["train"])[1], rel=1e-6)


def test_train_accuracy_counts_every_accumulated_batch() -> None:
    seed_everything(0, verbose=False)
    data = DigitsDataModule(batch_size=100)
    classifier = ImageClassifier("mlp", image_size=8, learning_rate=1e-30)
    run = trainer(max_epochs=2, accumulate_grad_batches=4)
    run.fit(classifier, datamodule=data)
    expected = exact(classifier, data.splits["train"])[1]
    assert run.callback_metrics["train/accuracy"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("options", "epochs"), [({}, 10), ({"dropout": 0.25, "batch_norm": True}, 8)])
def test_learns_the_digits(options: dict[str, Any], epochs: int) -> None:
    seed_everything(0, verbose=False)
    run = trainer(max_epochs=epochs, limit_val_batches=0)
    classifier = ImageClassifier("lenet", image_size=8, learning_rate=1e-2, **options)
    data = DigitsDataModule()
    run.fit(classifier, datamodule=data)
    assert exact(classifier, data.splits["val"])[1] > 0.95


def test_predicts_logits_of_the_test_images() -> None:
    data = DigitsDataModule(batch_size=200)
    classifier = ImageClassifier("mlp", image_size=8)
    logits = torch.cat(trainer().predict(classifier, datamodule=data))
    torch.testing.assert_close(logits, classifier.eval()(data.splits["test"].tensors[0]))


def test_optimizers() -> None:
    sgd = ImageClassifier(optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4).configure_optimizers()
    adam = ImageClassifier(learning_rate=0.2, weight_decay=1e-3).configure_optimizers()
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.1, 0.9, 1e-4)
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.2, 1e-3)


def test_a_checkpoint_with_its_data_module_loads_with_weights_only(tmp_path: Path) -> None:
    run = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, default_root_dir=tmp_path)
    classifier = ImageClassifier("lenet", image_size=8, batch_norm=True, dropout=0.1)
    run.fit(classifier, datamodule=DigitsDataModule(seed=4))
    path = tmp_path / "last.ckpt"
    run.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["datamodule_hyper_parameters"]["seed"] == 4
    loaded = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    images, _ = batch_of(3, 8)
    assert torch.equal(loaded.eval()(images), classifier.eval()(images))
    assert DigitsDataModule.load_from_checkpoint(path, weights_only=True).seed == 4


def test_an_image_of_another_shape_says_what_to_change() -> None:
    step = Step(ImageClassifier("lenet"))
    with pytest.raises(ValueError, match=r"images have shape \(1, 8, 8\) and the classifier takes \(1, 28, 28\)"):
        step(batch_of(2, 8))


def test_nan_is_not_swallowed() -> None:
    images, labels = batch_of(2, 8)
    assert math.isnan(Step(ImageClassifier("lenet", image_size=8))((images * math.nan, labels)).item())


def test_one_example_is_a_batch() -> None:
    loss = Step(ImageClassifier("lenet", image_size=8, batch_norm=True, dropout=0.5))(batch_of(1, 8))
    assert loss.isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "resnet"}, r"architecture must be one of \['mlp', .*'resnet20'\], got 'resnet'"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"image_size": 3}, "image_size must be at least 4 for 'lenet', got 3"),
        ({"architecture": "mlp", "image_size": 0}, "image_size must be at least 1 for 'mlp', got 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive and finite, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be positive and finite, got inf"),
        ({"optimizer": "lbfgs"}, "optimizer must be 'adam' or 'sgd', got 'lbfgs'"),
        ({"momentum": 0.9}, "momentum=0.9 goes with optimizer='sgd' alone"),
        ({"optimizer": "sgd", "momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be finite and at least 0, got -0.0001"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"architecture": "mlp", "dropout": 0.5}, r"dropout=0.5, batch_norm=False: options of 'lenet'.*'mlp'"),
        ({"architecture": "dss-mnist", "batch_norm": True}, "options of 'lenet', leave them out for 'dss-mnist'"),
        ({"architecture": "resnet20", "dropout": 0.1}, "options of 'lenet', leave them out for 'resnet20'"),
        (
            {"normalization": "group"},
            "normalization='group', width=1.0: options of 'resnet20', leave them out.*'lenet'",
        ),
        ({"architecture": "dss-cifar", "width": 2}, "width=2: options of 'resnet20', leave them out for 'dss-cifar'"),
        (
            {"architecture": "resnet20", "normalization": "layer"},
            "normalization must be 'batch' or 'group', got 'layer'",
        ),
        ({"architecture": "resnet20", "width": 0}, "width must be a positive multiple of 1/4, got 0"),
        ({"architecture": "resnet20", "width": -1}, "width must be a positive multiple of 1/4, got -1"),
        ({"architecture": "resnet20", "width": 0.3}, "width must be a positive multiple of 1/4, got 0.3"),
        ({"architecture": "resnet20", "width": math.nan}, "width must be a positive multiple of 1/4, got nan"),
        ({"architecture": "resnet20", "width": math.inf}, "width must be a positive multiple of 1/4, got inf"),
        ({"architecture": "resnet20", "image_size": 3}, "image_size must be at least 4 for 'resnet20', got 3"),
    ],
)
def test_refuses_bad_arguments_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageClassifier(**arguments)


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns when pytest's own arguments are there beside ``args``."""
    monkeypatch.setattr("sys.argv", ["landscape"])


def command_line(*arguments: str) -> LightningCLI:
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        run=False,
        args=list(arguments),
    )


MODEL = "--model=lightning_landscape.models.ImageClassifier"


def test_the_command_line_builds_model_and_data() -> None:
    cli = command_line(
        MODEL,
        "--model.architecture=lenet",
        "--model.image_size=8",
        "--model.dropout=0.2",
        "--data=lightning_landscape.datamodules.MNISTDataModule",
        "--data.root=here",
        "--data.source=there",
    )
    assert isinstance(cli.model, ImageClassifier)
    assert (cli.model.hparams["architecture"], cli.model.image_shape) == ("lenet", (1, 8, 8))
    assert isinstance(cli.datamodule, MNISTDataModule)
    assert (cli.datamodule.root, cli.datamodule.source) == (Path("here"), Path("there"))
    assert cli.datamodule.hparams["root"] == "here"


def test_the_command_line_refuses_an_unknown_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command_line(MODEL, "--model.architecture=resnet", "--data=lightning_landscape.datamodules.DigitsDataModule")
    assert "resnet" in capsys.readouterr().err
