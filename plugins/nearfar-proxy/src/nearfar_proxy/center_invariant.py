"""Center-invariant loss: Wu et al. 2017."""

from __future__ import annotations

from torch import Tensor, nn

from nearfar_proxy.regularized import Regularized

__all__ = ["CenterInvariant"]


class CenterInvariant(Regularized):
    r"""A loss with class weights, which also cost what their squared lengths differ from the mean of these.

    .. math::

        L + \frac{\lambda}{C} \sum_j \tfrac14 \left( \lVert w_j \rVert^2 - \frac1C \sum_k \lVert w_k \rVert^2 \right)^2

    so that classes with few samples get weights as long as the others.

    Parameters
    ----------
    loss : nn.Module
        A loss with ``weight`` (num_classes, embedding_size), to which their lengths matter: ``softmax``.
    factor : float
        [0..inf] λ; 0.1 here: the paper tries several.
    reducer : nn.Module, optional
        Reduction of the loss's terms and of the differences, which are added; that of ``loss`` unless given.

    Notes
    -----
    Called as ``loss`` is. The paper takes the classes of the batch instead of all.

    Raises
    ------
    ArgumentError
        ``loss`` has no class weights, or ``factor`` is negative.

    References
    ----------
    Wu, Liu, Zhao, Wang, Yan (2017). Deep Face Recognition with Center Invariant Loss. ACM Multimedia Thematic
    Workshops.
    """

    def __init__(self, loss: nn.Module, factor: float = 0.1, *, reducer: nn.Module | None = None) -> None:
        super().__init__(loss, factor, reducer=reducer)

    def costs(self, weight: Tensor) -> Tensor:
        squares = weight.square().sum(1)
        return (squares - squares.mean()).square() / 4
