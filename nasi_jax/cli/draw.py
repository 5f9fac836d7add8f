"""`nasi draw`."""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Draw:
    """Draw the cells of a genotype.

    Attributes:
        genotype: a genotype.json, or the text form itself.
        out: picture to write; its ending gives the format.
        space: search space of a text form; a genotype.json names its own.
        format: notation in which the genotype is written above the cells and printed, such as naslib.
        load: Python files of yours that register spaces, scores or strategies.
    """

    genotype: str
    out: pathlib.Path = pathlib.Path("cell.png")
    space: str = "nasbench201"
    format: str | None = None
    load: tuple[pathlib.Path, ...] = ()

    def run(self) -> int:
        """Writes the picture and prints its path, and the genotype where a notation is asked for.

        Returns:
            The exit status.

        Raises:
            FileNotFoundError: there is no such genotype.json.
            ValueError: the genotype is malformed, the space unknown, or the picture cannot be written.
        """
        from nasi_jax.cli.genotypes import read
        from nasi_jax.report import save_cell

        space, genotype = read(self.genotype, self.space)
        text = space.writer(self.format)(genotype)
        save_cell(self.out, space.graph(genotype), space.operations, text)
        if self.format is not None:
            print(text)
        print(self.out)
        return 0
