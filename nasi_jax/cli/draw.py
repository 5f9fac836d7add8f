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
    """

    genotype: str
    out: pathlib.Path = pathlib.Path("cell.png")
    space: str = "nasbench201"

    def run(self) -> int:
        """Writes the picture and prints its path.

        Returns:
            The exit status.

        Raises:
            FileNotFoundError: there is no such genotype.json.
            ValueError: the genotype is malformed, the space unknown, or the picture cannot be written.
        """
        from nasi_jax.cli.genotypes import read
        from nasi_jax.report import save_cell

        space, genotype = read(self.genotype, self.space)
        save_cell(self.out, space.graph(genotype), space.operations, space.format(genotype))
        print(self.out)
        return 0
