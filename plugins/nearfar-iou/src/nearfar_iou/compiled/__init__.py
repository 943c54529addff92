"""The compiled tier: box losses on the CPU, one box at a time in registers, with what :mod:`numba` makes of them.

:mod:`~nearfar_iou.compiled.tier` says whether it can be used and is all that the rest of the plugin knows of it; the
other modules need numba, and nothing imports them before a kernel is asked for.
"""
