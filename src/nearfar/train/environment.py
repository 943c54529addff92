"""What Lightning is told of the processes of a run."""

from __future__ import annotations

from lightning.fabric.plugins import ClusterEnvironment

from nearfar.train.ranks import Ranks

__all__ = ["Environment"]


class Environment(ClusterEnvironment):  # type: ignore[misc]  # lightning is untyped here
    """Tells Lightning of processes that are there already."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    creates_processes_externally = True
    main_address = ""
    main_port = 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.ranks.world

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.ranks.local

    def node_rank(self) -> int:
        return (self.ranks.rank - self.ranks.local) // self.ranks.local_world
