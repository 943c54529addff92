"""Loops over rows of inner products: distances, what they cost, and the slopes of that in place of the products.

Slopes are by half the squared distance, or by the negated similarity: what inner products with the embeddings make the
gradient of. All is computed from one row, which stays in the innermost cache, in loops that each write to one place and
compare nothing but what is there, so that the compiler makes them loops over whole vector registers.
"""
