"""Hold nearfar's own plugins and the pml bridge to the laws, and write down what came of it for the documentation.

What differs from run to run, times above all, is left out: the file changes where a part or a law does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

NAMESPACES = ("core", "iou", "margin", "pair", "pml", "proxy")
FILE = Path(__file__).resolve().parent.parent / "docs" / "conformance.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "plugins", nargs="*", metavar="NAMESPACE", help="check these anew and keep the rest; default all"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.plugins) - set(NAMESPACES):
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(NAMESPACES)}")
    known = (
        {report["plugin"]: report for report in json.loads(FILE.read_text("utf-8"))["reports"]} if FILE.exists() else {}
    )
    failed = 0
    for namespace in NAMESPACES:
        if namespace in known and arguments.plugins and namespace not in arguments.plugins:
            continue
        known[namespace] = checked(namespace)
        failed += known[namespace]["failed"]
    FILE.write_text(written([known[namespace] for namespace in NAMESPACES]), encoding="utf-8")
    return 1 if failed else 0


def checked(namespace: str) -> dict[str, Any]:
    """The report of a plugin, without what differs from run to run; failures are told as they come."""
    from nearfar.registry import default_registry
    from nearfar.testing import checks_of, run

    registry = default_registry()
    plugin = next(plugin for plugin in registry.plugins if plugin.namespace == namespace)
    report = run(checks_of(registry, namespace), plugin, seen=tell)
    print(f"{namespace}: {', '.join(f'{n} {status}' for status, n in sorted(report.counts.items()))}", file=sys.stderr)
    data = report.to_dict()
    for name in ("distribution", "torch", "python"):
        del data[name]
    for check in data["checks"]:
        del check["seconds"]
        if check["status"] == "passed":
            check["reason"] = ""  # what was measured
    return data


def tell(result: Any) -> None:
    if result.status == "failed":
        print(f"FAILED {result.id}: {result.reason.partition(chr(10))[0]}", file=sys.stderr)


def written(reports: list[dict[str, Any]]) -> str:
    """JSON with a check a line, so that a change is one."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    texts = []
    for report in reports:
        fields = [f" {line(name)}: {line(value)}" for name, value in report.items() if name not in ("checks", "laws")]
        checks = ",\n".join(f"  {line(check)}" for check in report["checks"])
        laws = ",\n".join(f"  {line(name)}: {line(says)}" for name, says in report["laws"].items())
        texts.append("{\n" + ",\n".join([*fields, f' "checks": [\n{checks}\n ]', f' "laws": {{\n{laws}\n }}']) + "\n}")
    return '{"reports": [\n' + ",\n".join(texts) + "\n]}\n"


if __name__ == "__main__":
    sys.exit(main())
