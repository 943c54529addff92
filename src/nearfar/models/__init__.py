"""Models: a timm backbone, an embedding head, the file they are kept in; and one of what stands for the classes.

::

    from nearfar.models import create_model, load_model, save_model

    model = create_model("resnet50", 512, head="bn_neck", normalize=True)
    model.data_config["input_size"]  # (3, 224, 224)
    save_model(model, "model.safetensors")
    model = load_model("model.safetensors")
"""

from nearfar.models.chunks import in_chunks
from nearfar.models.class_vectors import ClassVectors, class_vectors, load_class_vectors, save_class_vectors
from nearfar.models.file import load_model, save_model
from nearfar.models.model import EmbeddingModel, create_model
from nearfar.models.pixels import PIXELS, Pixels

__all__ = [
    "PIXELS",
    "ClassVectors",
    "EmbeddingModel",
    "Pixels",
    "class_vectors",
    "create_model",
    "in_chunks",
    "load_class_vectors",
    "load_model",
    "save_class_vectors",
    "save_model",
]
