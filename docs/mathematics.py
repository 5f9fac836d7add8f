"""Formulas of docstrings, written as ``.. math::``, as the site's Markdown has them."""

import re
from typing import Any

import griffe

_FORMULA = re.compile(r"^\.\. math:: (.+(?:\n[ \t]+.+)*)", re.MULTILINE)


class Formulas(griffe.Extension):
    """Rewrites the docstrings of all objects that griffe reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Puts the formulas of one object between dollars."""
        if obj.docstring is not None:
            obj.docstring.value = _FORMULA.sub(lambda found: f"$$\n{found[1]}\n$$", obj.docstring.value)
