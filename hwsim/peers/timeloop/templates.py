"""Timeloop's jinja2 templates, rendered in a sandbox in which a description can read only its own folder.

Functions as in its front end: `cwd`, `add_to_path`, `find_path`, `path_exists`, `include`, `include_all`,
`include_text`. `setenv` and everything that loads code are refused by name. Paths are resolved (symbolic links too)
and must stay below the folder of the first file; circles of includes, endless loops and huge results are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hwsim.errors import SpecError
from hwsim.peers.tagged_yaml import MAX_BYTES, Item, parse, read_text

TAGS = (
    "!Component", "!Container", "!Hierarchical", "!Parallel", "!Pipelined", "!Nothing", "!nomerge", "!include_loaded",
)  # fmt: skip
MAX_FILES, MAX_LOOP, MAX_LOOPS = 200, 1000, 2
FILTERS = ("abs", "d", "default", "first", "float", "int", "join", "last", "length", "list", "lower", "max", "min",
           "round", "sort", "string", "sum", "trim", "unique", "upper")  # fmt: skip
REFUSED = (
    nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Macro, nodes.CallBlock, nodes.FilterBlock,
)  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """No attributes but a loop's own, no methods, no operators that blow up text, no unlisted filter."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only `loop.index` and the like."""
        return isinstance(obj, LoopContext) and not attr.startswith("_")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic of numbers; texts may be joined with ~ or +, never multiplied or formatted."""
        numbers = all(isinstance(side, (int, float)) for side in (left, right))
        if operator != "+" and not numbers:
            raise SecurityError(f"operator {operator} of something that is no number")
        if operator == "**" and (abs(left) > 1e6 or abs(right) > 64):
            raise SecurityError("a power of large numbers")
        if operator == "+" and not numbers and len(left) + len(right) > 2 * MAX_LOOP:
            raise SecurityError("a list or text without end")
        return super().call_binop(context, operator, left, right)


@dataclass
class Templates:
    """Renders and parses files below `root`, following includes."""

    root: Path
    variables: Mapping[str, str]
    folders: list[Path] = field(default_factory=list[Path])
    loaded: list[Item] = field(default_factory=list[Item])
    read: int = 0
    used: set[str] = field(default_factory=set[str])

    def load(self, path: Path, stack: tuple[Path, ...] = ()) -> Item:
        """The tree of a file, its includes put in place. Raises SpecError."""
        path = self.inside(path, str(path))
        if path in stack:
            chain = " -> ".join(p.name for p in (*stack, path))
            raise SpecError(f"{stack[-1]}:1: circular include: {chain}")
        self.read += 1
        if self.read > MAX_FILES:
            raise SpecError(f"{path}: more than {MAX_FILES} files are included")
        text = read_text(path)
        rendered = self.render(text, path, (*stack, path)) if "{{" in text or "{%" in text or "{#" in text else text
        name = str(path)
        if rendered.count("\n") != text.count("\n"):
            name += " (rendered)"  # lines are those of the rendered text
        return self.resolve(parse(rendered, name, TAGS))

    def resolve(self, item: Item) -> Item:
        """The item with every `!include_loaded` replaced by what was included."""
        if item.tag == "!include_loaded":
            return self.loaded[int(str(item.value))]
        if isinstance(item.value, dict):
            return Item({k: self.resolve(v) for k, v in item.value.items()}, item.file, item.line, item.tag)
        if isinstance(item.value, list):
            return Item([self.resolve(v) for v in item.value], item.file, item.line, item.tag)
        return item

    def inside(self, path: Path, shown: str) -> Path:
        """The real path, if it is below the first file's folder."""
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            raise SpecError(f"{shown}: cannot be resolved as a path") from None
        if not real.is_relative_to(self.root):
            raise SpecError(f"{shown}: outside {self.root}: a description may read only its own folder")
        return real

    def find(self, text: str, folder: Path) -> Path:
        """A file by its path, relative to the including file, then to the added folders."""
        for base in (folder, *self.folders):
            path = self.inside(base / text, text)
            if path.is_file():
                return path
        raise SpecError(f"{text}: no such file beside {folder} or in an added path")

    def functions(self, path: Path, stack: tuple[Path, ...]) -> dict[str, Any]:
        """What a template may call."""
        folder = path.parent

        def exists(text: str) -> bool:
            return any(self.inside(base / text, text).exists() for base in (folder, *self.folders))

        def add_to_path(text: str) -> str:
            self.folders.append(self.inside(folder / text, text))
            return ""

        def refuse(*_: Any) -> NoReturn:
            raise SpecError("setenv is refused: a description may not change this process")

        def include(text: str, key: str = "") -> str:
            return self.remember(part(self.load(self.find(text, folder), stack), key))

        def include_all(pattern: str, key: str = "") -> str:
            if ".." in pattern or pattern.startswith("/"):
                raise SpecError(f"include_all({pattern!r}): expected a pattern below the file's folder")
            found = sorted({p for base in (folder, *self.folders) for p in base.glob(pattern) if p.is_file()})
            if not found:
                raise SpecError(f"include_all({pattern!r}): no file matches")
            items: list[Item] = []
            for file in found:
                item = part(self.load(file, stack), key)
                items += item.value if isinstance(item.value, list) else [item]
            return self.remember(Item(items, str(path), 1))

        def find_path(text: str) -> str:
            return str(self.find(text, folder))

        def find_paths(text: str) -> list[str]:
            return [str(self.find(text, folder))]

        def include_text(text: str) -> str:
            return read_text(self.find(text, folder))

        def bounded_range(*arguments: int) -> range:
            found = range(*arguments)
            if len(found) > MAX_LOOP:
                raise SecurityError(f"a range of more than {MAX_LOOP} numbers")
            return found

        return {
            "cwd": lambda: str(folder), "add_to_path": add_to_path, "path_exists": exists, "setenv": refuse,
            "find_path": find_path, "range": bounded_range,
            "find_paths": find_paths,
            "include": include, "include_all": include_all, "include_text": include_text,
        }  # fmt: skip

    def remember(self, item: Item) -> str:
        """A scalar that stands for an included tree until the text has been parsed."""
        self.loaded.append(item)
        return f"!include_loaded '{len(self.loaded) - 1}'"

    def render(self, text: str, path: Path, stack: tuple[Path, ...]) -> str:
        """The text with its templates filled in. Raises SpecError with file and line."""
        sandbox = Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
        sandbox.filters = {name: sandbox.filters[name] for name in FILTERS}
        functions = self.functions(path, stack)
        sandbox.globals = dict(functions)
        try:
            tree = sandbox.parse(text)
            check_tree(tree)
            named = {node.name for node in tree.find_all(nodes.Name)}
            self.used |= named & self.variables.keys()
            given = {name: value for name, value in self.variables.items() if name in named}
            rendered = sandbox.from_string(text).render(given)
        except jinja2.TemplateSyntaxError as problem:
            raise SpecError(f"{path}:{problem.lineno}: template: {problem.message}") from None
        except SpecError as problem:
            first = problem.problems[0]
            placed = first.startswith((str(self.root), f"{path}:"))
            raise SpecError(first if placed else f"{path}:{line_of(problem)}: {first}") from None
        except jinja2.UndefinedError as problem:
            hint = "; set it with NAME=VALUE"
            raise SpecError(f"{path}:{line_of(problem)}: template: {problem.message}{hint}") from None
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, RecursionError) as problem:
            raise SpecError(f"{path}:{line_of(problem)}: template: {problem}") from None
        if len(rendered) > MAX_BYTES:
            raise SpecError(f"{path}: rendered to more than {MAX_BYTES // 1024} KiB")
        return rendered


def line_of(problem: BaseException) -> int:
    """Line of the template in which an exception arose, from its traceback; 1 where it cannot be told."""
    line, trace = 1, problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def check_tree(tree: nodes.Template) -> None:
    """Refuse statements that load other templates or could run for ever."""
    for kind in REFUSED:
        for node in tree.find_all(kind):
            raise SpecError(f"line {node.lineno}: template statement {type(node).__name__.lower()} is refused")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise SpecError(f"line {loop.lineno}: a recursive loop is refused")
        check_depth(loop, 1)


def check_depth(node: nodes.Node, depth: int) -> None:
    """Refuse loops nested more deeply than `MAX_LOOPS`."""
    for child in node.iter_child_nodes():
        deeper = depth + isinstance(child, nodes.For)
        if deeper > MAX_LOOPS:
            raise SpecError(f"line {child.lineno}: loops nested more than {MAX_LOOPS} deep are refused")
        check_depth(child, deeper)


def part(item: Item, key: str) -> Item:
    """The part of a tree that a dotted key names."""
    for word in key.split(".") if key else ():
        keys = item.keys(f"include of {key!r}")
        if word not in keys:
            raise item.error(f"include: no key {word!r} of {key!r}; there are {', '.join(keys)}")
        item = keys[word]
    return item
