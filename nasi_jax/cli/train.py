"""`nasi train`: from a genotype to a test accuracy."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

import nasi_jax
from nasi_jax import data, runs, scores, spaces, train
from nasi_jax.cli.genotypes import read
from nasi_jax.cli.inputs import data_identity
from nasi_jax.cli.options import load_settings, named_in
from nasi_jax.cli.reports import cell_of, data_name, drawn, section, write_report
from nasi_jax.runs import RunFolder, provenance
from nasi_jax.runs.files import identity
from nasi_jax.runs.progress import duration
from nasi_jax.train import RECIPES, Recipe

RESULT, GENOTYPE = "result.json", "genotype.json"
_LEAVES = ("cell.png", "confusion.npz", "confusion.png", "curves.png", "report.html")
_SECONDS_BETWEEN_CHECKPOINTS = 300.0


@dataclasses.dataclass(frozen=True)
class Train:
    """Train the network of a genotype; write its test accuracy, checkpoints, curves and a report into a run folder.

    A run that was interrupted continues when the same command is given again, and ends with the same parameters. Where
    there are several accelerators and they divide the batch, each takes a part of it.

    Attributes:
        genotype: a genotype.json, or the text form itself.
        out: run folder.
        space: search space of a text form; a genotype.json names its own.
        recipe: settings to start from.
        data: name of a TensorFlow data set, the folder of a prepared one, an .npz or HDF5 file with x, y, x_test and
            y_test, or a folder with train and test folders that hold a folder of pictures for each class; or graphs,
            token ids or a text, see nasi search.
        data_dir: folder of prepared TensorFlow data sets.
        download: allow TensorFlow Datasets to download the data set.
        test_split: part of the data set on which the network is judged; of ImageNet "validation".
        validation_split: another part, such as "val" of graphs, on which the network is evaluated too; the result also
            has the test accuracy of the epoch whose loss there is the least.
        fold: of graphs in folds, the one on which the network is judged; 0 by default.
        length: of token ids, tokens of a sequence; see nasi search.
        vocabulary: of a text, file with a piece on each line; by default vocab.txt beside it.
        workers: processes that read and crop images where the recipe has resized_crop; 0 reads in this one's threads.
        pretrained: run folder of a training of this architecture, such as one on the words masked out of a text, whose
            last parameters this one starts from, all but those of a head for something else.
        holdout: share of the training images that takes the place of the test images; 0 is none.
        evaluate_every: epochs between evaluations on the test images.
        seed: seed of parameters, order of the images, and their changes.
        overwrite: replace a run that the folder holds.
        load: Python files of yours that register spaces, scores or strategies.
        config: settings of the training.
    """

    genotype: str
    out: pathlib.Path = pathlib.Path("runs/train")
    space: str = "nasbench201"
    recipe: Literal[
        "darts-cifar",
        "nasbench201",
        "nasbench201-12",
        "imagenet-mobile",
        "nasbench-graph-cora",
        "egnas",
        "masked-words",
        "sentences",
    ] = "nasbench201-12"
    data: str = "cifar10"
    data_dir: pathlib.Path | None = None
    download: bool = False
    test_split: str = "test"
    validation_split: str | None = None
    fold: int | None = None
    length: int | None = None
    vocabulary: pathlib.Path | None = None
    workers: int = 0
    pretrained: pathlib.Path | None = None
    holdout: float = 0.0
    evaluate_every: int = 1
    seed: int = 0
    overwrite: bool = False
    load: tuple[pathlib.Path, ...] = ()
    config: Annotated[Recipe, tyro.conf.arg(name="training")] = RECIPES["nasbench201-12"]

    def run(self) -> int:
        """Runs the training.

        Returns:
            The exit status.

        Raises:
            ValueError: an option is out of range or does not go with another, or the run folder cannot be used.
            FileNotFoundError: there is no such genotype or data set.
            Interrupted: a signal came; the steps before it are kept.
            NonFiniteLossError: the loss is NaN or infinite; the checkpoints before it are kept.
        """
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every: expected an integer of at least 1, got {self.evaluate_every}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, got {self.seed}")
        space, genotype = read(self.genotype, self.space)
        training, test, validation = self._images()
        network = train.network(space, genotype, self.config, training.outputs)
        steps, key = train.steps_per_epoch(self.config, training), jax.random.key(self.seed)
        x = data.inputs(training, 2)
        jax.eval_shape(network.init, key, x)  # what does not fit is said before the folder is made

        from nasi_jax.runs.checkpoints import FOLDER, Checkpoints, last_state

        known = None if self.pretrained is None else last_state(self.pretrained)["states"]["params"]

        def started() -> train.TrainState:
            states = train.init_states(key[None], network, self.config, training)
            return states if known is None else train.pretrained(states, known)

        settings = self._settings(space, genotype)
        opened = RunFolder.open(
            self.out,
            "nasi train",
            settings,
            results=(RESULT, GENOTYPE),
            leaves=(*_LEAVES, FOLDER),
            overwrite=self.overwrite,
        )
        evaluations: list[train.Evaluation] = []
        with opened as folder:
            shapes = jax.eval_shape(started)
            like = {"states": shapes, "accuracy": np.zeros(())}
            store = Checkpoints(self.out, like, lambda state: float(state["accuracy"]))

            def begin(stored: Any, rows: list[runs.Row]) -> Iterator[runs.Step[Any]]:
                if stored is None:
                    stored = {"states": started(), "accuracy": 0.0}
                    self._announce(space, genotype, network, training, _first(stored["states"]), key)
                for step, found in self._steps(network, training, test, validation, key, stored):
                    evaluations.extend([found] if found else [])
                    yield step

            try:
                total, every = self.config.epochs * steps, _SECONDS_BETWEEN_CHECKPOINTS
                ended = runs.run(folder, begin, store, total=total, label="nasi train", every=every)
            except train.NonFiniteLossError:
                print(f"nasi: the last good checkpoint is of step {store.last()}", file=sys.stderr)
                raise
            state = _first(ended.state["states"])
            # where all steps were done before this command, none of it ended with an evaluation
            found = evaluations[-1] if evaluations else train.evaluate(network, state, test)
            regression = math.isnan(found.accuracy)
            _write_result(folder, space, genotype, settings, state, found, ended.rows, ended.seconds)
        told = f"loss {found.loss:.4g}" if regression else f"accuracy {100 * found.accuracy:.2f} %"
        print(f"test {told}\n{self.out / 'report.html'}")
        return 0

    def _steps(
        self,
        network: Any,
        training: data.Examples,
        test: data.Examples,
        validation: data.Examples | None,
        key: jax.Array,
        stored: Any,
    ) -> Iterator[tuple[runs.Step[Any], train.Evaluation | None]]:
        """Trains from a stored state on; yields an evaluation with the last step of an epoch that has one."""
        devices = jax.devices()
        # the devices of a CPU are virtual and share its cores
        spread = devices[0].platform != "cpu" and len(devices) > 1 and self.config.batch % len(devices) == 0
        mesh = jax.make_mesh((len(devices),), ("batch",)) if spread else None
        steps = train.steps_per_epoch(self.config, training)
        rate = train.schedule(self.config, steps)
        accuracy = float(stored["accuracy"])
        states = jax.tree.map(jax.numpy.asarray, stored["states"])
        for latest in train.iterate(key[None], network, self.config, training, states, mesh=mesh):
            done, found = int(latest.step[0]), None
            within = (done - 1) % steps + 1
            figures = {"loss": float(latest.loss[0]) / within}
            if training.loss is data.cross_entropy:
                figures["accuracy"] = float(latest.correct[0]) / (within * self.config.batch)
            rows = []
            if within == steps:
                epoch = done // steps
                figures |= {"learning_rate": float(np.asarray(rate(done - 1)))}
                if epoch % self.evaluate_every == 0 or epoch == self.config.epochs:
                    found = train.evaluate(network, _first(latest), test)
                    accuracy = found.merit
                    figures["test_loss"] = found.loss
                    if training.loss is data.cross_entropy:
                        figures |= {"test_accuracy": found.accuracy, "test_top_five": found.top_five}
                    if validation is not None:
                        chosen = train.evaluate(network, _first(latest), validation)
                        figures["validation_loss"] = chosen.loss
                        if training.loss is data.cross_entropy:
                            figures["validation_accuracy"] = chosen.accuracy
                rows = [{"step": done - 1, "epoch": epoch - 1, **figures}]
            state = {"states": latest, "accuracy": np.asarray(accuracy)}
            yield runs.Step(done, state, rows, figures, save=bool(rows)), found

    def _images(self) -> tuple[data.Examples, data.Examples, data.Examples | None]:
        """Opens training, test and validation images."""
        if self.data == "gaussian":
            raise ValueError("data: expected a data set with labels, got 'gaussian'")
        options: dict[str, Any] = {"directory": self.data_dir, "download": self.download}
        own = {name: getattr(self, name) for name in ("fold", "length", "vocabulary")}
        options |= {name: value for name, value in own.items() if value is not None}
        if self.config.resized_crop:
            opened: Any = functools.partial(
                data.stream, self.data, image_size=self.config.image_size, workers=self.workers, **options
            )
        else:
            opened = functools.partial(data.load, self.data, image_size=self.config.image_size or None, **options)
        training = opened()
        if self.holdout and self.validation_split is not None:
            raise ValueError(f"validation_split: expected none with holdout, got {self.validation_split!r}")
        if self.holdout:
            return *data.hold_out(training, self.holdout), None
        test = opened(split=self.test_split).like(training)
        if self.validation_split is None:
            return training, test, None
        return training, test, opened(split=self.validation_split).like(training)

    def _settings(self, space: spaces.SearchSpace, genotype: Any) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        settings = dataclasses.asdict(self)
        for name in ("out", "overwrite", "download", "data_dir", "recipe", "workers", "load"):
            settings.pop(name)
        settings["vocabulary"] = self.vocabulary and identity(self.vocabulary)
        settings["pretrained"] = self.pretrained and identity(self.pretrained / RESULT)
        for name in ("fold", "length", "vocabulary", "pretrained", "validation_split"):
            if settings[name] is None:
                settings.pop(name)
        settings |= {"space": space.name, "genotype": space.format(genotype)}
        settings["data"] = data_identity(self.data, self.data_dir)
        return settings | {"training": settings.pop("config")} | load_settings(self.load)

    def _announce(
        self,
        space: spaces.SearchSpace,
        genotype: Any,
        network: Any,
        training: data.Examples,
        state: train.TrainState,
        key: jax.Array,
    ) -> None:
        """Says what the training will take, before its first step."""
        size = train.size(space, self.config)
        costs = scores.Counter(space, data.inputs(training, 2), size, training.outputs)(genotype)
        compilation, seconds = train.time_step(network, self.config, training, state, key)
        steps = self.config.epochs * train.steps_per_epoch(self.config, training)
        print(
            f"nasi train: {costs['params'] / 1e6:.3f} million parameters, {costs['flops'] / 1e6:.1f} million "
            f"multiply-adds an example; compiled in {compilation:.0f} s, {seconds:.3g} s a step, {steps} steps, about "
            f"{duration(steps * seconds)} without evaluations",
            file=sys.stderr,
            flush=True,
        )


def _first(states: train.TrainState) -> train.TrainState:
    """Returns the state of the only training."""
    return jax.tree.map(lambda leaf: leaf[0], states)


def with_recipe(arguments: list[str]) -> Train:
    """Returns the options' defaults, with the settings of the recipe that a command line names."""
    name = named_in(arguments, {"--recipe": Train.recipe})["--recipe"]
    # what is wrong with a name is said where it is used
    return Train(genotype=tyro.MISSING, config=RECIPES.get(name, RECIPES[Train.recipe]))


def _write_result(
    folder: RunFolder,
    space: spaces.SearchSpace,
    genotype: Any,
    settings: dict[str, Any],
    state: train.TrainState,
    found: train.Evaluation,
    rows: list[dict[str, Any]],
    seconds: float,
) -> None:
    """Writes figures and report, then the result, and the genotype last."""
    text = space.format(genotype)
    origin = provenance("float32") | {"seconds": round(seconds, 1)}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    classified = not math.isnan(found.accuracy)
    measured: dict[str, Any] = {"test_loss": found.loss, "test_images": found.count}
    if classified:
        measured |= {
            "test_accuracy": found.accuracy,
            "test_top_five": found.top_five,
            "best_test_accuracy": max(row.get("test_accuracy", 0.0) for row in rows),
        }
    validated = [row for row in rows if "validation_loss" in row]
    if validated:
        chosen = min(validated, key=lambda row: row["validation_loss"])
        known = ("epoch", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
        measured |= {f"chosen_{name}": chosen[name] for name in known if name in chosen}
    result = measured | {
        "parameters": parameters,
        "epochs": settings["training"]["epochs"],
        "seed": settings["seed"],
    }
    names = ("epoch", "loss", "accuracy", "learning_rate", "test_loss", "test_accuracy")
    history = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    best = "The figure that counts is that after the last epoch; test examples chose nothing."
    if validated:
        best = "The figures called chosen are of the epoch whose loss on validation examples is the least."
    sections = [section("Curves", drawn(folder, "curves.png", nasi_jax.report.training_figure(history)), best)]
    if classified:
        confusion = drawn(folder, "confusion.png", nasi_jax.report.confusion_figure(found.confusion))
        sections.append(section("Confusion", confusion, "Test examples by label and by prediction."))
    sections.append(section("Architecture", drawn(folder, "cell.png", cell_of(space, genotype))))
    sections.append(
        section("Result", columns=("name", "value"), rows=list((result | {"seed": str(result["seed"])}).items()))
    )
    told = f"{100 * found.accuracy:.2f} % of the test examples" if classified else f"test loss {found.loss:.4g}"
    title = f"Training on {data_name(settings['data'])}: {told}"
    write_report(folder, title, text, sections, {"Settings": settings, "Provenance": origin})
    if classified:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, confusion=found.confusion)
        folder.write("confusion.npz", buffer.getvalue())
    record = result | {"settings": settings, "provenance": origin}
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
    chosen = spaces.to_json(space, genotype) | {"settings": settings, "provenance": origin}
    folder.write(GENOTYPE, json.dumps(chosen, indent=2) + "\n")
