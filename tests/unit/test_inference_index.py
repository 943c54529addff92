"""An index over embeddings: nearly the same neighbours, kept on disk, never another gallery's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from nearfar.cli import cli
from nearfar.errors import ConfigError, DataError, InputError
from nearfar.evaluate import nearest
from nearfar.inference import Embeddings, write_embeddings

pytest.importorskip("faiss", reason="needs nearfar[search]")

from nearfar.inference.index import Index


def gallery(count: int = 2000, seed: int = 0) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, 16, generator=generator) * torch.rand(count, 1, generator=generator).exp()
    return Embeddings(vectors, tuple(f"{place}.png" for place in range(count)))


def test_neighbours_are_nearly_those_of_the_whole_search(tmp_path: Path) -> None:
    known, queries = gallery(), gallery(50, seed=1).vectors
    similarities, indices = Index(tmp_path / "g.faiss", known).search(queries, 10)
    exact, all_of_them = nearest(queries, known.vectors, 10)
    found = (indices[:, :, None] == all_of_them[:, None]).any(2)
    assert float(found.double().mean()) > 0.97
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], known.vectors[indices], dim=2)
    torch.testing.assert_close(similarities, cosines, rtol=0, atol=1e-5)
    assert bool((similarities[:, 1:] <= similarities[:, :-1]).all())
    assert float((exact[:, 0] - similarities[:, 0]).max()) < 0.05


def test_an_index_is_read_again_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, queries = gallery(300), gallery(5, seed=1).vectors
    made = Index(tmp_path / "g.faiss", known).search(queries, 3)
    monkeypatch.setattr(Index, "_built", None)
    again = Index(tmp_path / "g.faiss", known).search(queries, 3)
    assert torch.equal(made[1], again[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.faiss"]


def test_an_index_of_other_embeddings_is_refused(tmp_path: Path) -> None:
    Index(tmp_path / "g.faiss", gallery(300))
    with pytest.raises(ConfigError, match="index of other embeddings"):
        Index(tmp_path / "g.faiss", gallery(300, seed=2))
    (tmp_path / "g.faiss").write_bytes(b"something else")
    with pytest.raises(DataError, match="no index that nearfar wrote"):
        Index(tmp_path / "g.faiss", gallery(300))
    (tmp_path / "g.faiss").write_bytes(b"something else\n5")
    with pytest.raises(DataError, match="does not say of which embeddings it is"):
        Index(tmp_path / "g.faiss", gallery(300))
    with pytest.raises(DataError, match="cannot be written"):
        Index(tmp_path / "none" / "g.faiss", gallery(300))


def test_another_gallerys_index_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    Index(tmp_path / "a.faiss", gallery(300))
    Index(tmp_path / "b.faiss", gallery(300, seed=2))
    # As another process may put its own in its place.
    (tmp_path / "b.faiss").replace(tmp_path / "a.faiss")
    with pytest.raises(ConfigError, match="index of other embeddings"):
        Index(tmp_path / "a.faiss", gallery(300))


def test_faiss_reads_an_index_by_itself(tmp_path: Path) -> None:
    import faiss

    known = gallery(300)
    Index(tmp_path / "g.faiss", known)
    index = faiss.read_index(str(tmp_path / "g.faiss"))
    unit = torch.nn.functional.normalize(known.vectors)
    # A tensor, where anything has imported faiss.contrib.torch_utils: that changes faiss for all.
    assert torch.equal(torch.as_tensor(index.reconstruct_n(0, 300)), unit)


@pytest.mark.parametrize("k", [0, 301])
def test_there_are_as_many_neighbours_as_items(tmp_path: Path, k: int) -> None:
    index = Index(tmp_path / "g.faiss", gallery(300))
    assert index.search(gallery(2, seed=1).vectors, 300)[1].shape == (2, 300)
    with pytest.raises(InputError, match="from 1 to 300"):
        index.search(gallery(2).vectors, k)


def test_the_command_finds_the_same_with_an_index(tmp_path: Path) -> None:
    write_embeddings(gallery(300), tmp_path / "g.safetensors")
    write_embeddings(gallery(4), tmp_path / "q.safetensors")
    asked = ["search", str(tmp_path / "g.safetensors"), str(tmp_path / "q.safetensors"), "-k", "1", "--json"]
    plain, indexed = (CliRunner().invoke(cli, [*asked, *more]) for more in ([], ["--index", str(tmp_path / "g.faiss")]))
    assert plain.exit_code == indexed.exit_code == 0, indexed.output
    names = [[row["found"][0][0] for row in json.loads(ended.output)] for ended in (plain, indexed)]
    assert names[0] == names[1]
    assert len(names[0]) == 4
