"""Models: a timm backbone, an embedding head, and the file they are kept in.

::

    from nearfar.models import create_model, load_model, save_model

    model = create_model("resnet50", 512, head="bn_neck", normalize=True)
    model.data_config["input_size"]  # (3, 224, 224)
    save_model(model, "model.safetensors")
    model = load_model("model.safetensors")
"""

from nearfar.models.chunks import in_chunks
from nearfar.models.file import load_model, save_model
from nearfar.models.model import EmbeddingModel, create_model
from nearfar.models.pixels import PIXELS, Pixels

__all__ = ["PIXELS", "EmbeddingModel", "Pixels", "create_model", "in_chunks", "load_model", "save_model"]
