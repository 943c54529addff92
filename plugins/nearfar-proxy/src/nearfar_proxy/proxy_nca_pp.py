"""ProxyNCA++: Teh, DeVries, Taylor 2020 (2004.01113)."""

from __future__ import annotations

from torch import nn

from nearfar.nn.arguments import positive
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.starts import Start

__all__ = ["ProxyNCAPlusPlus"]


class ProxyNCAPlusPlus(ProxyNCA):
    r"""The probability of the own proxy among all, at a low temperature.

    .. math:: L_i = -\log P_i, \qquad P_i = \frac{e^{-d(x_i, p_{y_i}) / T}}{\sum_j e^{-d(x_i, p_j) / T}}

    with :math:`d` the squared Euclidean distance of unit vectors.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one proxy.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    temperature : float
        (0..inf] What distances are divided by, T; 1/9 as in the paper.
    init : {"normal", "uniform", "orthogonal"}
        How proxies start, as in :class:`~nearfar_proxy.proxy_nca.ProxyNCA`.
    distance : nn.Module, optional
        Distance or similarity of embeddings and proxies; squared Euclidean of unit vectors unless given.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    As :class:`~nearfar_proxy.proxy_nca.ProxyNCA` with ``denominator="all"`` and a scale of 1/T. Of the
    paper's six enhancements these are two, the low temperature and the probability; the larger learning rate of the
    proxies, class-balanced batches, global max pooling and layer normalisation are the run's and the model's.

    Raises
    ------
    ArgumentError
        The temperature is not positive.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Teh, DeVries, Taylor (2020). ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis. ECCV.
    arXiv:2004.01113, equations 6 and 7.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        temperature: float = 1 / 9,
        init: Start = "normal",
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(
            num_classes,
            embedding_size,
            scale=1 / positive("temperature", temperature),
            denominator="all",
            init=init,
            distance=distance,
            reducer=reducer,
        )

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, embedding_size={self.embedding_size}, temperature={1 / self.scale:.6g}"
