"""YAML as it stands in a file: plain values, the line of each, and ``${NAME}`` from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.configuration.problems import ConfigurationError, Path, Problem, dotted

# `$${` stands for a `${` that is not a variable.
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
DEEPEST = 40


@dataclass
class Document:
    """The file's values, and where each stands. Values may hold secrets: never print them."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if (found := self.lines.get(path[:length])) is not None:
                return found
        return 0

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at ``path``."""
        return Problem(self.file, self.line(path), dotted(path), message)


class _Reader:
    """Turns the nodes of one file into values."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self.document = Document(file)
        self.problems: list[Problem] = []
        self._environment = environment
        self._scalars = yaml.SafeLoader("")

    def _problem(self, node: yaml.Node, path: Path, message: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(self.document.file, line, dotted(path), message))

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of ``node``; notes its line and every problem in it."""
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > DEEPEST:
            self._problem(node, path[:3], "is nested too deep, perhaps an anchor inside itself")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, index)) for index, each in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a field's name must be a word")
                continue
            name = str(key.value)
            at = (*path, name)
            if name in found:
                self._problem(key, at, f"is given twice (first in line {self.document.lines[at]})")
                continue
            self.document.lines[at] = key.start_mark.line + 1
            found[name] = self.value(value, at)
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in _PLAIN_TAGS:
            self._problem(node, path, f"the tag {node.tag} is not known here")
            return None
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._problem(node, path, f"cannot be read: {str(error).splitlines()[0]}")
            return None
        return self._filled(node, path, value) if isinstance(value, str) else value

    def _filled(self, node: yaml.Node, path: Path, text: str) -> str:
        """``text`` with each ``${NAME}`` replaced from the environment."""

        def replacement(match: re.Match[str]) -> str:
            if match.group() == "$${":
                return "${"
            name = match.group(1)
            if name is None or not _NAME.match(name):
                self._problem(node, path, "has a ${ that is not a variable: write ${NAME}, or $${ for itself")
                return ""
            if name not in self._environment:
                self._problem(node, path, f"the environment variable {name} is not set")
                return ""
            return self._environment[name]

        return _VARIABLE.sub(replacement, text)


def read(text: str, file: str, environment: Mapping[str, str]) -> tuple[Document, list[Problem]]:
    """The document in ``text``, and what is wrong with it as YAML.

    ``file`` is its name in messages. Raises ``ConfigurationError`` where it is no YAML at all, or not
    one mapping.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigurationError([Problem(file, line, "", f"is not valid YAML: {said}")]) from None
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
        raise ConfigurationError([Problem(file, 0, "", f"is not valid YAML: {said}")]) from None
    if node is None:
        return Document(file), []
    if not isinstance(node, yaml.MappingNode):
        where = node.start_mark.line + 1
        raise ConfigurationError([Problem(file, where, "", "must be a mapping of sections")])
    reader = _Reader(file, environment)
    reader.document.values = reader.value(node, ())
    return reader.document, reader.problems
