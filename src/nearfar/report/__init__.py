"""A page about runs: one HTML file, which works without a network and without a server.

::

    from nearfar.report import write_report

    write_report(["runs/arcface", "runs/triplet"], "report.html")
"""

from nearfar.report.page import Report, write_report

__all__ = ["Report", "write_report"]
