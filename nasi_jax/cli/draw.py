"""`nasi draw`."""

from __future__ import annotations

import dataclasses
import json
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
        from nasi_jax import spaces
        from nasi_jax.report import save_cell

        if self.genotype.endswith(".json"):
            path = pathlib.Path(self.genotype)
            if not path.is_file():
                raise FileNotFoundError(f"genotype: expected a genotype.json, there is none at {self.genotype!r}")
            try:
                record = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"genotype: {self.genotype!r} is not JSON: {error}") from error
            name = record.get("space", self.space) if isinstance(record, dict) else self.space
            space = spaces.get(name)
            genotype = spaces.from_json(space, record)
        else:
            space = spaces.get(self.space)
            genotype = space.parse(self.genotype)
        save_cell(self.out, space.graph(genotype), space.operations, space.format(genotype))
        print(self.out)
        return 0
