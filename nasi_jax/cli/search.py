"""`nasi search`: from a configuration to a run folder with genotype, history, figures and report."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any, Generic, Protocol, TypeVar

import jax
import tyro

from nasi_jax import search, spaces
from nasi_jax.cli.blackbox import BlackBoxOptions
from nasi_jax.cli.blockwise import BlockwiseOptions
from nasi_jax.cli.options import DataOptions, LimitOptions, SpaceOptions, load_settings, named_in
from nasi_jax.cli.relaxed import RelaxedOptions, TrainedOptions
from nasi_jax.scores import LatencyMethod, ScoreConfig, default_formula
from nasi_jax.spaces.text import unknown

_BLOCKWISE = "blockwise"
_SETTINGS = ("strategy", "seeds", "seed", "precision", "latency")


class Method(Protocol):
    """What the options of one kind of strategy do with the options that all have."""

    def run(self, verb: Any, space: spaces.SearchSpace, settings: dict[str, Any]) -> str:
        """Runs the searches, writes the run folder, and returns the chosen genotype's text form."""
        ...

    def settings(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        ...


MethodT = TypeVar("MethodT", bound=Method)


@dataclasses.dataclass(frozen=True)
class Search(Generic[MethodT]):
    """Select an architecture; write genotype, history, figures and a report into a run folder.

    Each strategy has options of its own, which `nasi search --strategy NAME --help` lists. A run that was interrupted
    continues when the same command is given again.

    Attributes:
        out: run folder.
        strategy: how architectures are chosen; all are listed below.
        preset: settings to start from, published ones among them; all are listed below.
        seeds: number of independent searches.
        seed: seed of the first search; the others count up from it.
        precision: floating-point type of the search.
        latency: how milliseconds are found for --max-latency-ms: added up from choices, or measured for every network.
        overwrite: replace a run that the folder holds.
        load: Python files of yours that register spaces, scores or strategies.
        space: which architectures there are.
        data: where batches come from.
        limits: bounds of what an architecture may cost when it is trained, such as 60e6.
        method: how good an architecture is, and how long the search goes on.
    """

    out: pathlib.Path = pathlib.Path("runs/search")
    strategy: str = "nasi"
    preset: str = "default"
    seeds: int = 1
    seed: int = 0
    precision: Annotated[str, tyro.conf.arg(metavar="{float32,float64}")] = "float32"
    latency: LatencyMethod = "added"
    overwrite: bool = False
    load: tuple[pathlib.Path, ...] = ()
    space: SpaceOptions = SpaceOptions()
    data: DataOptions = DataOptions()
    limits: LimitOptions = LimitOptions()
    method: Annotated[MethodT, tyro.conf.arg(name="estimate and budget")] = None  # type: ignore[assignment]

    def run(self) -> int:
        """Runs the search.

        Returns:
            The exit status.

        Raises:
            ValueError: an option is out of range, or the run folder cannot be used.
            Interrupted: a signal came; what was done before is kept.
            NonFiniteError: a figure is NaN or infinite; the steps before it are kept.
        """
        if self.seeds < 1:
            raise ValueError(f"seeds: expected a positive integer, got {self.seeds}")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - seeds, got {self.seed}")
        if self.precision not in ("float32", "float64"):
            raise ValueError(f"precision: expected 'float32' or 'float64', got {self.precision!r}")
        if self.strategy not in strategies():
            raise ValueError(unknown("strategy", self.strategy, strategies()))
        if self.preset not in presets(self.strategy):
            raise ValueError(unknown("preset", self.preset, presets(self.strategy)))
        space = self.space.opened()
        with jax.enable_x64(self.precision == "float64"):
            text = self.method.run(self, space, self._settings())
        print(f"{text}\n{self.out / 'report.html'}")
        return 0

    def _settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in _SETTINGS} | {"limits": self.limits.opened().bounds}
        own = load_settings(self.load)
        return self.space.settings() | self.data.settings() | settings | self.method.settings() | own


def strategies() -> tuple[str, ...]:
    """Returns the names of all strategies that are registered, those that move logits first."""
    return (*search.METHODS, *search.STRATEGIES, _BLOCKWISE)


def presets(strategy: str) -> tuple[str, ...]:
    """Returns the names of the settings of a strategy, "default" first."""
    if strategy in search.METHODS:
        return tuple(search.METHODS[strategy])
    if strategy == _BLOCKWISE:
        return tuple(search.BLOCKWISE)
    prefix = f"{strategy}-"
    return ("default", *(name.removeprefix(prefix) for name in search.VARIANTS if name.startswith(prefix)))


def strategy_class(strategy: str) -> type:
    """Returns the class of a strategy that is registered."""
    if strategy in search.STRATEGIES:
        return search.STRATEGIES[strategy]
    return type((search.BLOCKWISE if strategy == _BLOCKWISE else search.METHODS[strategy])["default"])


def with_defaults(arguments: list[str], space: spaces.SearchSpace) -> Search[Any]:
    """Returns the options' defaults: the settings of the strategy and preset that a command line names.

    Args:
        arguments: command line without the program's name.
        space: the space that it names.

    Returns:
        The verb, with the settings of the default strategy where a name is unknown, which is said where it is used.

    Raises:
        ValueError: an option is one of another strategy.
    """
    named = named_in(arguments, {"--strategy": "nasi", "--preset": "default"})
    strategy, preset = named["--strategy"], named["--preset"]
    if strategy not in strategies():
        strategy = "nasi"
    if preset not in presets(strategy):
        preset = "default"
    method = _method(strategy, preset, space)
    if arguments[:1] == ["search"]:
        _check_own(arguments, strategy, method, space)
    return Search(strategy=strategy, preset=preset, method=method)


def _method(strategy: str, preset: str, space: spaces.SearchSpace) -> Any:
    if strategy in search.METHODS:
        found = search.method(strategy, space, preset)
        return TrainedOptions(found) if isinstance(found, search.Supernet) else RelaxedOptions(found)
    if strategy == _BLOCKWISE:
        return BlockwiseOptions(search.BLOCKWISE[preset], size=space.search_size)
    name = strategy if preset == "default" else f"{strategy}-{preset}"
    variant = search.VARIANTS[name] if name in search.VARIANTS else search.STRATEGIES[strategy]()
    return BlackBoxOptions(variant, score=default_formula(space), networks=ScoreConfig(space.search_size, 32))


def typed(defaults: Search[Any], space: spaces.SearchSpace) -> Any:
    """Returns the verb's type for a strategy and a space, of which a command line is read."""
    if isinstance(defaults.method, RelaxedOptions):
        options: Any = TrainedOptions if isinstance(defaults.method, TrainedOptions) else RelaxedOptions
        settings: Any = type(defaults.method.strategy)
        return Search[options[settings[space.Size]]]
    if isinstance(defaults.method, BlockwiseOptions):
        return Search[BlockwiseOptions[space.Size]]
    return Search[BlackBoxOptions[type(defaults.method.strategy), space.Size]]


def _check_own(arguments: list[str], strategy: str, method: Any, space: spaces.SearchSpace) -> None:
    """Raises where an option is one of another strategy, which it names, or of another estimate."""
    own = _options(Search(method=method)) | {"method"}
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    names = [option[2:].replace("-", "_").removeprefix("no_") for option in options]
    estimates = [name for name in ("table", "recipe") if name in names]
    if isinstance(method, BlackBoxOptions) and estimates:
        of_scores = [name for name in names if name == "score" or name in _options(method.networks)]
        if of_scores and estimates[0] == "table":
            raise ValueError(
                f"{of_scores[0]}: an option of a search by scores, got --table, whose figures are the values"
            )
        if of_scores:
            written = f"{of_scores[0]}: an option of a search by scores, got --recipe, which has settings of its own"
            raise ValueError(f'{written}, written --recipe "NAME(batch=64,channels=8)"')
    for name in names:
        if name in own:
            continue
        others = [s for s in strategies() if s != strategy and name in _options(_method(s, "default", space))]
        others += [
            f"{s} --preset {preset}"
            for s in search.STRATEGIES
            for preset in presets(s)[1:]
            if s not in others and name in _options(_method(s, preset, space))
        ]
        if others:
            raise ValueError(f"{name}: an option of --strategy {' or '.join(others)}, not of {strategy}")


def _options(options: Any) -> set[str]:
    """Returns the names of all fields of a dataclass and of those in it."""
    names: set[str] = set()
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        names |= _options(value) if dataclasses.is_dataclass(value) else {field.name}
    return names
