"""Pages of the documentation that are made, not written: every key of a recipe, and every command.

A hook of MkDocs (see mkdocs.yml). The site is built by ``make docs``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from disttrain.config import Recipe
from disttrain.config.reading.describe import describe
from disttrain.config.reading.fields import fields, models, names, unwrap
from disttrain.config.sections.base import ALTERNATIVES, SELECTORS
from disttrain.config.sections.recipe import Evaluate

ROOT = Path(__file__).resolve().parents[1]
Section = type[BaseModel]
RECIPE_HEAD = """# Recipe keys

Made from the classes that read a recipe (`disttrain schema` prints the same as JSON Schema, for editors). Unknown keys are
mistakes, and all mistakes of a file are reported at once.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs: adds the pages, and the benchmarks' tables, which stay beside their scripts."""
    made = {"reference/recipe.md": recipe_page(), "reference/commands.md": commands_page()}
    made |= {f"benchmarks/{table.name}": table.read_text() for table in sorted((ROOT / "benchmarks").glob("*.md"))}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Called by MkDocs: in the repository the benchmarks are beside docs/, on the site below it."""
    return re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/", r"](\1benchmarks/", markdown)


def recipe_page() -> str:
    """Every section and key of a recipe, from the classes that read it."""
    return RECIPE_HEAD + "".join(section_text(path, section) for path, section in sections())


def sections() -> Iterator[tuple[str, Section]]:
    """Each section class once, with the first path where it may stand, outer ones first."""
    seen: set[Section] = set()
    waiting: list[tuple[str, Section]] = [("", Recipe)]
    while waiting:
        path, section = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        yield path, section
        inner = [(f"{path}.{key}".lstrip("."), m) for key, f in fields(section).items() for m in models(f.annotation)]
        waiting = inner + waiting if path else waiting + inner


@functools.cache
def anchors() -> dict[Section, str]:
    """Where on the page each section is."""
    found: dict[Section, str] = {}
    for path, section in sections():
        name = anchor(path, selected(section))
        found[section] = name if name not in found.values() else f"{name}-{section.__name__.lower()}"
    return found


def section_text(path: str, section: Section) -> str:
    """A heading, what the section is, and a table of its keys."""
    title = f"`{path}`" if path else "The recipe"
    if (kind := selected(section)) is not None:
        title += f", {kind}"
    rows = [row(path, section, key, field) for key, field in fields(section).items()]
    about = " ".join((section.__doc__ or "").split())
    return "\n".join(
        [
            f"\n## {title} {{#{anchors()[section]}}}\n",
            about + "\n",
            "| key | type | default | meaning | example |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def row(path: str, section: Section, key: str, field: FieldInfo) -> str:
    """One key. Several sections that may stand there are links."""
    kinds = models(field.annotation)
    type_ = describe(field.annotation, tuple(field.metadata))
    if kinds:
        links = [f"[{selected(k) or 'section'}](#{anchors()[k]})" for k in kinds]
        many = get_origin(unwrap(field.annotation)[0]) is list
        type_ = ("a list of " if many else "") + " or ".join(links) + (", or null" if type_.endswith("or null") else "")
    cells = [f"`{key}`", type_, default(field), meaning(section, key), example(path, key, field)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def selected(section: Section) -> str | None:
    """The name or kind that selects a section among others."""
    for key in SELECTORS:
        field = section.model_fields.get(key)
        if field is not None and get_origin(field.annotation) is Literal and field.is_required():
            return str(get_args(field.annotation)[0])
        if field is not None and field.is_required():
            return names([section])[0]
    return None


def anchor(path: str, kind: str | None) -> str:
    words = f"{path} {kind or ''}".lower()
    return "-".join("".join(c if c.isalnum() or c == "_" else " " for c in words).split()) or "recipe"


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "its own defaults" if isinstance(value, BaseModel) else f"`{plain(value)}`"


def meaning(section: Section, key: str) -> str:
    schema = section.model_json_schema(by_alias=True)
    found = schema if "properties" in schema else schema["$defs"][section.__name__]
    return str(found["properties"][key]["description"])


def example(path: str, key: str, field: FieldInfo) -> str:
    """What a person would write there."""
    return f"`{key}: {plain(value_of(f'{path}.{key}', field))}`"


def value_of(path: str, field: FieldInfo) -> Any:
    """The example given with a key, its default, the first of its values, or of its sections the smallest."""
    inner, _, _ = unwrap(field.annotation, tuple(field.metadata))
    kinds = models(field.annotation)
    value = next(iter(field.examples or []), None)
    if value is None and kinds:
        value = smallest(kinds[0], path)
        return [value] if get_origin(inner) is list else value
    if value is None and not field.is_required():
        value = field.get_default(call_default_factory=True)
    if value is None and get_origin(inner) is Literal:
        value = get_args(inner)[0]
    if value is None:
        raise ValueError(f"{path} has neither a default nor an example: add examples=[...] to its Field")
    return value


def smallest(section: Section, path: str = "") -> dict[str, Any]:
    """What a section cannot do without; of one that can do without anything, its first key."""
    keys = needed(section) or list(fields(section))[:1]
    return {key: value_of(f"{path}.{key}", fields(section)[key]) for key in keys}


def needed(section: Section) -> list[str]:
    """The keys that a section must have; where it must have one of several, the first."""
    known = fields(section)
    chosen = [group[0] for group in ALTERNATIVES if set(group) <= known.keys() and section is not Evaluate]
    return [key for key, field in known.items() if field.is_required() or key in chosen]


def plain(value: Any) -> str:
    """A value as YAML's flow style writes it."""
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def commands_page() -> str:
    """The help of every command."""
    import click
    import typer

    from disttrain.cli.main import app

    text = "# Commands\n\n`disttrain COMMAND` and `python -m disttrain COMMAND` are the same program; no command means `train`.\n"

    def add(words: str, command: Any) -> str:
        if hasattr(command, "commands"):
            return "".join(add(f"{words} {name}", inner) for name, inner in command.commands.items())
        context = click.Context(command, info_name=words, max_content_width=100)
        return f"\n## {words}\n\n```text\n{command.get_help(context)}\n```\n"

    root: Any = typer.main.get_command(app)
    return text + "".join(add(f"disttrain {name}", command) for name, command in root.commands.items())
