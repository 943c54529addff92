"""The commands that the plugin adds below ``nearfar bench`` and ``nearfar plot``."""
