"""Work on several ranks: what it sees, and what is heard of a rank that fails."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from nearfar.testing import run_on_ranks


def add_up(rank: int, world: int, expected: float) -> None:
    total = torch.tensor(float(rank + 1))
    dist.all_reduce(total)
    assert (dist.get_rank(), dist.get_world_size()) == (rank, world)
    assert total == expected, f"rank {rank} of {world} has {total}"


def test_ranks_are_one_group_and_are_given_the_arguments() -> None:
    run_on_ranks(add_up, 2, 3.0)


def test_an_assertion_that_fails_on_a_rank_is_told() -> None:
    with pytest.raises(ProcessRaisedException, match=r"rank [01] of 2 has 3\.0"):
        run_on_ranks(add_up, 2, 4.0)
