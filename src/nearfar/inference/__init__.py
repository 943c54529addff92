"""From a trained model to its use: embeddings of images in a file, searched, compared against a threshold, exported.

::

    from nearfar.inference import embed_files, read_embeddings

    embed_files(model, list_images("photos/"), "photos.parquet")
    found = read_embeddings("photos.parquet")
"""

from nearfar.inference.calibration import Calibration, calibrate, calibrate_pairs
from nearfar.inference.embedding import embed_files
from nearfar.inference.export import export
from nearfar.inference.features import FLIPS, features
from nearfar.inference.files import list_images
from nearfar.inference.index import Index
from nearfar.inference.store import Embeddings, read_embeddings, write_embeddings

__all__ = [
    "FLIPS",
    "Calibration",
    "Embeddings",
    "Index",
    "calibrate",
    "calibrate_pairs",
    "embed_files",
    "export",
    "features",
    "list_images",
    "read_embeddings",
    "write_embeddings",
]
