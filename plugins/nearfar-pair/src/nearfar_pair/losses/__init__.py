"""Losses on pairs and triplets of embeddings, one in each module."""
