"""``python -m nearfar`` is ``nearfar``."""

from nearfar.cli import main

main()
