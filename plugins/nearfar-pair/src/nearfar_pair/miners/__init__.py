"""Miners of triplets, one in each module."""
