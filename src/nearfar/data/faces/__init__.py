"""Faces: the file formats of the field, read without its frameworks, and the alignment they were made with."""

from nearfar.data.faces.align import TEMPLATES, align
from nearfar.data.faces.orl import ORL
from nearfar.data.faces.pairs import FacePairs, read_pairs, write_pairs
from nearfar.data.faces.records import RecordFaces, write_records

__all__ = [
    "ORL",
    "TEMPLATES",
    "FacePairs",
    "RecordFaces",
    "align",
    "read_pairs",
    "write_pairs",
    "write_records",
]
