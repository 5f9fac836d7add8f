"""Reads text forms that look like a call, without evaluating them."""

from __future__ import annotations

import ast
from typing import Any


def arguments(text: str, name: str, keys: tuple[str, ...]) -> dict[str, ast.expr]:
    """Reads ``name(key=..., key=...)``.

    Args:
        text: what to read.
        name: name of what is called.
        keys: names of all its arguments.

    Returns:
        The expression of each argument.

    Raises:
        ValueError: `text` is something else.
    """
    expected = f"genotype: expected '{name}({keys[0]}=[...], ...)', got {text!r}"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(expected) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(expected)
    found = {str(keyword.arg): keyword.value for keyword in call.keywords}
    if call.func.id != name or sorted(found) != sorted(keys):
        raise ValueError(f"genotype: expected {name} with {keys}, got {call.func.id} with {[*found]}")
    return found


def literal(key: str, expression: ast.expr, expected: str) -> Any:
    """Returns the value of an expression of lists, tuples, numbers and strings.

    Args:
        key: name of the argument, for the message.
        expression: from `arguments`.
        expected: what it should be, for the message.

    Returns:
        The value.

    Raises:
        ValueError: it is another kind of expression.
    """
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"genotype: expected {key} {expected}, got {ast.unparse(expression)}") from error
