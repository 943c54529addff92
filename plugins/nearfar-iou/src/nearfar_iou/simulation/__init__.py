"""The regression simulation of "Distance-IoU Loss": 1,715,000 boxes descend towards seven targets.

``cases`` has its boxes and its steps, ``published`` the directions that the figure of the paper was made with,
``descent`` goes along those or along the true gradients, ``record`` keeps what is done, ``drawing`` draws it.
"""
