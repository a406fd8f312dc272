"""What a user may bring to `limbeck init`: small, learnable data and models of each kind."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np

MODEL = """
from torch import nn


class MyNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))


class Other(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))
"""
DATA = """
import torch
from torch.utils.data import TensorDataset

x = torch.randn(900, 12, generator=torch.Generator().manual_seed(0))
y = (x[:, :3].sum(1) > 0).long()


def cut(start, stop, labels=y):
    return TensorDataset(x[start:stop], labels[start:stop])


def splits():
    return {"train": cut(0, 300), "val": cut(300, 600), "test": cut(600, 900)}


values = (cut(0, 300, x[:, 0] * 2), cut(300, 600, x[:, 0] * 2), cut(600, 900, x[:, 0] * 2))
no_test = {"train": cut(0, 300), "val": cut(300, 600)}
tiny = {"train": cut(0, 300), "val": cut(300, 303), "test": cut(600, 900)}
many = {"train": cut(0, 300, y + 5), "val": cut(300, 600, y + 5), "test": cut(600, 900, y + 5)}
unseen = {"train": cut(0, 300), "val": cut(300, 600), "test": cut(600, 900, y + 1)}
one = cut(0, 300)
same = {"train": one, "val": one, "test": cut(600, 900)}
overlap = {"train": cut(0, 300), "val": cut(200, 600), "test": cut(600, 900)}
"""


def images(folder: Path, *, count: int = 60, classes: tuple[str, ...] = ("disc", "square", "stripes"), side: int = 20) -> Path:
    """PNG files in a sub-folder for each class; no two are the same."""
    from PIL import Image

    draw = np.random.default_rng(abs(hash(folder.name)) % 1000)
    down, right = np.mgrid[:side, :side]
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = draw.integers(0, 80, (side, side, 3)).astype(np.uint8)
            y, x = draw.integers(5, side - 5, 2)
            shapes = [(down - y) ** 2 + (right - x) ** 2 < 25, (abs(down - y) < 5) & (abs(right - x) < 5), (down + y) % 4 < 2]
            pixels[shapes[number % 3]] = draw.integers(150, 255, 3)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def reviews(path: Path, rows: int = 600) -> Path:
    """Texts whose label follows from their words."""
    draw = random.Random(0)
    words = {"pos": ["great", "fine", "lovely", "superb", "happy", "nice"], "neg": ["awful", "poor", "horrid", "sad", "nasty", "bad"]}
    fill = ["the", "film", "was", "a", "plot", "and", "it", "of", "with", "one", "day", "actor", "scene", "music", "story", "light"]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "review", "country", "label"])
        for i in range(rows):
            label = ("pos", "neg")[i % 2]
            text = draw.choices(fill, k=draw.randint(6, 14)) + draw.choices(words[label], k=3)
            draw.shuffle(text)
            out.writerow([i, " ".join(text), draw.choice(["DE", "FR"]), label])
    return path


def houses(path: Path, rows: int = 500, names: tuple[str, str, str, str] = ("area", "rooms", "city", "price")) -> Path:
    """A table whose price follows from the other columns, with a few numbers missing."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", *names])
        for i in range(rows):
            area, rooms, city = draw.uniform(20, 200), draw.randint(1, 6), draw.choice(["Berlin", "Bonn", "Köln"])
            out.writerow([i, f"{area:.1f}" if draw.random() > 0.03 else "", rooms, city, f"{area * 3000 + rooms * 10000 + len(city) * 20000 + draw.gauss(0, 5000):.0f}"])
    return path


def own(folder: Path, *, onnx: bool = False) -> Path:
    """my_module.py, my_data.py and trained weights, net.safetensors and net.pt; as net.onnx too if asked for."""
    import torch
    from safetensors.torch import save_file
    from torch.nn import functional as F

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_module.py").write_text(MODEL)
    (folder / "my_data.py").write_text(DATA)
    module, data = {}, {}
    exec(MODEL, module)
    exec(DATA, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, other = module["MyNet"](), module["Other"]()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = data["splits"]()["train"][:]
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "net.safetensors")
    torch.save(model.state_dict(), folder / "net.pt")
    save_file(other.state_dict(), folder / "other.safetensors")
    if onnx:
        axes = ({0: torch.export.Dim("batch")},)
        names = {"input_names": ["features"], "output_names": ["scores"]}
        torch.onnx.export(model.eval(), (x[:2],), folder / "net.onnx", dynamo=True, external_data=False, verbose=False, dynamic_shapes=axes, **names)
    return folder


def bert(folder: Path, words: list[str]) -> Path:
    """A transformers folder: a small BERT classifier with random weights, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": 64}
    config = BertConfig(vocab_size=len(tokenizer), id2label={0: "neg", 1: "pos"}, label2id={"neg": 0, "pos": 1}, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder
