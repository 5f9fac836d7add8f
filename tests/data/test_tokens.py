"""Token ids in memory and in files: what is masked out, what is read, and what is refused."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import data

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "house", "##s", "un", "##well", "e", "##e", ",", "中"]
SMALL = data.Vocabulary(300, 0, 1, 2, 3, 4)
RNG = np.random.default_rng(0)


def text(count=400, length=40):
    ids = RNG.integers(5, 300, (count, length))
    ids[:, 0], ids[:, -1] = SMALL.begin, SMALL.end
    ids[::2, 30:] = SMALL.padding
    return ids


def test_a_seventh_of_the_words_is_masked_out_as_published():
    ids = text()
    source = data.from_tokens(ids, vocabulary=SMALL)
    (x, y), key = source.batch(jax.random.key(0), 400), jax.random.key(1)
    assert source.outputs == 6 * 300
    x, y = source.redrawn(key, source.x, source.y)
    words = (ids > 4).sum(axis=1)
    np.testing.assert_array_equal((y >= 0).sum(axis=1), np.floor(0.15 * words + 0.5))
    there = np.asarray(y) >= 0
    read, original = (np.take_along_axis(np.asarray(a), np.asarray(x.targets), axis=1)[there] for a in (x.ids, ids))
    np.testing.assert_array_equal(original, np.asarray(y)[there])
    assert (original > 4).all()
    changed = np.asarray(x.ids) != ids
    places = np.zeros(ids.shape, bool)
    np.put_along_axis(places, np.asarray(x.targets), there, axis=1)
    assert not (changed & ~places).any()
    shares = np.mean(read == SMALL.mask), np.mean(read == original)
    deviation = 5 * np.sqrt([0.16 / len(read), 0.09 / len(read)])
    np.testing.assert_array_less(np.abs(np.subtract(shares, (0.8, 0.1 + 0.1 / 300))), deviation)
    assert (jnp.sort(x.targets, axis=1)[:, 1:] > jnp.sort(x.targets, axis=1)[:, :-1]).all()


def test_an_evaluation_masks_the_same_words_each_time_and_a_training_others():
    source = data.from_tokens(text(20), vocabulary=SMALL)
    part = source.part(np.array([3, 7]))
    for examples in (source, part):
        x = examples.prepare(examples.x)
        there = np.asarray(examples.y) >= 0
        original = np.take_along_axis(np.asarray(source.ids[examples.x]), np.asarray(x.targets), axis=1)
        np.testing.assert_array_equal(original[there], np.asarray(examples.y)[there])
    np.testing.assert_array_equal(source.prepare(part.x).ids, part.prepare(part.x).ids)
    first, second = (source.redrawn(jax.random.key(i), source.x, source.y).x for i in (0, 1))
    assert not np.array_equal(first.targets, second.targets)


def test_the_loss_of_masked_words_is_the_mean_over_them(x64):
    logits = jax.random.normal(jax.random.key(0), (2, 3, 7), jnp.float64)
    y = jnp.array([[4, -1, 6], [-1, -1, 0]])
    logs = np.asarray(jax.nn.log_softmax(logits))
    expected = [-(logs[0, 0, 4] + logs[0, 2, 6]) / 2, -logs[1, 2, 0]]
    np.testing.assert_allclose(data.masked_cross_entropy(logits.reshape(2, -1), y), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="y: expected integer ids"):
        data.masked_cross_entropy(logits.reshape(2, -1), jnp.zeros((2, 4), int))


def test_random_tokens_are_padded_behind_their_end():
    x, _ = data.RandomTokens(9, 50).batch(jax.random.key(0), 200)
    lengths = np.asarray(x.mask.sum(axis=1))
    assert {*lengths.tolist()} == set(range(5, 10))
    np.testing.assert_array_equal(x.mask, np.arange(9)[None] < lengths[:, None])
    np.testing.assert_array_equal(x.ids > 0, x.mask)
    for option in ({"length": 0}, {"vocabulary": 1}, {"outputs": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: expected"):
            data.RandomTokens(**option)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([[1, 300]], {}, "ids: expected ids from 0 to 299, those of the vocabulary, got 300 in sequence 0"),
        ([[1, 7], [-1, 2]], {}, "got -1 in sequence 1"),
        ([[5, 6], [0, 0]], {}, "mask: expected a token in every sequence, sequence 1 is padding"),
        ([[5, 6], [2, 3]], {}, "ids: expected a word to mask out in every sequence, sequence 1 has none"),
        ([[5, 6]], {"y": [2], "classes": 2}, "y: expected labels from 0 to 1, got 2"),
        ([[5, 6]], {"y": [0, 1]}, "y: expected one label for each of the 1 sequences"),
        ([[5, 6]], {"labels": "true"}, "y: expected labels"),
        ([[5, 6]], {"labels": "wrong"}, "labels: expected one of"),
        ([[5, 6]], {"mask": np.ones((1, 3))}, "mask: expected the shape of the ids"),
        ([[5, 6]], {"mask": np.full((1, 2), 7)}, "mask: expected true and false"),
        ([[5, 6]], {"segments": np.full((1, 2), 2)}, "segments: expected 0 and 1, got 2"),
        ([5, 6], {}, "ids: expected integers"),
        (np.zeros((0, 3), int), {}, "none empty"),
    ],
)
def test_what_is_no_sequence_is_refused(ids, options, message):
    with pytest.raises(ValueError, match=message):
        data.from_tokens(np.asarray(ids), vocabulary=SMALL, **options)


def test_what_is_no_integer_is_refused():
    with pytest.raises(TypeError, match="ids: expected integers, got float64"):
        data.from_tokens(np.ones((2, 3)))
    with pytest.raises(ValueError, match="mask: expected an id from 0 to 9, got 103"):
        data.Vocabulary(10, 0, 1, 2, 3)


def test_test_examples_have_the_labels_and_the_vocabulary_of_the_training():
    training = data.from_tokens(text(4), np.arange(4), vocabulary=SMALL)
    test = data.from_tokens(text(2), np.arange(2), vocabulary=SMALL)
    assert test.like(training).outputs == 4
    with pytest.raises(ValueError, match="y: expected 2 outputs as for training, got 4"):
        training.like(test)
    with pytest.raises(ValueError, match="with true labels, got masked labels"):
        data.from_tokens(text(2), vocabulary=SMALL).like(training)
    with pytest.raises(ValueError, match="expected ids of"):
        data.from_tokens(text(2), np.arange(2)).like(training)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tmp_path


def test_words_become_their_longest_pieces(folder):
    tokenizer = data.WordPiece.read(folder / "vocab.txt")
    assert tokenizer.vocabulary == data.Vocabulary(14, 0, 1, 2, 3, 4)
    found = tokenizer.ids("The\thouses, Unwell éé 中house xyz [MASK]")
    assert tokenizer.text(found) == "the houses , unwell ee 中 house [UNK] [MASK]"
    assert tokenizer.ids("a" * 101 + "\0\u200b") == [1]


@pytest.mark.parametrize("name", ["sst2", "cola", "subj"])
def test_pieces_are_those_of_bert(name):
    """Against ids that another program made."""
    arrays = np.load(shared_file(f"transformers/text/{name}_train.npz"))
    tokens, offsets = arrays["tokens"], arrays["offsets"]
    tokenizer = data.WordPiece.read(shared_file("transformers/text/bert_uncased_vocab.txt.gz"))
    lines = gzip.decompress(shared_file(f"transformers/text/{name}_train.tsv.gz").read_bytes()).decode().splitlines()
    for i, line in enumerate(lines[:500]):
        assert [101, *tokenizer.ids(line.partition("\t")[2]), 102] == tokens[offsets[i] : offsets[i + 1]].tolist()


def test_sentences_and_running_text_are_read_with_the_vocabulary_beside_them(folder):
    (folder / "a.tsv").write_text("1\tthe house\n0\tunwell\n")
    source = data.load(str(folder / "a.tsv"))
    np.testing.assert_array_equal(source.ids, [[2, 5, 6, 3], [2, 8, 9, 3]])
    np.testing.assert_array_equal(source.y, [1, 0])
    cut = data.load(str(folder / "a.tsv"), length=3)
    np.testing.assert_array_equal(cut.ids, [[2, 5, 3], [2, 8, 3]])
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"the house the\nhouses unwell"))
    running = data.load(str(folder / "b.txt.gz"), length=5)
    np.testing.assert_array_equal(running.ids, [[2, 5, 6, 5, 3], [2, 6, 7, 8, 3], [2, 9, 3, 0, 0]])
    assert running.labels == "masked"
    assert running.loss is data.masked_cross_entropy
    with pytest.raises(ValueError, match="batch: expected 1 to 3, the number of examples, got 4"):
        running.check_batch(4)


def test_arrays_of_ids_are_read_in_every_form(tmp_path):
    path = tmp_path / "ids.npz"
    np.savez(path, ids=[[7, 8, 9], [7, 8, 9]], lengths=[3, 1], labels=[0, 1], ids_test=[[7, 7, 7]], y_test=[1])
    source = data.load(str(path))
    np.testing.assert_array_equal(source.mask, [[1, 1, 1], [1, 0, 0]])
    assert (source.outputs, source.vocabulary.size) == (2, 30522)
    np.testing.assert_array_equal(data.load(str(path), split="test").ids, [[7, 7, 7]])
    np.savez(path, tokens=np.arange(200, 206), offsets=[0, 4, 6])
    rows = data.load(str(path))
    np.testing.assert_array_equal(rows.ids, [[200, 201, 202, 203], [204, 205, 0, 0]])
    np.savez(path, tokens=np.arange(200, 206))
    np.testing.assert_array_equal(data.load(str(path), length=5).ids[1], [101, 203, 204, 205, 102])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"tokens": [5, 6], "offsets": [0, 3]}, {}, "offsets: expected rising places from 0 to 2"),
        ({"tokens": [5, 6], "offsets": [0, 2, 2]}, {}, "offsets: expected rising"),
        ({"tokens": [[5, 6]]}, {}, "tokens: expected integers"),
        ({"ids": [[5, 6]], "lengths": [3]}, {}, "lengths: expected 0 to 2"),
        ({"ids": [5, 6]}, {}, "ids: expected"),
        ({"ids": [[5, 6]]}, {"split": "test"}, "split: expected an array 'ids_test' or 'tokens_test'"),
        ({"ids": [[5, 6]]}, {"length": 2}, "length: expected at least 3 tokens, got 2"),
        ({"ids": [[5, 6]]}, {"image_size": 8}, "image_size: expected none"),
        ({"ids": [[5, 40000]]}, {}, "ids: expected ids from 0 to 30521"),
        ({"x": [[5, 6]]}, {"length": 9}, "length: expected with token ids alone"),
        ({"x": [[5, 6]]}, {"labels": "masked"}, "labels: expected 'true' or 'random' without token ids"),
    ],
)
def test_arrays_that_are_no_token_ids_are_refused(tmp_path, arrays, options, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.load(str(tmp_path / "a.npz"), **options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [("the house\n", "data: expected a label, a tab"), ("x\tthe\n", "on line 1"), ("", "is empty")],
)
def test_lines_that_are_no_sentences_are_refused(folder, lines, message):
    (folder / "a.tsv").write_text(lines)
    with pytest.raises(ValueError, match=message):
        data.load(str(folder / "a.tsv"))


def test_what_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("the house")
    with pytest.raises(FileNotFoundError, match=r"vocabulary: expected a file .* no vocab.txt beside"):
        data.load(str(tmp_path / "a.txt"))
    (tmp_path / "vocab.txt").write_text("the\nhouse\n")
    with pytest.raises(ValueError, match=r"vocabulary: expected \[PAD\], .*, lacks"):
        data.load(str(tmp_path / "a.txt"))
    (tmp_path / "vocab.txt").write_text("the\nthe\n")
    with pytest.raises(ValueError, match="'the' is there twice"):
        data.load(str(tmp_path / "a.txt"))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="vocabulary: expected text in UTF-8"):
        data.load(str(tmp_path / "a.txt"))
