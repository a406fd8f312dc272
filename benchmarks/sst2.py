"""How small can a sentiment model get that learns from MiniLM? SST-2: dev steers, the 1,821 sentences of test judge.

`python benchmarks/sst2.py [arm] [--folder FOLDER] [--full]` carries out the first arm of `ARMS` that has no record, or the one that is
named, and adds it to `records/sst2.json`. A training that is stopped goes on where it was; an arm that is named again is cut, rounded and
judged again, what it showed before is kept beside it, and its core-seconds add up. The teacher's answers to train are kept in FOLDER once
and read by all arms. `--full` trains ten times as long, for a machine of one's own. Needs LIMBECK_DATA and transformers.

Two students. `convolutions`: word vectors of 48 numbers, one convolution that widens them, one residual block; distilled, its words cut to
those that train has often, rounded to int8. Where it begins with the teacher's words, these are the teacher's 384 numbers a word, fixed,
on 48 directions that are learnt; the product is the table that is deployed. `wide` is such a one with 64 directions, 128 channels and two
blocks, trained longer. `layers`: MiniLM itself, its words cut to those of train,
every second layer dropped, then recovered on the sentences alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from limbeck import Blueprint, CachedTeacher, Candidate, LiveTeacher, Recovery, Task, TorchForm, Training, accuracy
from limbeck.core.files import write
from limbeck.evaluation import environment, quality
from limbeck.intake.fingerprint import fingerprint
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of, example, predict
from limbeck.mechanics.recover import recover
from limbeck.pipeline.context import RunContext
from limbeck.runtimes import runtime
from limbeck.techniques.distill.offline import Distill, distill
from limbeck.techniques.prune.blocks import Blocks, blocks
from limbeck.techniques.prune.vocabulary import Vocabulary, vocabulary
from limbeck.techniques.quantize.static_int8 import Quantize, quantize
from limbeck.testing import context

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEACHER = DATA / "teachers" / "sst2_minilm"
RECORD = Path(__file__).parent / "records" / "sst2.json"
UNKNOWN, SPECIAL = 100, (0, 100, 101, 102, 103)  # [UNK]; [PAD], [UNK], [CLS], [SEP], [MASK]


# ---- the task ------------------------------------------------------------------------------------------------------------


class Sentences:
    """Token ids and labels; `dataset[i]` gives (ids, label). The first `whole` of them are sentences, the others phrases."""

    def __init__(self, texts: list[str], labels: list[int], whole: int = 0):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(TEACHER / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.texts, self.labels, self.whole = texts, labels, whole
        self.ids = [e.ids for e in tokenizer.encode_batch(texts)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self.ids[index], self.labels[index]


def collate(samples: list[tuple[list[int], int]]) -> dict[str, Tensor]:
    longest = max(len(ids) for ids, _ in samples)
    ids, mask = torch.zeros(len(samples), longest, dtype=torch.long), torch.zeros(len(samples), longest, dtype=torch.long)
    for row, (tokens, _) in enumerate(samples):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([label for _, label in samples])}


def read(name: str) -> tuple[list[str], list[int]]:
    lines = gzip.decompress((DATA / "sst2" / f"{name}.tsv.gz").read_bytes()).decode().rstrip("\n").split("\n")[1:]
    rows = [line.split("\t", 1) for line in lines]
    return [text.strip() for _, text in rows], [int(label) for label, _ in rows]


def splits() -> dict[str, Sentences]:
    """Train: the whole sentences, then GLUE's phrases by length; each text once, none that is in dev or test."""
    judged = {"validation": read("dev"), "test": read("sentences_test")}
    seen = {text for texts, _ in judged.values() for text in texts}
    train, whole = list[tuple[str, int]](), 0
    for name in ("sentences_train", "train"):
        fresh = {text: label for text, label in zip(*read(name), strict=True) if text not in seen}
        seen |= fresh.keys()
        train += fresh.items() if name == "sentences_train" else sorted(fresh.items(), key=lambda row: (-len(row[0]), row[0]))
        whole = whole or len(train)
    texts, labels = zip(*train, strict=True)
    return {"train": Sentences(list(texts), list(labels), whole), **{name: Sentences(*rows) for name, rows in judged.items()}}


def minilm() -> nn.Module:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(TEACHER), attn_implementation="eager")


class Words(nn.Module):
    """The teacher's word vectors, fixed, on fewer directions that are learnt."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("vectors", teacher_words(), persistent=False)
        self.narrow = nn.Linear(384, size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.narrow(F.embedding(ids, self.get_buffer("vectors")))


@cache
def teacher_words() -> Tensor:
    """The teacher's table, centred and scaled to a deviation of 1."""
    from safetensors.torch import load_file

    words = load_file(TEACHER / "model.safetensors")["bert.embeddings.word_embeddings.weight"].float()
    return (words - words.mean(0)) / words.std()


class Block(nn.Module):
    """A convolution of each channel by itself, then two across channels, beside a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.each, self.first, self.second = nn.Conv1d(width, width, 5, padding=2, groups=width), nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        return x + self.dropout(self.second(torch.relu(self.first(self.each(x * kept)))))


class Convolutions(nn.Module):
    """Narrow word vectors, widened; residual blocks; the largest and the mean value of each channel; one linear layer."""

    def __init__(self, words: bool = False, size: int = 48, width: int = 96, blocks: int = 1):
        super().__init__()
        self.tokens = Words(size) if words else nn.Embedding(30522, size)
        self.noise, self.widen = nn.Dropout(0.2), nn.Conv1d(size, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(2 * width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask.to(torch.float32)[:, None, :]
        x = torch.relu(self.widen(self.noise(self.tokens(input_ids)).transpose(1, 2) * kept))
        for block in self.blocks:
            x = block(x, kept)
        largest, mean = (x - 1e4 * (1 - kept)).amax(2), (x * kept).sum(2) / kept.sum(2)
        return self.head(self.dropout(torch.cat([largest, mean], 1)))


def folded(candidate: Candidate, task: Task, sizes: dict[str, int]) -> Candidate:
    """The same student with one table in place of the teacher's words and the directions on which they were put."""
    weights = dict(candidate.torch_form.weights)
    weights["tokens.weight"] = teacher_words() @ weights.pop("tokens.narrow.weight").T
    form = TorchForm(Blueprint("task:convolutions", sizes), weights)
    batch = batch_of(task, "validation", range(64))
    with torch.no_grad():
        torch.testing.assert_close(predict(task, rebuild(form, task), batch), predict(task, rebuild(candidate.torch_form, task), batch), rtol=1e-3, atol=1e-3)
    return replace(candidate, form=form)


def sst2() -> Task:
    return Task(
        name="sst2",
        models={"teacher": minilm, "convolutions": Convolutions, "words": partial(Convolutions, words=True), "wide": partial(Convolutions, words=True, **WIDE)},
        weights={"teacher": TEACHER / "model.safetensors"},
        splits=splits(),
        metric=accuracy(),
        collate=collate,
        outputs=lambda raw: {"logits": raw if isinstance(raw, Tensor) else raw.logits},
    )


def answers(task: Task, folder: Path) -> CachedTeacher:
    """The teacher's logits for all of train, computed once."""
    identity = {"teacher": "sst2_minilm", "data": fingerprint(task.split("train"))}
    return CachedTeacher(folder / "answers", LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task)), identity)


def answered(task: Task, signals: CachedTeacher, folder: Path) -> float:
    """Core-seconds that the teacher took for all of train; asked now, if it wasn't."""
    spent = folder / "answers_seconds.json"
    if not spent.exists():
        start, ids = time.process_time(), np.arange(len(task.split("train")))
        for part in np.array_split(ids, len(ids) // 4096 + 1):
            signals.teacher(part, 0, (), {})
        write(spent, json.dumps(round(time.process_time() - start, 1)).encode())
    return json.loads(spent.read_text())


# ---- the arms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One student under one seed. weight: of the teacher's term, 0 without a teacher."""

    kind: str
    seed: int
    student: str = ""
    weight: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}"


KINDS = (
    ("words_teacher", "words", 0.9),
    ("words_labels", "words", 0.0),
    ("own_labels", "convolutions", 0.0),
    ("layers_teacher", "", 0.9),
    ("wide_teacher", "wide", 0.9),
    ("wide_labels", "wide", 0.0),
    ("own_teacher", "convolutions", 0.9),
    ("layers_labels", "", 0.0),
)
ARMS = (Arm("teacher", 0), *(Arm(kind, seed, student, weight) for kinds in (KINDS[:4], KINDS[4:5], KINDS[5:]) for seed in (0, 1) for kind, student, weight in kinds))
EPOCHS = {"convolutions": 3, "words": 3, "wide": 5, "": 1}
WIDE = {"size": 64, "width": 128, "blocks": 2}
TEMPERATURE = 2.0


def distilled(arm: Arm, task: Task, at: RunContext, epochs: int) -> tuple[Candidate, dict[str, Any]]:
    """A small student, trained, cut and rounded."""
    training = Training(epochs=epochs, batch_size=256, learning_rate=3e-3, checkpoint_steps=200)
    student = Distill(student=arm.student, temperature=TEMPERATURE, teacher_weight=arm.weight, training=training)
    made = distill(teacher_candidate(task), student, at)
    taught = arm.student != "convolutions"  # rows that only the teacher knows lie where they should; rows that nothing trained lie anywhere
    candidate = folded(made.candidate, task, WIDE if arm.student == "wide" else {}) if taught else made.candidate
    cut = vocabulary(candidate, Vocabulary(min_count=12 if taught else 8, keep=SPECIAL, others="nearest" if taught else "mean"), at)
    rounded = quantize(cut.candidate, Quantize(samples=256), at)
    return rounded.candidate, {"vocabulary": cut.claims, "quantize": {k: rounded.claims[k] for k in ("quantized_weights", "left_float")}, "history": made.claims["history"]}


def shortened(arm: Arm, task: Task, at: RunContext, epochs: int) -> tuple[Candidate, dict[str, Any]]:
    """MiniLM with its words cut and three of six layers, recovered on the sentences alone: the first of train, so the cache's ids hold."""
    cut = vocabulary(teacher_candidate(task), Vocabulary(unknown=UNKNOWN, keep=SPECIAL), at)
    shorter = blocks(cut.candidate, Blocks(ratio=0.5), at)
    few = replace(task, splits={**task.splits, "train": Subset(task.split("train"), range(task.split("train").whole))})
    training = Training(epochs=epochs, batch_size=32, learning_rate=2e-4, checkpoint_steps=50)
    recovery = Recovery(training=training, temperature=TEMPERATURE, teacher_weight=arm.weight)
    candidate, history = recover(shorter.candidate, recovery, replace(at, task=few))
    return candidate, {"vocabulary": cut.claims, "blocks": {k: shorter.claims[k] for k in ("kept", "parameters")}, "history": history}


def carry_out(arm: Arm, folder: Path, *, full: bool) -> dict[str, Any]:
    """Train, export to ONNX Runtime, and judge the artifact on dev and test."""
    start, task = time.process_time(), sst2()
    signals = answers(task, folder)
    if arm.kind == "teacher":
        candidate = teacher_candidate(task)
        claims = {"answers_seconds": answered(task, signals, folder), "samples": len(task.split("train"))}
    else:
        at = replace(context(task, folder / arm.name, seed=arm.seed), signals=signals, log=Lines())
        make, epochs = distilled if arm.student else shortened, EPOCHS[arm.student] * (10 if full else 1)
        candidate, claims = make(arm, task, at, epochs)
        claims |= {"epochs": epochs, "samples": len(task.split("train")) if arm.student else task.split("train").whole}
    trained = time.process_time() - start
    artifact = runtime("onnxruntime").export(example(task, rebuild(candidate.torch_form, task)), folder / arm.name)
    session = runtime("onnxruntime").load(artifact, 1)
    right = {split: quality.rows_of(session, task, split)["correct"].astype(int) for split in ("validation", "test")}
    return {
        "kind": arm.kind,
        "seed": arm.seed,
        "size_bytes": artifact.size_bytes,
        "parameters": sum(p.numel() for p in rebuild(candidate.torch_form, task).parameters()),
        "dev": float(right["validation"].mean()),
        "test": float(right["test"].mean()),
        "right": {split: "".join(map(str, rows)) for split, rows in right.items()},
        "train_seconds": round(trained, 1),
        "cpu_seconds": round(time.process_time() - start, 1),
        "claims": claims,
        "full": full,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RECORD.parent).stdout.strip(),
        "machine": environment.machine(),
        "versions": environment.versions(),
    }


class Lines:
    def event(self, event: str, **data: object) -> None:
        print(event, *(f"{k}={v}" for k, v in data.items()), flush=True)

    def progress(self, done: float, total: float, note: str) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", nargs="?", choices=[arm.name for arm in ARMS])
    parser.add_argument("--folder", type=Path, default=Path("runs") / "sst2")
    parser.add_argument("--full", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"question": (__doc__ or "").splitlines()[0], "arms": {}}
    arm = next((a for a in ARMS if (a.name == asked.arm if asked.arm else a.name not in record["arms"])), None)
    if arm is None:
        print("every arm has its record")
        return
    (asked.folder / arm.name).mkdir(parents=True, exist_ok=True)
    done = carry_out(arm, asked.folder, full=asked.full)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else record  # another arm may have ended meanwhile
    before = record["arms"].get(arm.name)
    if before:
        done |= {
            "cpu_seconds": round(done["cpu_seconds"] + before["cpu_seconds"], 1),
            "earlier": [*before.get("earlier", []), {k: before[k] for k in ("dev", "test", "size_bytes")}],
        }
    record["arms"][arm.name] = done
    write(RECORD, (json.dumps(record, indent=1) + "\n").encode())
    print(f"{arm.name}: dev {done['dev']:.4f}, test {done['test']:.4f}, {done['size_bytes']:,} bytes, {done['cpu_seconds']:.0f} core-seconds")


if __name__ == "__main__":
    main()
