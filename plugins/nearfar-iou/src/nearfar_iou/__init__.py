"""nearfar plugin; its entry module is :mod:`nearfar_iou.plugin`."""
