"""Options of a class, read from its source: types, defaults and descriptions, without importing anything.

Importing Lightning takes seconds, which is too long for a page of help. The parser itself stays jsonargparse's; a test
compares both.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docstring_parser import DocstringStyle, parse

PACKAGE = "c2c_lightning"
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Option:
    """One option of a class, or a group of them.

    Attributes:
        name: its name within the class.
        type: its type in words.
        default: its default in words; None if it is required.
        help: its description.
        options: the options of a dataclass, which are given one by one.
    """

    name: str
    type: str
    default: str | None
    help: str
    options: tuple["Option", ...] = ()


@dataclass(frozen=True)
class ModuleSource:
    """The source of a module of this package.

    Attributes:
        tree: its syntax tree.
    """

    tree: ast.Module

    @classmethod
    @cache
    def of(cls, module: str) -> "ModuleSource":
        """A module by its full name."""
        path = _ROOT.joinpath(*module.split(".")[1:])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        return cls(ast.parse(file.read_text(encoding="utf-8")))

    def find(self, name: str) -> "tuple[ast.stmt, ModuleSource] | None":
        """The definition of a name, and the module that holds it; None for a name of another package."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node, self
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                return node, self
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return ModuleSource.of(str(node.module)).find(alias.name)
        return None

    def options(self, node: ast.ClassDef) -> tuple[Option, ...]:
        """The options of a class: arguments of its constructor, or fields of a dataclass."""
        init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
        texts = _descriptions(ast.get_docstring(node), None if init is None else ast.get_docstring(init))
        declared = _fields(node) if init is None else _arguments(init)
        return tuple(self._option(name, kind, default, texts.get(name, "")) for name, kind, default in declared)

    def _option(self, name: str, annotation: ast.expr, default: ast.expr | None, text: str) -> Option:
        nested: tuple[Option, ...] = ()
        if isinstance(annotation, ast.Name) and (found := self.find(annotation.id)) is not None:
            node, source = found
            if isinstance(node, ast.ClassDef) and _is_dataclass(node):
                nested = source.options(node)
        kind = ast.unparse(_Words(self).visit(annotation))
        return Option(name, kind, None if default is None else _default(default), text, nested)


class _Words(ast.NodeTransformer):
    """Types in words: aliases as what they stand for, literals as a set of values."""

    def __init__(self, source: ModuleSource) -> None:
        self.source = source

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The value of an alias."""
        found = self.source.find(node.id)
        if found is None or not isinstance(found[0], ast.Assign):
            return node
        value: ast.expr = _Words(found[1]).visit(found[0].value)
        return value

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """`{a,b}` for `Literal["a", "b"]`."""
        if isinstance(node.value, ast.Name) and node.value.id == "Literal":
            values = ast.literal_eval(node.slice)
            names = values if isinstance(values, tuple) else (values,)
            return ast.Name(f"{{{','.join(map(str, names))}}}")
        self.generic_visit(node)
        return node


def class_options(name: str) -> tuple[str, tuple[Option, ...]]:
    """Purpose and options of a class.

    Args:
        name: its path below the package, such as `training.module.C2CModule`.
    """
    module, _, attribute = name.rpartition(".")
    found = ModuleSource.of(f"{PACKAGE}.{module}").find(attribute)
    assert found is not None
    node, source = found
    assert isinstance(node, ast.ClassDef)
    return (ast.get_docstring(node) or "").partition("\n")[0], source.options(node)


def _descriptions(*docstrings: str | None) -> dict[str, str]:
    """The description of each argument or attribute."""
    parsed = [parse(text, DocstringStyle.GOOGLE) for text in docstrings if text]
    return {item.arg_name: " ".join((item.description or "").split()) for doc in parsed for item in doc.params}


def _arguments(init: ast.FunctionDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    arguments = init.args.args[1:]
    missing: list[ast.expr | None] = [None] * (len(arguments) - len(init.args.defaults))
    for argument, default in zip(arguments, [*missing, *init.args.defaults], strict=True):
        assert argument.annotation is not None
        yield argument.arg, argument.annotation, default


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield part.target.id, part.annotation, part.value


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _default(value: ast.expr) -> str:
    """A default in words."""
    if isinstance(value, ast.Lambda) and isinstance(value.body, ast.Call):
        # A factory: the first argument is what it is called with.
        return ast.unparse(ast.Call(value.body.func, value.body.args[1:], value.body.keywords))
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    text = ast.unparse(value)
    return {"None": "none", "field(default_factory=dict)": "{}", "field(default_factory=list)": "[]"}.get(text, text)
