"""Data sets as TensorFlow Datasets would prepare them."""

import subprocess
import sys


def prepare(directory, name, shape, classes, examples, splits=("train",)):
    """Writes a set; in a process of its own, because that imports TensorFlow.

    `examples` is the text of pairs (image, label), with NumPy as np.
    """
    program = f"""
import numpy as np, tensorflow_datasets as tfds
class {name}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(
            image=tfds.features.Image(shape={shape}, encoding_format="png"),
            label=tfds.features.ClassLabel(num_classes={classes}))))
    def _split_generators(self, dl_manager):
        return {{split: self._generate_examples() for split in {splits}}}
    def _generate_examples(self):
        for i, (image, label) in enumerate({examples}):
            yield i, dict(image=image, label=label)
{name}(data_dir={str(directory)!r}, file_format="array_record").download_and_prepare()
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
