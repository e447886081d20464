"""Near-duplicates are found, and rows that only look alike are not taken for them."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np

from loraloom.data.near import ALIKE, near_labels

WORDS = [
    f"{a}{b}"
    for a in ("bel", "dor", "kan", "mur", "sil", "tev")
    for b in ("a", "os", "ine", "ut", "er", "ilo", "am", "y")
]


def story(seed: int, words: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [rng.choice(WORDS) for _ in range(words)]


def groups(texts: list[str]) -> int:
    return len(np.unique(near_labels(texts)[0]))


def test_changed_words_are_found_and_other_texts_are_not() -> None:
    originals = [story(seed) for seed in range(200)]
    copies = [[*words[:30], "changed", *words[31:], "and", "more"] for words in originals[:50]]
    labels, compared = near_labels([" ".join(words) for words in (*originals, *copies)])
    assert compared == 250
    assert labels[:200].tolist() == list(range(200))
    assert labels[200:].tolist() == list(range(50))


def test_the_threshold_is_that_of_the_exact_similarity() -> None:
    words = story(1)

    def similarity(other: list[str]) -> float:
        a, b = ({tuple(each[i : i + 3]) for i in range(len(each) - 2)} for each in (words, other))
        return len(a & b) / len(a | b)

    for swapped in range(1, 12):
        other = [f"new{i}" if i < swapped else word for i, word in enumerate(words)]
        # One text that is near to many is found by any band; the exact comparison alone decides.
        expected = 1 if similarity(other) >= ALIKE else 2
        assert groups([" ".join(words), " ".join(other)]) == expected


def test_a_template_that_many_rows_fill_in_makes_no_near_duplicates() -> None:
    short = [f"what is {a} plus {a + 1}?" for a in range(300)]
    long = [
        f"{' '.join(story(3, 80))} the number of this case is {a} {' '.join(story(4, 20))}"
        for a in range(300)
    ]
    assert groups(short) == 300
    assert groups(long) == 300


def test_short_texts_are_never_near_one_another() -> None:
    texts = [
        "play some jazz",
        "play some jazz please",
        "play some jazz music",
        "please play some jazz",
        "play jazz",
    ]
    assert groups(texts) == len(texts)


def test_a_fixed_instruction_before_each_row_does_not_make_rows_alike() -> None:
    instruction = " ".join(story(5, 200))
    assert groups([f"{instruction} {' '.join(story(seed, 15))}" for seed in range(100)]) == 100


def test_scripts_without_spaces_are_compared_by_character() -> None:
    rng = random.Random(0)
    letters = "日月火水木金土山川田人口車門雨雪電話本語学校先生友達東西南北"
    text = "".join(rng.choice(letters) for _ in range(80))
    assert (
        groups([text, text[:40] + "犬" + text[41:], "".join(rng.choice(letters) for _ in range(80))])
        == 2
    )


def test_beyond_the_limit_a_sample_is_compared() -> None:
    texts = [" ".join(story(seed)) for seed in range(40)]
    labels, compared = near_labels(texts, most_characters=sum(map(len, texts)) // 2)
    assert 0 < compared < 40
    assert len(labels) == 40


def test_nothing_and_empty_texts_are_no_trouble() -> None:
    assert near_labels([])[0].tolist() == []
    assert near_labels(["", "a"])[0].tolist() == [0, 1]


def test_the_answer_does_not_depend_on_the_process() -> None:
    """Python's own hash differs from one process to the next; nothing here may use it."""
    code = (
        "import random; from loraloom.data.near import near_labels\nrng = random.Random(1); base ="
        " [[rng.choice('abcdefghijklmnopqrstuvw') * 2 for _ in range(60)] for _ in range(30)]\ntexts ="
        " [' '.join(w) for w in base] + [' '.join([*w[:20 + i], 'new', *w[21 + i:]]) for i, w in"
        " enumerate(base)]\nprint(near_labels(texts)[0].tolist())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
