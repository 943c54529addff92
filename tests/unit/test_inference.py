"""From a model to its use: embeddings in files, searched, compared, exported."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from nearfar.cli import cli
from nearfar.data import Prepare
from nearfar.errors import ConfigError, DataError, InputError, NearfarError, NearfarWarning
from nearfar.inference import (
    Calibration,
    Embeddings,
    calibrate,
    embed_files,
    embedding,
    export,
    features,
    list_images,
    read_embeddings,
    write_embeddings,
)
from nearfar.inference.queries import of_images
from nearfar.inference.store import write_parts
from nearfar.models import EmbeddingModel, create_model, save_model


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    made = create_model("test_resnet", 8, image_size=32)
    made.train()
    with torch.no_grad():
        for _ in range(3):  # statistics that are not those of a fresh network
            made(torch.randn(8, 3, 32, 32))
    return made.eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for person in range(5):
        (root / f"p{person}").mkdir()
        base = draw.integers(0, 256, (6, 6, 3))
        for number in range(4):
            pixels = (base + draw.integers(-30, 30, base.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((40, 36)).save(root / f"p{person}" / f"{number}.png")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def run(model: EmbeddingModel, tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    save_model(model, tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


def images(count: int = 5, shape: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randint(0, 256, (count, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flip", ["none", "sum", "concatenate"])
def test_features_are_of_the_image_and_of_its_mirror_image(model: EmbeddingModel, flip: str) -> None:
    about = model.data_config
    inputs = Prepare(32, mean=about["mean"], std=about["std"])(images())
    with torch.no_grad():
        one, other = model(inputs), model(inputs.flip(-1))
    expected = {"none": one, "sum": one + other, "concatenate": torch.cat([one, other], 1)}[flip]
    model.train()
    torch.testing.assert_close(features(model, images(), flip=flip), expected)
    assert model.training
    model.eval()


def test_summed_features_of_a_mirror_image_are_those_of_the_image(model: EmbeddingModel) -> None:
    torch.testing.assert_close(
        features(model, images(), flip="sum"), features(model, images().flip(-1), flip="sum"), rtol=0, atol=1e-5
    )


def test_a_network_for_upright_images_gets_the_middle_of_files_in_that_shape(photos: Path, tmp_path: Path) -> None:
    upright = create_model("test_resnet", 8, image_size=(64, 32)).eval()
    paths = list_images([photos])
    embed_files(upright, paths, tmp_path / "e.safetensors")
    found = read_embeddings(tmp_path / "e.safetensors")
    # Photographs are 40 × 36: of their width the middle 18 of 40 are as 32 is to 64.
    box = (11, 0, 29, 36)
    middle = [Image.open(path).convert("RGB").resize((32, 64), Image.Resampling.BILINEAR, box) for path in paths]
    pixels = torch.from_numpy(np.stack([np.asarray(each) for each in middle])).permute(0, 3, 1, 2).float() / 255
    about = upright.data_config
    mean, std = (torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = upright((pixels - mean) / std)
    torch.testing.assert_close(found.vectors, expected, rtol=1e-4, atol=1e-4)


def test_a_network_for_other_channels_takes_no_files(photos: Path, tmp_path: Path) -> None:
    grey = create_model("test_resnet", 8, image_size=32, in_chans=1)
    with pytest.raises(ConfigError, match="1 × 32 × 32, and images of files and data sets are RGB"):
        features(grey, images())
    with pytest.raises(ConfigError, match="1 × 32 × 32"):
        embed_files(grey, list_images([photos]), tmp_path / "e.safetensors")
    assert not list(tmp_path.iterdir())


def test_images_are_found_in_folders_however_deep_and_in_natural_order(photos: Path, tmp_path: Path) -> None:
    found = list_images([photos])
    assert len(found) == 20
    assert found[0] == photos / "p0" / "0.png"
    assert list_images([photos / "p1" / "2.png", photos / "p1"])[0] == photos / "p1" / "2.png"
    assert len(list_images([photos / "p1" / "2.png", photos / "p1"])) == 4
    for wrong, match in (("none", "no file or folder"), ("notes.txt", "is no image")):
        with pytest.raises(DataError, match=match):
            list_images([photos / wrong])
    with pytest.raises(DataError, match="no images were found in 1 folder:"):
        list_images([tmp_path])


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_embeddings_come_back_as_they_were_written(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    kept = Embeddings(torch.randn(3, 4), ("a/1.png", "a/2.png", "ß/3.png"), {"weights": "abc", "flip": "sum"})
    write_embeddings(kept, tmp_path / f"e{ending}")
    found = read_embeddings(tmp_path / f"e{ending}")
    assert torch.equal(found.vectors, kept.vectors)
    assert found.paths == kept.paths
    assert found.about == kept.about
    assert found.folders == ("a", "a", "ß")


def test_the_paths_of_many_images_are_not_in_the_header(tmp_path: Path) -> None:
    # safetensors reads no header of over 100 MB.
    count = 2000
    many = Embeddings(torch.zeros(count, 1), tuple(f"{'deep/' * 20}{place}.png" for place in range(count)))
    write_embeddings(many, tmp_path / "e.safetensors")
    assert int.from_bytes((tmp_path / "e.safetensors").read_bytes()[:8], "little") < 1000
    assert read_embeddings(tmp_path / "e.safetensors").paths == many.paths


@pytest.mark.parametrize("ending", [".parquet", ".safetensors"])
def test_files_of_another_kind_are_told(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    (tmp_path / f"e{ending}").write_bytes(b"something else entirely")
    with pytest.raises(DataError, match="holds no"):
        read_embeddings(tmp_path / f"e{ending}")
    with pytest.raises(DataError, match="no file"):
        read_embeddings(tmp_path / f"none{ending}")
    with pytest.raises(DataError, match="ending in"):
        read_embeddings(tmp_path / "e.csv")


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], None, [3.0, 4.0]]])
def test_rows_of_unequal_lengths_are_no_embeddings(tmp_path: Path, rows: list[list[float] | None]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    from pyarrow import parquet

    for kind in (pyarrow.list_(pyarrow.float32()), pyarrow.large_list(pyarrow.float32())):
        table = pyarrow.table({"path": ["a", "b", "c"], "embedding": pyarrow.array(rows, kind)})
        parquet.write_table(table, tmp_path / "e.parquet")
        with pytest.raises(DataError, match=r"its rows have 2, .* numbers, and all need as many"):
            read_embeddings(tmp_path / "e.parquet")


@pytest.mark.parametrize("ending", [".safetensors", ".parquet"])
def test_a_run_that_dies_goes_on_with_what_is_missing(
    model: EmbeddingModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    paths = list_images([photos])
    embed_files(model, paths, tmp_path / "whole.safetensors")
    whole = read_embeddings(tmp_path / "whole.safetensors")
    monkeypatch.setattr(embedding, "PART", 8)
    done: list[int] = []

    def dies(count: int, total: int) -> None:
        done.append(count)
        if count > 8:
            raise KeyboardInterrupt

    output = tmp_path / f"e{ending}"
    with pytest.raises(KeyboardInterrupt):
        embed_files(model, paths, output, progress=dies)
    assert not output.exists()
    called: list[int] = []
    inner = embedding.features
    monkeypatch.setattr(embedding, "features", lambda *args, **kw: called.append(len(args[1])) or inner(*args, **kw))
    embed_files(model, paths, output)
    found = read_embeddings(output)
    assert sum(called) == 12
    torch.testing.assert_close(found.vectors, whole.vectors, rtol=1e-6, atol=1e-6)  # of batches of another size
    assert found.paths == whole.paths == tuple(map(str, paths))
    assert found.about == whole.about
    assert not (tmp_path / f"e{ending}.parts").exists()


@pytest.mark.parametrize("ending", [".safetensors", ".parquet"])
def test_files_are_written_a_part_at_a_time(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    alive: list[weakref.ref[Tensor]] = []

    def parts() -> Iterator[Tensor]:
        for number in range(5):
            gc.collect()
            assert sum(each() is not None for each in alive) <= 1
            part = torch.full((3, 2), float(number))
            alive.append(weakref.ref(part))
            yield part
            del part

    write_parts(parts(), [f"{place}.png" for place in range(15)], {"weights": "w"}, tmp_path / f"e{ending}")
    found = read_embeddings(tmp_path / f"e{ending}")
    assert found.vectors[:, 1].tolist() == [float(place // 3) for place in range(15)]
    assert found.paths[14] == "14.png"
    assert found.about == {"weights": "w"}


def test_what_is_written_is_read_by_the_library_of_the_format(tmp_path: Path) -> None:
    x = torch.randn(4, 3)
    write_embeddings(Embeddings(x, tuple("äbcd")), tmp_path / "e.safetensors")
    found = safetensors.torch.load_file(tmp_path / "e.safetensors")
    assert torch.equal(found["embeddings"], x)
    assert json.loads(bytes(found["paths"].tolist())) == list("äbcd")


def test_parts_of_another_model_are_not_gone_on_with(model: EmbeddingModel, photos: Path, tmp_path: Path) -> None:
    def dies(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_files(model, list_images([photos]), tmp_path / "e.safetensors", progress=dies)
    with pytest.raises(ConfigError, match="another model, other settings or other images"):
        embed_files(model, list_images([photos]), tmp_path / "e.safetensors", flip="sum")
    shutil.rmtree(tmp_path / "e.safetensors.parts")
    embed_files(model, list_images([photos]), tmp_path / "e.safetensors", flip="sum")
    with pytest.raises(ConfigError, match="there already"):
        embed_files(model, list_images([photos]), tmp_path / "e.safetensors")


def test_a_model_is_left_as_it_was(
    model: EmbeddingModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    monkeypatch.setattr(model, "to", lambda device: moved.append(str(device)) or model)
    model.train()
    try:
        embed_files(model, list_images([photos]), tmp_path / "e.safetensors", device="cpu:0")
        assert model.training
    finally:
        model.eval()
    assert moved == ["cpu:0", "cpu"]


def test_an_image_that_cannot_be_read_is_named(model: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"a\.png"):
        embed_files(model, [tmp_path / "a.png"], tmp_path / "e.safetensors")


def test_a_calibrated_threshold_keeps_its_rate(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30).repeat_interleave(6)
    x = torch.randn(30, 16, generator=generator)[labels] + 0.7 * torch.randn(180, 16, generator=generator)
    made = calibrate(x, labels, 0.01, model="m", flip="sum")
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    cosines, other = unit @ unit.T, labels[:, None] != labels
    assert float((cosines[other] >= made.threshold - 1e-6).double().mean()) <= 0.01 + 1e-4
    assert made.interval is not None
    assert made.interval[0] <= made.tar <= made.interval[1]
    made.write(tmp_path / "t.json")
    assert Calibration.read(tmp_path / "t.json") == made
    with pytest.raises(DataError, match="cannot be written"):
        made.write(tmp_path / "t.json")
    with pytest.raises(InputError, match="takes 10"):
        calibrate(x, labels, 1e-6)


def test_no_threshold_is_made_up_where_impostors_are_the_most_similar(tmp_path: Path) -> None:
    labels = torch.arange(20).repeat_interleave(2)
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    x[::2] = x[0]
    with pytest.raises(InputError, match="there twice"):
        calibrate(x, labels, 0.1)


@pytest.mark.parametrize("threshold", ["high", None, float("inf"), 1.5, [0.5]])
def test_a_calibration_without_a_threshold_is_none(tmp_path: Path, threshold: object) -> None:
    made = Calibration(0.5, 0.01, 0.9, 0.01, 10, 1000, (0.8, 0.95), "m", "none")
    made.write(tmp_path / "t.json")
    kept = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps(kept | {"threshold": threshold}))
    with pytest.raises(DataError, match="no calibration"):
        Calibration.read(tmp_path / "t.json")


def test_a_gallery_of_other_preprocessing_is_another_models(
    model: EmbeddingModel, photos: Path, tmp_path: Path
) -> None:
    # The same weights, which are told apart by neither the number nor the size of their embeddings.
    others = [
        create_model("test_resnet", 8, **how) for how in ({"image_size": 48}, {"image_size": 32, "pixels": "mxnet"})
    ]
    embed_files(model, list_images([photos]), tmp_path / "e.safetensors")
    gallery = read_embeddings(tmp_path / "e.safetensors")
    asked = [photos / "p0" / "0.png"]
    assert of_images(model, asked, gallery, device=torch.device("cpu")).vectors.shape == (1, 8)
    for other in others:
        other.load_state_dict(model.state_dict())
        with pytest.raises(ConfigError, match="different models or settings"):
            of_images(other.eval(), asked, gallery, device=torch.device("cpu"))


def test_an_exported_model_turns_channels_itself(tmp_path: Path) -> None:
    turned = create_model("test_resnet", 8, image_size=32, pixels="adaface").eval()
    export(turned, tmp_path / "model.pt2")
    found = torch.export.load(tmp_path / "model.pt2").module()(images().float()).detach()
    torch.testing.assert_close(found, features(turned, images()), rtol=1e-4, atol=1e-5)


def test_a_folder_that_is_not_there_is_told_before_anything_is_computed(model: EmbeddingModel, tmp_path: Path) -> None:
    for ending in (".safetensors", ".pt2", ".onnx"):
        with pytest.raises(ConfigError, match=r"there is no folder .*nowhere to write model"):
            export(model, tmp_path / "nowhere" / f"model{ending}")
    arguments = [str(tmp_path / "none.parquet"), "--far", "0.1", "-o", str(tmp_path / "nowhere" / "t.json")]
    done = CliRunner().invoke(cli, ["calibrate", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert "nowhere to write t.json in: make it first" in str(done.exception)


@pytest.mark.parametrize("size", [32, (48, 32)], ids=["square", "upright"])
@pytest.mark.parametrize("ending", [".safetensors", ".pt2", ".onnx"])
def test_an_exported_model_gives_the_same_embeddings(
    model: EmbeddingModel, tmp_path: Path, ending: str, size: int | tuple[int, int]
) -> None:
    if size != 32:
        model = create_model("test_resnet", 8, image_size=size).eval()
    shape = model.data_config["input_size"][1:]
    file = tmp_path / f"model{ending}"
    if ending == ".onnx":
        pytest.importorskip("onnxscript", reason="needs nearfar[onnx]")
        runtime = pytest.importorskip("onnxruntime", reason="runs the exported model")
    export(model, file)
    for count in (1, 5):
        batch = images(count, shape)
        expected, pixels = features(model, batch), batch.float()
        if ending == ".safetensors":
            from nearfar.models import load_model

            found = features(load_model(file), batch)
        elif ending == ".pt2":
            found = torch.export.load(file).module()(pixels).detach()
        else:
            session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(["embeddings"], {"pixels": pixels.numpy()})[0])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="there already"):
        export(model, file)


def test_a_format_that_is_none_is_told(model: EmbeddingModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not tell a format"):
        export(model, tmp_path / "model.tflite")


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, (SystemExit, NearfarError)):
        raise result.exception
    return result.exit_code, result.output if not isinstance(result.exception, NearfarError) else str(result.exception)


def test_from_a_run_to_a_decision(run: Path, photos: Path, tmp_path: Path) -> None:
    code, output = call("embed", run, photos, "-o", tmp_path / "e.safetensors", "--flip", "sum", "--device", "cpu")
    assert (code, output.splitlines()[-1].rpartition(": ")[2]) == (0, "20 embeddings of 8 numbers")

    query = photos / "p2" / "1.png"
    code, output = call("search", tmp_path / "e.safetensors", query, "--run", run, "-k", 3, "--json", "--device", "cpu")
    (row,) = json.loads(output)
    assert row["found"][0] == [str(query), pytest.approx(1.0)]
    assert call("search", tmp_path / "e.safetensors", tmp_path / "e.safetensors", "-k", 1)[0] == 0

    code, output = call("calibrate", tmp_path / "e.safetensors", "--far", 0.1, "-o", tmp_path / "t.json")
    assert code == 0, output
    assert "of 30 genuine pairs" in output

    code, output = call("verify", run, query, query, "--threshold", tmp_path / "t.json", "--device", "cpu")
    assert (code, output[:12]) == (0, "one identity")
    code, output = call("verify", run, query, photos / "p0" / "1.png", "--threshold", "1.0", "--device", "cpu")
    assert (code, output[:14]) == (1, "two identities")

    code, output = call("export", run, "-o", tmp_path / "out.pt2")
    assert code == 0, output


def test_identities_are_those_of_a_table_where_there_is_one(run: Path, photos: Path, tmp_path: Path) -> None:
    call("embed", run, photos, "-o", tmp_path / "e.safetensors", "--device", "cpu")
    # Two people a pair of folders.
    rows = [f"{path},{int(path.parent.name[1]) // 2}" for path in list_images([photos])]
    (tmp_path / "who.csv").write_text("\n".join(["path,label", *rows, "elsewhere.png,9"]))
    words = ("calibrate", tmp_path / "e.safetensors", "--far", 0.2, "--labels", tmp_path / "who.csv")
    code, output = call(*words, "-o", tmp_path / "t.json")
    assert code == 0, output
    assert "of 62 genuine pairs" in output  # of 8, 8 and 4 images
    assert "impostor pairs of 3 identities" in output
    (tmp_path / "who.csv").write_text("\n".join(["path,label", *rows[1:]]))
    code, output = call(*words, "-o", tmp_path / "u.json")
    assert "1 of 20 images are not in the table" in output


def test_folders_of_one_name_in_two_places_are_told(tmp_path: Path) -> None:
    paths = tuple(f"{place}/{who}/{n}.png" for place in ("one", "two") for who in ("a", "b") for n in range(3))
    paths += tuple(f"one/c{who}/{n}.png" for who in range(9) for n in range(3))
    found = Embeddings(torch.randn(len(paths), 4, generator=torch.Generator().manual_seed(0)), paths)
    assert found.scattered() == ("a", "b")
    write_embeddings(found, tmp_path / "e.safetensors")
    with pytest.warns(NearfarWarning, match="2 folders of one name are in several places, first 'a'"):
        call("calibrate", tmp_path / "e.safetensors", "--far", 0.1, "-o", tmp_path / "t.json")


def test_embeddings_of_two_models_are_not_compared(run: Path, photos: Path, tmp_path: Path) -> None:
    call("embed", run, photos, "-o", tmp_path / "e.safetensors", "--device", "cpu")
    call("calibrate", tmp_path / "e.safetensors", "--far", 0.1, "-o", tmp_path / "t.json")
    torch.manual_seed(1)
    save_model(create_model("test_resnet", 8, image_size=32), tmp_path / "other.safetensors")
    query = photos / "p0" / "0.png"
    _, output = call("search", tmp_path / "e.safetensors", query, "--run", tmp_path / "other.safetensors")
    assert "different models" in output
    _, output = call("verify", tmp_path / "other.safetensors", query, query, "--threshold", tmp_path / "t.json")
    assert "made for another model" in output
    _, output = call("search", tmp_path / "e.safetensors", query)
    assert "give --run" in output
    _, output = call("verify", run, query, query, "--threshold", "none.json")
    assert "neither a number nor a file" in output
    _, output = call("embed", tmp_path / "nothing", photos, "-o", tmp_path / "f.safetensors")
    assert "neither the folder of a run" in output
