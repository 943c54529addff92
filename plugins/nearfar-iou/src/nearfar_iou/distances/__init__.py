"""Similarities of boxes, as distances of the registry."""
