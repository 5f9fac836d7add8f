"""What the site takes from the repository: pages and pictures outside of this folder, links to them, and formulas."""

import html
import pathlib
import re

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "experiments/README.md",
    "experiments/notes/*.md",
    "experiments/results/**/*.md",
    "experiments/results/**/*.png",
    "experiments/results/**/*.json",
    "benchmarks/README.md",
    "benchmarks/notes.md",
    "benchmarks/results/*.md",
    "examples/*.ipynb",
    "examples/*.py",
)
"""What the site has besides the files of this folder, at the same paths as in the repository."""

_FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the results and notebooks of the repository."""
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads the links of a page out of this folder to where the site has what they name."""
    if page.file.src_dir != config.docs_dir:
        return markdown.replace("](docs/", "](")
    above = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"]({above}../", f"]({above}")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes formulas as MathML, which browsers show by themselves."""
    return _FORMULA.sub(lambda found: _mathml(found[2], "block" if found[1] == "div" else "inline"), content)


def _mathml(formula: str, display: str) -> str:
    text = html.unescape(formula).strip().replace("\\|", "\\Vert ")  # the name that the converter knows
    return latex2mathml.converter.convert(text, display=display)
