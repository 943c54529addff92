"""Class vectors of a run that start at the means of their classes."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist

import nearfar
from nearfar.errors import ConfigError
from nearfar.nn import class_means
from nearfar.nn.class_losses import ClassLoss
from nearfar.nn.class_means import ClassMeans, initialize
from nearfar.testing import run_on_ranks
from nearfar.testing.meter import most_elements
from nearfar.train.config import Config
from nearfar.train.job import Job, prepare
from nearfar.train.progress import Narrator
from nearfar.train.table import embed


class Stripes(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Six classes of grey images, ten of each."""

    targets = torch.arange(6).repeat(10)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        g = torch.Generator().manual_seed(index)
        level = 40 * int(self.targets[index]) + torch.randint(30, (3, 16, 16), generator=g)
        return level.to(torch.uint8), int(self.targets[index])


def prepared(criterion: str, start: str = "class_means", *, begins: bool = True) -> Job:
    config = {
        "criterion": criterion,
        "device": "cpu",
        "model": {"name": "test_vit", "embedding_size": 8, "image_size": 16},
        "batch": {"classes_per_batch": 3, "samples_per_class": 2},
        "head": {"start": start},
    }
    data = {name: Stripes() for name in ("train", "validation", "test")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the classes are the same
        return prepare(Config.of(config), data, Narrator(quiet=True), begins=begins)[0]


def vectors(job: Job) -> torch.Tensor:
    (found,) = (
        getattr(module, name).detach()
        for module in job.criterion.modules()
        for name in ("weight", "centers")
        if isinstance(module, ClassLoss) and isinstance(getattr(module, name, None), torch.Tensor)
    )
    return found


@pytest.mark.parametrize("criterion", ["proxy_anchor", "arcface", "regular_face(proxy_nca)"])
def test_directions_are_the_mean_ones_of_the_untrained_network_and_lengths_as_drawn(criterion: str) -> None:
    job, drawn = prepared(criterion), prepared(criterion, "drawn")
    x = torch.nn.functional.normalize(embed(drawn.model, drawn.train, device=torch.device("cpu")))
    lengths = vectors(drawn).norm(dim=1)
    for c in range(6):
        mean = x[drawn.train.labels == c].double().mean(0)
        expected = mean / mean.norm() * lengths[c]
        torch.testing.assert_close(vectors(job)[c].double(), expected, rtol=1e-5, atol=1e-6)
    assert job.model.training


def test_centres_are_the_means() -> None:
    job = prepared("sup_con + 0.01 * center")
    x = embed(job.model, job.train, device=torch.device("cpu"))
    expected = torch.stack([x[job.train.labels == c].mean(0) for c in range(6)])
    torch.testing.assert_close(vectors(job), expected, rtol=1e-5, atol=1e-6)


def start_on_a_rank(rank: int, world: int, alone: dict[str, torch.Tensor]) -> None:
    for criterion, expected in alone.items():
        found = vectors(prepared(criterion))
        everybodys = [torch.empty_like(found) for _ in range(world)]
        dist.all_gather(everybodys, found)
        assert all(torch.equal(each, found) for each in everybodys)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_on_two_ranks_all_start_as_one_process_does() -> None:
    run_on_ranks(start_on_a_rank, 2, {each: vectors(prepared(each)) for each in ("soft_triple(centers=2)", "center")})


def test_unless_asked_and_where_a_run_goes_on_there_is_no_pass() -> None:
    drawn = vectors(prepared("proxy_anchor", "drawn"))
    assert torch.equal(vectors(prepared("proxy_anchor", begins=False)), drawn)
    assert not torch.equal(vectors(prepared("proxy_anchor")), drawn)


def test_a_criterion_without_class_vectors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.start is class_means, and sup_con has no class vectors"):
        prepared("sup_con")


def test_another_start_is_no_start() -> None:
    with pytest.raises(ConfigError, match=r"head\.start is 'means', but must be"):
        Config.of({"head": {"start": "means"}})


def test_the_means_of_many_classes_are_written_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(64, 8), torch.arange(64) % 32
    whole, parted = (nearfar.create_loss("proxy_nca", num_classes=40, embedding_size=8) for _ in range(2))
    parted.load_state_dict(whole.state_dict())
    initialize(whole, [(x, y)])
    monkeypatch.setattr(class_means, "_ROWS", 3)
    means = ClassMeans(parted)
    means.add(x, y)
    assert most_elements(means.finish) <= 3 * 8
    assert torch.equal(parted.weight, whole.weight)
