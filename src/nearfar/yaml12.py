"""YAML as people expect it: ``1e-3`` is a number, and a key given twice is an error."""

from __future__ import annotations

import re
from typing import Any

from nearfar.errors import ConfigError

__all__ = ["dump", "load"]

#: What a number looks like beyond what PyYAML takes for one: its tag, its form, the characters it starts with.
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$|[-+]?\.\d+([eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def load(text: str, *, source: str) -> Any:
    """Read a YAML document.

    Raises
    ------
    ConfigError
        It is not YAML, or gives a key twice; the message has ``source`` and the line.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML reads YAML 1.1, in which a number with an exponent needs a dot; YAML 1.2 does not ask for it."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for position, key in enumerate(keys):
                if key in keys[:position]:
                    line = node.value[position][0].start_mark.line + 1
                    raise ConfigError(f"{source}, line {line}: the key {key!r} is given twice")
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(*_FLOAT)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{where}: this is not YAML: {problem}") from error


def dump(value: Any) -> str:
    """Write plain data as YAML, keys in their order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML's plain and single-quoted styles fold the rarer line breaks into spaces."""

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        style = '"' if any(break_ in data for break_ in "\x85\u2028\u2029\ufeff") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    # What would read as a number is quoted.
    Dumper.add_implicit_resolver(*_FLOAT)
    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100))
