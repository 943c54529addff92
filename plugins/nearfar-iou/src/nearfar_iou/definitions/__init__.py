"""What the losses compute, said slowly and plainly: the checks of ``nearfar.testing`` hold the losses to it.

One box, or one element, at a time, in Python's numbers, and nothing shared with the losses themselves.
"""
