"""The tier on a GPU: kernels of Triton's, written from the formulas of the compiled tier.

:mod:`~nearfar_iou.fused.launch` says whether it can be used and is all that the rest of the plugin knows of it. A
formula is run once on symbols, which write down what is done to them (:mod:`~nearfar_iou.fused.symbols`), and that is
the text of a kernel (:mod:`~nearfar_iou.fused.writing`): there is no second description of any loss.
"""
