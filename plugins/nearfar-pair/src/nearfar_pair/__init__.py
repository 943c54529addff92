"""nearfar plugin of pair-based losses and miners; its entry module is :mod:`nearfar_pair.plugin`."""
