"""The compiled tier: what the passes over rows of distances do most often, in one loop over each row.

numba compiles it for the CPU. It is of float32, by class ids and nearfar's own distances; torch computes the rest.
"""
