"""Matchers of boxes, and miners of elements."""
