"""What the site adds to the pages of docs/: the command line, the report's schema, and pages that live elsewhere.

Nothing of these is written twice: options come from the parsers, keys from the schema, and files outside docs/ are
shown as they are, with their links turned to where their targets are on the site.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# File of the repository -> page of the site.
ELSEWHERE = {
    "accel_specs/README.md": "reference/spec_keys.md",
    "networks/README.md": "reference/networks_shipped.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "SECURITY.md": "reference/security.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {"reference/command_line.md": command_line(), "reference/report.md": report_schema()}
    made["reference/python.md"] = "# Python\n\n" + "\n\n".join(f"::: {name}" for name in python_names()) + "\n"
    for source, page in ELSEWHERE.items():
        if page != "index.md":
            made[page] = (ROOT / source).read_text(encoding="utf-8")
    made |= {f"notebooks/{path.stem}.md": notebook(path) for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository to their pages; what has none stays as the file's name."""
    shown = {page_of: source for source, page_of in ELSEWHERE.items() if page_of != "index.md"}
    home = PurePosixPath(shown.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def turned(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(str(home / target))
        page_path = re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
        place = ELSEWHERE.get(path) or (page_path if path.startswith("docs/") else None)
        if place is None or files.get_file_from_path(place) is None:
            if not (ROOT / path).exists() and not path.startswith("docs/"):
                return link[0]  # mkdocs says that the link leads nowhere
            return f"{text} (`{path}`)" if text != f"`{path}`" else text
        return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(turned, markdown)


def python_names() -> list[str]:
    """The public names where they are defined, functions first."""
    import hwsim

    names = sorted(hwsim.PUBLIC, key=lambda name: (not name[0].islower(), name))
    return [f"{hwsim.PUBLIC[name]}.{name}" for name in names]


def command_line() -> str:
    """Every command's own help."""
    from hwsim.__main__ import COMMANDS

    os.environ["COLUMNS"] = "90"
    parts = ["# Command line", "", "```text", import_module("hwsim.__main__").usage(), "```", ""]
    for name, (module, before, purpose) in COMMANDS.items():
        parts += [f"## hwsim {name}", "", purpose[0].upper() + purpose[1:] + ".", ""]
        parts += ["```text", help_of(module, before).rstrip(), "```", ""]
    return "\n".join(parts)


def help_of(module: str, before: tuple[str, ...]) -> str:
    """What `--help` prints."""
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        import_module(module).main([*before, "--help"])
    if not printed.getvalue().startswith("usage"):
        raise RuntimeError(f"{module}: --help prints no usage")
    return printed.getvalue()


def notebook(path: Path) -> str:
    """A notebook's cells with the outputs that its file keeps."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join([*parts, f"The file is `docs/notebooks/{path.name}`."]) + "\n"


def shown(output: dict[str, Any]) -> str:
    """A cell's output as Markdown: its picture, its HTML or its text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell draws" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    if "text/html" in data:
        html = "".join("".join(data["text/html"]).splitlines()).replace(
            '<table border="1" class="dataframe">', "<table>"
        )
        return f'<div class="notebook-output">{html}</div>'
    return "```text\n" + "".join(output.get("text") or data["text/plain"]).rstrip() + "\n```"


def report_schema() -> str:
    """The keys of report.json by their schema."""
    schema = json.loads((ROOT / "hwsim/report/report.schema.json").read_text(encoding="utf-8"))
    lines = ["# report.json", "", schema.get("description", "What `--out` leaves, as data."), ""]
    lines += [f"Schema version {version(schema)}. The file is `hwsim/report/report.schema.json`.", ""]
    lines += ["| key | type | meaning |", "| --- | --- | --- |", *rows(schema, schema, "")]
    return "\n".join(lines) + "\n"


def version(schema: dict[str, Any]) -> object:
    return schema["properties"].get("schema_version", {}).get("const", 1)


def rows(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> list[str]:
    """A line for every key, depth first; keys of one's own, as names of layers, are written NAME."""
    found: list[str] = []
    for name, value in node.get("properties", {}).items():
        target = resolved(value, schema)
        kind = target.get("type", kinds(target, schema))
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        meaning = value.get("description") or target.get("description", "")
        found.append(f"| `{prefix}{name}` | {kind} | {meaning} |")
        found += inner_rows(target, schema, prefix + name)
    return found


def kinds(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a value may be where no one type is named: its constant, its words, the types of its forms."""
    if "const" in node:
        return f"always {node['const']}"
    if "enum" in node:
        return "one of " + ", ".join(repr(word) if word == "" else str(word) for word in node["enum"])
    forms = [resolved(form, schema) for key in ("oneOf", "anyOf", "allOf") for form in node.get(key, ())]
    return " or ".join(dict.fromkeys(form.get("type", kinds(form, schema)) for form in forms)) or "any"


def inner_rows(node: dict[str, Any], schema: dict[str, Any], prefix: str) -> list[str]:
    """Lines of the keys inside a value: of an object, of entries of a list or by name, of either of several forms."""
    found = rows(node, schema, prefix + ".")
    for form in (*node.get("oneOf", ()), *node.get("anyOf", ())):
        found += inner_rows(resolved(form, schema), schema, prefix)
    named = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    for inner, sign in ((node.get("items"), "[]"), *((each, ".NAME") for each in named)):
        if isinstance(inner, dict):
            found += inner_rows(resolved(inner, schema), schema, prefix + sign)
    return found


def resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` of the same file stands for."""
    if "$ref" not in node:
        return node
    target: Any = schema
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return target
