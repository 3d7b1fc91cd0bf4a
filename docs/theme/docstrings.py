"""Docstrings as the API pages show them: doctests as code blocks, and the arguments of attrs classes."""
# ruff: noqa: INP001 - a module of the documentation

import re
from typing import Any

from griffe import (
    Attribute,
    Class,
    Docstring,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Module,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)

__all__ = ["Docstrings"]

DOCTEST = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", flags=re.MULTILINE)

SHARED = re.compile(r"^    (\*?\w+(?:, \w+)+)(: .*(?:\n     .*)*)", flags=re.MULTILINE)


class Docstrings(Extension):
    """What `mkdocs.yml` names under `extensions`."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Puts each doctest between fences, and arguments that share a text, `a, b: text`, on lines of their own.

        Without fences `>>>` is a quotation in Markdown. A doctest ends at the next blank line.
        """
        if obj.docstring:
            split = SHARED.sub(_split, obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(r"\1```pycon\n\g<0>\n\1```", split)

    def on_module_members(self, *, mod: Module, **_: Any) -> None:
        """Lists the names of a face, and shows constants and types: their text is the comment at the end of the line.

        The face of a folder without `__all__` exports what it imports from the modules of the folder.
        """
        if mod.is_init_module and mod.exports is None:
            mod.exports = [name for name, path in mod.imports.items() if path.startswith(f"{mod.path}.")]
        for field in mod.members.values():
            if not isinstance(field, Attribute) or field.name.startswith("_") or field.docstring or not field.lineno:
                continue
            comment = mod.lines[field.lineno - 1].partition("  # ")[2]
            kind = "A type." if "Callable" in str(field.value) or "Literal" in str(field.value) else "A constant."
            text = f"{comment[:1].upper()}{comment[1:]}." if comment else kind
            field.docstring = Docstring(text, parent=field)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Gives a class of attrs the `__init__` that attrs generates, from its fields."""
        options = next((_keywords(d.value) for d in cls.decorators if str(d.value).startswith("attrs.")), None)
        if options is None or "__init__" in cls.members:
            return
        every = [_parameter(field, options) for field in cls.members.values() if isinstance(field, Attribute)]
        listed = sorted(filter(None, every), key=lambda parameter: parameter.kind is ParameterKind.keyword_only)
        first = Parameter("self", kind=ParameterKind.positional_or_keyword)
        cls.set_member("__init__", Function("__init__", parameters=Parameters(first, *listed), returns="None"))


def _split(shared: re.Match[str]) -> str:
    """`a, b: text` as `a: text` and `b: text`."""
    return "\n".join(f"    {name}{shared[2]}" for name in shared[1].split(", "))


def _parameter(field: Attribute, options: dict[str, Any]) -> Parameter | None:
    """The argument of a field; None for what is no field, or is private and set by the class itself."""
    own = "class-attribute" in field.labels and "instance-attribute" not in field.labels  # a ClassVar
    if field.annotation is None or own or "property" in field.labels:
        return None
    made = str(field.value).startswith("attrs.field(") if field.value is not None else False
    given = _keywords(field.value) if made else {}
    if str(given.get("init")) == "False":
        return None
    default: Any = given.get("default") if made else field.value
    if "factory" in given:
        default = f"{given['factory']}()"
    if field.name.startswith("_") and default is not None:
        return None
    keyword = "True" in (str(given.get("kw_only")), str(options.get("kw_only")))
    kind = ParameterKind.keyword_only if keyword else ParameterKind.positional_or_keyword
    return Parameter(field.name.lstrip("_"), annotation=field.annotation, kind=kind, default=default)


def _keywords(call: Any) -> dict[str, str | Expr]:
    """The keyword arguments of a call in the source."""
    if not isinstance(call, ExprCall):
        return {}
    return {argument.name: argument.value for argument in call.arguments if isinstance(argument, ExprKeyword)}
