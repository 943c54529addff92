"""Each law on what a part keeps catches the part that loses or shares it, and only that law does."""

from __future__ import annotations

import pytest
import torch

from kit.sound import SOUND_LOSS, SOUND_REDUCER, SoundLoss, SoundReducer, broken_laws
from nearfar.nn import MaterialTerms
from nearfar.testing.kept import Reads, kept, registered


def scaled(terms, factor):
    """Terms with their values times a factor."""
    return MaterialTerms("triplet", terms.values * factor, terms.indices, num_anchors=terms.num_anchors)


class Forgets(SoundLoss):
    # Warms up by a number of calls that no state_dict knows.

    calls = 0

    def terms(self, batch):
        if self.training:
            self.calls += 1
        return scaled(super().terms(batch), 1 + self.calls / 1000)


class ForgetsReducer(SoundReducer):
    # The same in a reducer.

    calls = 0

    def reduce(self, terms):
        if self.training:
            self.calls += 1
        return super().reduce(terms) * (1 + self.calls / 1e10)


class Unpicklable(SoundLoss):
    # Holds a function that has no name to be found by.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.hinge = lambda x: x.relu()


class Inseparable(SoundLoss):
    # A copy of it counts its calls where the original does.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("calls", torch.zeros(()))

    def __deepcopy__(self, memo):
        return self

    def terms(self, batch):
        if self.training:
            self.calls += 1
        return scaled(super().terms(batch), 1 + self.calls.double() / 1000)


class SharedTable(SoundLoss):
    # Notes the size of every batch in a list that all instances share.

    sizes = []  # noqa: RUF012  # what is wrong with it

    def terms(self, batch):
        self.sizes.append(len(batch.embeddings))
        return super().terms(batch)


#: Made once, for all instances.
TABLE = torch.ones(1)


class SharedBuffer(SoundLoss):
    # A buffer of each instance is the same tensor, as long as it is in float32.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("weight", TABLE)

    def terms(self, batch):
        return scaled(super().terms(batch), self.weight.to(batch.embeddings))


class HiddenWeight(SoundLoss):
    # Multiplies with a tensor in a list, which moves nowhere.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.weights = [torch.ones(1)]

    def terms(self, batch):
        return scaled(super().terms(batch), self.weights[0].to(batch.embeddings))


class StaysBehind(SoundLoss):
    # Has a buffer that it does not let go.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("weight", torch.ones(1))

    def _apply(self, move, recurse=True):
        weight = self.weight
        super()._apply(move, recurse)
        self.weight = weight
        return self

    def terms(self, batch):
        return scaled(super().terms(batch), self.weight.to(batch.embeddings))


class ConstantOnTheCPU(SoundLoss):
    # Weighs triplets with a tensor that it makes where nobody asked for it.

    def terms(self, batch):
        terms = super().terms(batch)
        return scaled(terms, torch.ones(len(terms.values), dtype=terms.values.dtype))


class NothingOnTheCPU(SoundLoss):
    # Gives a zero of its own for a batch of nothing.

    def forward(self, embeddings, *args, **kwargs):
        if not len(embeddings):
            return torch.zeros((), dtype=embeddings.dtype, requires_grad=True)
        return super().forward(embeddings, *args, **kwargs)


class ReferenceOnTheCPU(SoundLoss):
    # Weighs triplets with a tensor of its own where there is a reference set.

    def terms(self, batch):
        terms = super().terms(batch)
        return terms if batch.is_self else scaled(terms, terms.values.cpu().sign().clamp_min(1))


class ThroughNumPy(SoundLoss):
    # Counts triplets by an array, which only what is on the CPU can become.

    def terms(self, batch):
        terms = super().terms(batch)
        return scaled(terms, 1 + len(terms.values.detach().numpy()) / 1000)


class OtherKernel(SoundLoss):
    # Costs something else where it is not on the CPU.

    def terms(self, batch):
        return scaled(super().terms(batch), 1.0 if batch.embeddings.is_cpu else 1.001)


class OtherSlope(SoundLoss):
    # And its gradient is something else.

    def terms(self, batch):
        terms = super().terms(batch)
        if terms.values.is_cpu or not terms.values.requires_grad:
            return terms
        terms.values.register_hook(lambda gradient: 2 * gradient)
        return terms


class ReturnsToTheCPU(SoundLoss):
    # Returns its value as Python's number would be.

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs).cpu()


@pytest.mark.parametrize(
    ("target", "law", "word"),
    [
        (ConstantOnTheCPU, "device", "it stops: MixedDevices: mul has inputs on another device and a tensor (216,)"),
        (NothingOnTheCPU, "device", "it returns result 1 on the CPU"),
        (ReferenceOnTheCPU, "device", "it stops: MixedDevices: mul has inputs on another device"),
        (ThroughNumPy, "device", "an array of NumPy's is made of a tensor that is not on the CPU"),
        (OtherKernel, "device", "result 1 is something else than on the CPU"),
        (OtherSlope, "device", "the gradient of embeddings is something else"),
        (ReturnsToTheCPU, "device", "it returns result 1 on the CPU"),
        (Forgets, "resumed", "goes on differently"),
        (Unpicklable, "copies", "by pickle"),
        (Inseparable, "copies", "by deepcopy"),
        (SharedTable, "instances", "SharedTable.sizes"),
        (SharedBuffer, "instances", "weight of a part lies where weight of another does"),
        (HiddenWeight, "device", "weights[0]: neither parameter nor buffer"),
        (StaysBehind, "device", "weight stays"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_a_part_loses_or_shares_is_found(target, law, word):
    found = broken_laws("loss", target, SOUND_LOSS)
    assert set(found) == {law}
    assert word in found[law]


def test_what_a_reducer_forgets_is_found():
    assert set(broken_laws("reducer", ForgetsReducer, SOUND_REDUCER)) == {"resumed"}


def test_every_tensor_of_a_part_is_found_however_deep():
    part = SoundLoss()
    part.deep = {"a": [(torch.ones(2),)], "b": torch.nn.Linear(2, 2)}
    part.register_buffer("known", torch.ones(3))
    assert set(kept(part)) == {"deep['a'][0][0]", "deep['b'].weight", "deep['b'].bias", "known"}
    assert [name for name, tensor in kept(part).items() if id(tensor) in registered(part)] == ["known"]


def test_a_tensor_is_read_where_its_values_matter_and_not_where_its_shape_does():
    table, unused = torch.arange(3.0), torch.ones(3)
    reads = Reads({"table": table, "unused": unused})
    with reads:
        assert unused.shape == (3,)
        assert len(unused) == unused.numel() == 3
        torch.stack([table, table]).sum()
    assert reads.names == {"table"}
