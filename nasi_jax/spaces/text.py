"""Reads text forms as they are written, printed and pasted, without evaluating them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_PLAIN = str.maketrans("‘’“”\xa0", "''\"\" ")
_TIME = r"\[?\d+[-/:.]\d[\w/:.,+-]*\]?"
_LEVEL = r"\[?(?:DEBUG|INFO|WARNING|ERROR)\]?"
_LOGGED = re.compile(rf"(?:{_TIME}|{_LEVEL})[\s:]+(?:(?:{_TIME}|{_LEVEL}|[AP]M|root|[-|>])[\s:]+)*")
"""What a logger writes before a message."""
_ASSIGNED = re.compile(r"[^\[({'\"]*?[A-Za-z_][\w.-]*\s*[=:]\s*(?=[\[({'\"\w-])")
"""A name before its value."""
_PRINTED = re.compile(r"u?int(?:8|16|32|64|p|c|_)?|str_?|[Tt]ensor|[Aa]rray|asarray")
"""Names of calls as which Python, NumPy, JAX and PyTorch print integers, strings and arrays of them."""
_LONGEST = 1000


def unquoted(text: str) -> str:
    """Returns a text without spaces, quotes, commas and semicolons around it."""
    text = text.translate(_PLAIN).strip().rstrip(",;").rstrip()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"`":
        return text
    try:
        inner = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        inner = None
    return unquoted(inner if isinstance(inner, str) else text[1:-1])


def expression(text: str, name: str) -> ast.expr | None:
    """Reads a Python expression, which may be quoted, be given a name, and come from a log.

    Args:
        text: what to read.
        name: name of a call before which there may be anything.

    Returns:
        The expression, or None where there is none.
    """
    text = unquoted(text)
    message = unquoted(text[logged.end() :] if (logged := _LOGGED.match(text)) else text)
    candidates = [message]
    if called := re.search(rf"(?<!\w){name}\(.*\)", message, re.DOTALL):
        candidates.append(message[called.start() : message.rindex(")") + 1])
    if assigned := _ASSIGNED.match(message):
        candidates.append(unquoted(message[assigned.end() :]))
    for candidate in candidates:
        try:
            with warnings.catch_warnings():  # of literals that look odd
                warnings.simplefilter("ignore", SyntaxWarning)
                found = ast.parse(candidate, mode="eval").body
            ast.unparse(found)  # errors show parts of it, which one that is nested too deep cannot
            return found
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
    return None


def arguments(text: str, name: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, ast.expr]:
    """Reads ``name(key=..., key=...)``, or a dictionary of these keys.

    Args:
        text: what to read, see `expression`.
        name: name of what is called.
        keys: names of all its arguments, in their order.
        optional: those that may be missing.

    Returns:
        The expression of each argument that is there.

    Raises:
        ValueError: `text` is something else.
    """
    expected = f"genotype: expected '{name}({keys[0]}=[...], ...)', got {text!r}"
    call = expression(text, name)
    if isinstance(call, ast.Call) and _name(call) == "OrderedDict" and len(call.args) == 1:
        call = _ordered(call.args[0])
    if isinstance(call, ast.Dict):
        called = name
        pairs = [
            (key.value if isinstance(key, ast.Constant) else None, value)
            for key, value in zip(call.keys, call.values, strict=True)
        ]
    elif isinstance(call, ast.Call) and len(call.args) <= len(keys):
        called = _name(call)
        pairs = [*zip(keys, call.args, strict=False), *((keyword.arg, keyword.value) for keyword in call.keywords)]
    else:
        raise ValueError(expected)
    found = {str(key): value for key, value in pairs}
    if called not in (name, "dict") or not {*keys} - {*optional} <= {*found} <= {*keys}:
        raise ValueError(f"genotype: expected {name} with {keys}, got {called} with {[*found]}")
    if len(found) < len(pairs):
        raise ValueError(expected)
    return found


def _ordered(contents: ast.expr) -> ast.expr:
    """Returns the dictionary whose pairs an OrderedDict prints, which is as a dictionary from Python 3.12 on."""
    listed = contents.elts if isinstance(contents, ast.List | ast.Tuple) else []
    pairs = [pair.elts for pair in listed if isinstance(pair, ast.List | ast.Tuple) and len(pair.elts) == 2]
    if not pairs or len(pairs) < len(listed):
        return contents
    return ast.Dict([key for key, _ in pairs], [value for _, value in pairs])


def literal(key: str, expression: ast.expr, expected: str) -> Any:
    """Returns the value of an expression of lists, tuples, ranges, numbers and strings.

    Integers, strings and arrays may be as NumPy, JAX and PyTorch print them, such as ``np.int64(3)``.

    Args:
        key: name of the argument, for the message.
        expression: from `arguments`.
        expected: what it should be, for the message.

    Returns:
        The value; a range is a list.

    Raises:
        ValueError: it is another kind of expression.
    """
    try:
        return _value(expression)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"genotype: expected {key} {expected}, got {ast.unparse(expression)}") from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return (list if isinstance(node, ast.List) else tuple)(map(_value, node.elts))
    if not isinstance(node, ast.Call) or not node.args:
        return ast.literal_eval(node)
    name = _name(node)
    if name == "range":
        values = range(*map(_value, node.args))
        if len(values) > _LONGEST:
            raise ValueError(name)
        return list(values)
    if name in ("list", "tuple"):
        (values,) = map(_value, node.args)
        return list(values) if name == "list" else tuple(values)
    if not _PRINTED.fullmatch(name):
        raise ValueError(name)
    return _value(node.args[0])  # what follows is the type and the device


def _name(call: ast.Call) -> str:
    """Returns the name of what is called, without the modules that it is in."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ast.unparse(call.func)


def named(text: str) -> tuple[str, dict[str, Any]]:
    """Reads ``name`` or ``name(option=value, ...)``, the one form of everything that has a name and options.

    Args:
        text: the text. Values are numbers, true, false, or words.

    Returns:
        The name and its options.

    Raises:
        ValueError: the text is something else.
    """
    match = re.fullmatch(r"([\w.-]+)(?:\((.*)\))?", text.strip(), re.DOTALL)
    expected = f"expected 'name' or 'name(option=value)', got {text!r}"
    if match is None:
        raise ValueError(expected)
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in (match[2] or "").split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value or name in options:
            raise ValueError(expected)
        try:
            options[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError):
            options[name] = value
    return match[1], options


def configured(argument: str, text: str, known: Mapping[str, T]) -> T:
    """Returns what is registered under a name, a dataclass, with the options that the text gives.

    Args:
        argument: what it is the name of, for errors.
        text: ``name`` or ``name(option=value, ...)``.
        known: what is registered.

    Raises:
        ValueError: there is none of that name, or an option is unknown, of another type or out of range.
    """
    if text in known:
        return known[text]
    try:
        name, options = named(text)
    except ValueError:
        name, options = text, {}
    if name not in known:
        raise ValueError(unknown(argument, text, known))
    found: Any = known[name]
    has = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    for option, value in options.items():
        if option not in has:
            listed = f"options {', '.join(has)}" if has else "no options"
            raise ValueError(f"{argument}: {name} has {listed}, got {text!r}")
        kind = type(has[option])
        if kind in (bool, int, float, str) and type(value) not in {kind, int if kind is float else kind}:
            raise ValueError(f"{argument}: expected {option} of type {kind.__name__}, got {value!r}")
    return dataclasses.replace(found, **options)


def summands(text: str) -> list[str]:
    """Splits ``a+b(option=value)`` at its plus signs outside of parentheses."""
    return [part.strip() for part in re.split(r"\+(?![^(]*\))", text)]


def unknown(argument: str, name: object, known: Iterable[str]) -> str:
    """Says that a name is not known, with the nearest ones that are.

    Args:
        argument: what it is the name of.
        name: the name.
        known: the names that there are.

    Returns:
        The message of an error.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{argument}: expected one of {', '.join(map(repr, names))}, got {name!r}{hint}"
