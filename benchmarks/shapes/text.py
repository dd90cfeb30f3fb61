"""Does the text featuriser see what a prompt asks for, in any writing, at any length, wherever it is asked?

    python benchmarks/shapes/text.py [--seeds N] [--texts N] [--only WRITING]

Texts are random words of one kind of writing (`corpus.py`) among which one of four tasks is named in one of three ways: at the
start, in the middle, or at the end. The same linear learner (logistic regression on standardised features) is to tell the tasks
apart from half of the texts; scored is its accuracy on the other half (chance: .25), mean over seeds, each a corpus of its own.
Compared are the service's features and scikit-learn's HashingVectorizer of the same dimension, of words and of 2 to 4 characters
within words. `worst` is our least accurate seed; the last line says in how many rows ours is at least as accurate as the better
of the two, less one standard error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
from corpus import WRITINGS, Writing
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from pointsman.bandit.text import TEXT_DIM, text_features

PLACES = ("start", "middle", "end")
LENGTHS = (20, 200, 2_000, 20_000, 100_000)
FEATURISERS = ("ours", "words", "characters")


def text_of(writing: Writing, task: int, length: int, place: str, rng: random.Random) -> str:
    """A text of about ``length`` characters that names ``task`` at ``place``."""
    way = rng.choice(writing.tasks[task])
    room = max(0, length - len(way) - 2 * len(writing.gap))
    before = {"start": 0, "middle": room // 2, "end": room}[place]
    parts = (filling(writing, before, rng), way, filling(writing, room - before, rng))
    return writing.gap.join(part for part in parts if part)


def filling(writing: Writing, length: int, rng: random.Random) -> str:
    """Random words, ``length`` characters of them."""
    mean = sum(map(len, writing.filler)) / len(writing.filler) + len(writing.gap)
    text = ""
    while len(text) < length:
        text += writing.gap.join(rng.choices(writing.filler, k=2 + int(length / mean))) + writing.gap
    return text[:length].strip()


def features(name: str, texts: list[str]) -> np.ndarray:
    """The features of texts, (n, d)."""
    if name == "ours":
        return np.array([text_features(text) for text in texts])
    settings = {} if name == "words" else {"analyzer": "char_wb", "ngram_range": (2, 4)}
    return HashingVectorizer(n_features=TEXT_DIM, **settings).transform(texts).toarray()


def accuracy(x_nd: np.ndarray, task_n: np.ndarray) -> float:
    """Of a linear learner of the first half, on the second."""
    half = len(task_n) // 2
    x_nd = (x_nd - x_nd[:half].mean(axis=0)) / (x_nd[:half].std(axis=0) + 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: it is the same for all
        learner = LogisticRegression(C=0.1, max_iter=200).fit(np.clip(x_nd[:half], -10, 10), task_n[:half])
    return float((learner.predict(np.clip(x_nd[half:], -10, 10)) == task_n[half:]).mean())


def run(job: tuple[str, int, str, int, int]) -> tuple[tuple[str, int, str, int, int], list[float], float]:
    """Accuracies of one corpus by featuriser, and the longest time that our features of a text took, in seconds."""
    name, length, place, seed, count = job
    writing = next(writing for writing in WRITINGS if writing.name == name)
    rng = random.Random(f"{name} {length} {place} {seed}")
    task_n = np.array([rng.randrange(4) for _ in range(count)])
    texts = [text_of(writing, int(task), length, place, rng) for task in task_n]
    slowest = 0.0
    text_features(texts[0])  # the first call of a process loads and caches
    for text in texts[:8]:
        start = time.process_time()
        text_features(text)
        slowest = max(slowest, time.process_time() - start)
    return job, [accuracy(features(f, texts), task_n) for f in FEATURISERS], slowest


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--texts", type=int, default=240, help="texts of a corpus; a quarter of it of the longest")
    parser.add_argument("--only", default="", help="writings whose name contains this")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    jobs = [
        (writing.name, length, place, seed, arguments.texts if length < 20_000 else max(64, arguments.texts // 4))
        for writing in WRITINGS
        if arguments.only in writing.name
        for length in map(int, arguments.lengths.split(","))
        for place in PLACES[: 1 if length < 100 else None]
        for seed in range(arguments.seeds)
    ]
    console = Console(width=110)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("forkserver")) as pool:
        done = list(track(pool.map(run, jobs), total=len(jobs), description="text", console=console))
    table = Table(title=f"accuracy in telling four tasks apart, dimension {TEXT_DIM}, {arguments.seeds} seeds")
    for heading in ("writing", "characters", "place", "ours ± 95 %", "worst", "words", "2-4 characters", "slowest, ms"):
        table.add_column(heading, justify="left" if heading in ("writing", "place") else "right")
    rows = list(dict.fromkeys([job[:3] for job in jobs]))
    level = 0
    for name, length, place in rows:
        row = [(accuracies, slowest) for job, accuracies, slowest in done if job[:3] == (name, length, place)]
        accuracy_sf = np.array([accuracies for accuracies, _ in row])
        mean_f = accuracy_sf.mean(axis=0)
        error = float(accuracy_sf[:, 0].std(ddof=1) / len(row) ** 0.5) if len(row) > 1 else 0.0
        better = bool(mean_f[0] >= mean_f[1:].max() - error)
        level += better
        table.add_row(
            name,
            f"{length:,}",
            place,
            f"{'' if better else '[red]'}{mean_f[0]:.2f} ± {1.96 * error:.2f}",
            f"{accuracy_sf[:, 0].min():.2f}",
            f"{mean_f[1]:.2f}",
            f"{mean_f[2]:.2f}",
            f"{1e3 * max(slowest for _, slowest in row):.1f}",
        )
    console.print(table)
    console.print(f"at least as accurate as the better of the two in {level} of {len(rows)} rows")


if __name__ == "__main__":
    main()
