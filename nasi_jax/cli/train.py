"""`nasi train`: from a genotype to a test accuracy."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import sys
import time
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

import nasi_jax
from nasi_jax import data, scores, spaces, train
from nasi_jax.cli.genotypes import read
from nasi_jax.cli.options import named_in
from nasi_jax.cli.reports import write_report
from nasi_jax.runs.folder import RunFolder, interruptible, provenance
from nasi_jax.runs.progress import Progress
from nasi_jax.train import RECIPES, Recipe

RESULT = "result.json"
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
        data: name of a TensorFlow data set, the folder of a prepared one, or an .npz file with x, y, x_test and y_test.
        data_dir: folder of prepared TensorFlow data sets.
        download: allow TensorFlow Datasets to download the data set.
        test_split: part of the data set on which the network is judged; of ImageNet "validation".
        workers: processes that read and crop images where the recipe has resized_crop; 0 reads in this one's threads.
        holdout: share of the training images that takes the place of the test images; 0 is none.
        evaluate_every: epochs between evaluations on the test images.
        seed: seed of parameters, order of the images, and their changes.
        overwrite: replace a run that the folder holds.
        config: settings of the training.
    """

    genotype: str
    out: pathlib.Path = pathlib.Path("runs/train")
    space: str = "nasbench201"
    recipe: Literal["darts-cifar", "nasbench201", "nasbench201-12", "imagenet-mobile"] = "nasbench201-12"
    data: str = "cifar10"
    data_dir: pathlib.Path | None = None
    download: bool = False
    test_split: str = "test"
    workers: int = 0
    holdout: float = 0.0
    evaluate_every: int = 1
    seed: int = 0
    overwrite: bool = False
    config: Annotated[Recipe, tyro.conf.arg(name="")] = RECIPES["nasbench201-12"]

    def run(self) -> int:
        """Runs the training.

        Returns:
            The exit status: 0, or 130 after an interruption.

        Raises:
            ValueError: an option is out of range or does not go with another, or the run folder cannot be used.
            FileNotFoundError: there is no such genotype or data set.
            NonFiniteLossError: the loss is NaN or infinite; the checkpoints before it are kept.
        """
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every: expected an integer of at least 1, got {self.evaluate_every}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, got {self.seed}")
        space, genotype = read(self.genotype, self.space)
        training, test = self._images()
        network = train.network(space, genotype, self.config, training.classes)
        steps, key = train.steps_per_epoch(self.config, training), jax.random.key(self.seed)
        x = jax.ShapeDtypeStruct((2, *training.image_shape), np.float32)
        jax.eval_shape(network.init, key, x)  # what does not fit is said before the folder is made

        from nasi_jax.runs.checkpoints import FOLDER, Checkpoints

        settings = self._settings(space, genotype)
        folder = RunFolder.open(self.out, settings, result=RESULT, overwrite=self.overwrite, folders=(FOLDER,))
        folder.write("genotype.json", json.dumps(spaces.to_json(space, genotype), indent=2) + "\n")
        devices = jax.devices()
        # the devices of a CPU are virtual and share its cores
        spread = devices[0].platform != "cpu" and len(devices) > 1 and self.config.batch % len(devices) == 0
        mesh = jax.make_mesh((len(devices),), ("batch",)) if spread else None
        checkpoints = Checkpoints(self.out)
        shapes = jax.eval_shape(lambda: train.init_states(key[None], network, self.config, training))
        stored = checkpoints.restore({"state": shapes, "seconds": np.zeros(()), "accuracy": np.zeros(())})
        if stored is None:
            states = train.init_states(key[None], network, self.config, training)
            self._announce(space, genotype, network, training, _first(states), key)
        else:
            states = jax.tree.map(jax.numpy.asarray, stored["state"])
        rows = folder.history(before=int(states.step[0]))
        start = time.monotonic() - (0.0 if stored is None else float(stored["seconds"]))
        accuracy = 0.0 if stored is None else float(stored["accuracy"])
        saved = time.monotonic()

        def save() -> None:
            seconds = np.asarray(time.monotonic() - start)
            tree = {"state": states, "seconds": seconds, "accuracy": np.asarray(accuracy)}
            checkpoints.save(int(states.step[0]), tree, accuracy)

        done, total, found = int(states.step[0]), self.config.epochs * steps, None
        rate = train.schedule(self.config, steps)
        try:
            with interruptible() as check, Progress("nasi train", total, done) as progress:
                for latest in train.iterate(key[None], network, self.config, training, states, mesh=mesh):
                    before, done = done, int(latest.step[0])
                    within = (done - 1) % steps + 1
                    row = {
                        "loss": float(latest.loss[0]) / within,
                        "accuracy": float(latest.correct[0]) / (within * self.config.batch),
                    }
                    if within == steps:
                        epoch = done // steps - 1
                        row |= {"learning_rate": float(np.asarray(rate(done - 1)))}
                        if (epoch + 1) % self.evaluate_every == 0 or epoch + 1 == self.config.epochs:
                            found = train.evaluate(network, _first(latest), test)
                            accuracy = found.accuracy
                            row |= {
                                "test_loss": found.loss,
                                "test_accuracy": found.accuracy,
                                "test_top_five": found.top_five,
                            }
                        rows.append({"step": done - 1, "epoch": epoch, **row})
                        folder.append_history(rows[-1:])
                    states = latest  # what `save` writes; not before the epoch's row is there
                    progress.advance(done - before, row)
                    if within == steps or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                        save()
                        saved = time.monotonic()
                    check()
        except KeyboardInterrupt:
            save()
            print(f"\nnasi: interrupted; the same command continues the run in {self.out}", file=sys.stderr)
            return 130
        except train.NonFiniteLossError:
            print(f"nasi: the last good checkpoint is of step {checkpoints.last()}", file=sys.stderr)
            raise
        finally:
            checkpoints.close()
        state = _first(states)
        if found is None:  # all steps were done before this command; otherwise the last epoch ended with an evaluation
            found = train.evaluate(network, state, test)
        _write_result(folder, space, genotype, settings, state, found, rows, time.monotonic() - start)
        print(f"test accuracy {100 * found.accuracy:.2f} %\n{self.out / 'report.html'}")
        return 0

    def _images(self) -> tuple[data.Examples, data.Examples]:
        """Opens training and test images."""
        if self.data == "gaussian":
            raise ValueError("data: expected a data set with labels, got 'gaussian'")
        options: dict[str, Any] = {"directory": self.data_dir, "download": self.download}
        if self.config.resized_crop:
            opened: Any = functools.partial(
                data.stream, self.data, image_size=self.config.image_size, workers=self.workers, **options
            )
        else:
            opened = functools.partial(data.load, self.data, image_size=self.config.image_size or None, **options)
        training = opened()
        if self.holdout:
            return data.hold_out(training, self.holdout)
        test = opened(split=self.test_split)
        return training, data.normalised_like(test, training)

    def _settings(self, space: spaces.SearchSpace, genotype: Any) -> dict[str, Any]:
        """Returns what decides the result, as JSON values."""
        settings = dataclasses.asdict(self)
        for name in ("out", "overwrite", "download", "data_dir", "recipe", "workers"):
            settings.pop(name)
        settings |= {"space": space.name, "genotype": space.format(genotype)}
        return settings | {"training": settings.pop("config")}

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
        size = train.size(self.config, training.classes)
        costs = scores.Counter(space, training.image_shape, **size)(genotype)
        compilation, seconds = train.time_step(network, self.config, training, state, key)
        steps = self.config.epochs * train.steps_per_epoch(self.config, training)
        print(
            f"nasi train: {costs['params'] / 1e6:.3f} million parameters, {costs['flops'] / 1e6:.1f} million "
            f"multiply-adds an image; compiled in {compilation:.0f} s, {seconds:.3g} s a step, {steps} steps, about "
            f"{steps * seconds / 60:.0f} min without evaluations",
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
    """Writes figures and report, the result file last."""
    text = space.format(genotype)
    origin = provenance("float32") | {"seconds": round(seconds, 1)}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    result = {
        "test_accuracy": found.accuracy,
        "test_top_five": found.top_five,
        "test_loss": found.loss,
        "best_test_accuracy": max(row.get("test_accuracy", 0.0) for row in rows),
        "test_images": int(found.confusion.sum()),
        "parameters": parameters,
        "epochs": settings["training"]["epochs"],
        "seed": settings["seed"],
    }
    names = ("epoch", "loss", "accuracy", "learning_rate", "test_loss", "test_accuracy")
    history = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
    best = "The accuracy that counts is that after the last epoch; test images chose nothing."
    pictures = {
        "Curves": ("curves.png", best, nasi_jax.report.training_figure(history)),
        "Confusion": (
            "confusion.png",
            "Test images by label and by prediction.",
            nasi_jax.report.confusion_figure(found.confusion),
        ),
        "Cells": ("cell.png", text, nasi_jax.report.cell_figure(space.graph(genotype), space.operations)),
    }
    title = f"Training on {settings['data']}: {100 * found.accuracy:.2f} % of the test images"
    write_report(folder, title, text, pictures, {}, {"Result": result, "Settings": settings, "Provenance": origin})
    record = result | {"confusion": found.confusion.tolist(), "settings": settings, "provenance": origin}
    folder.write(RESULT, json.dumps(record, indent=2) + "\n")
