"""The task file that is written, and the script that trains a teacher where there is none."""

from __future__ import annotations

from pathlib import Path
from string import Template

from limbeck.intake.starting import source
from limbeck.intake.starting.parts import DataPart, ModelPart
from limbeck.intake.starting.runfile import batch_size

HEAD = '"""What limbeck compresses: model, data and metric. Written by `limbeck init`; yours to change."""\n\nfrom __future__ import annotations\n\n'


def task_source(data: DataPart, model: ModelPart, *, name: str, metric: str, folder: Path) -> str:
    """The text of task.py."""
    arguments = f"output={source.quoted(model.output)}" if model.output else ""
    imports = source.imports((*data.imports, *model.imports, f"from limbeck import Task, {metric}", *(_path(data, model))), folder)
    keywords = [("name", source.quoted(name), ""), ("models", f'{{"teacher": {model.factory}}}', "add a student of your own here, and name it in limbeck.toml")]
    if model.weights:
        keywords.append(("weights", f'{{"teacher": {source.quoted(model.weights)}}}', "made by train_teacher.py" if not model.trained else ""))
    splits = "".join(f'        "{split}": {expression},{COMMENTS[split]}\n' for split, expression in data.splits.items())
    keywords.append(("splits", f"{{\n{splits}    }}", ""))
    keywords.append(("metric", f"{metric}({arguments})", ""))
    if model.outputs:
        keywords.append(("outputs", model.outputs, ""))
    constants = data.constants + model.constants
    here = "HERE = Path(__file__).parent\n" if "HERE" in constants else ""
    body = f"{imports}\n"
    body += f"\n{here}{constants}" if constants else ""
    for code in (data.code, model.code):
        body += f"\n\n{code.strip()}\n" if code else ""
    gap = "\n\n" if data.code or model.code else "\n"
    return HEAD + body + gap + source.call("task = Task", [*keywords, *data.more]) + "\n"


COMMENTS = {"train": "  # learned from", "validation": "  # steers: gates, early stop", "test": "  # gives the verdict"}


def _path(data: DataPart, model: ModelPart) -> tuple[str, ...]:
    constants = data.constants + model.constants
    return ("from pathlib import Path",) if "HERE" in constants or "Path(" in constants else ()


TRAINER = Template('''"""Train the teacher that limbeck makes small: python train_teacher.py"""

from __future__ import annotations

import logging
$stdlib
import torch
from safetensors.torch import save_file
$imports

EPOCHS = $epochs
BATCH = $batch
RATE = $rate  # the peak of the learning rate


def score(model: nn.Module) -> float:
    """$scored on validation; $direction is better."""
    model.eval()
    with torch.no_grad():
        found = [$each for batch in DataLoader(task.splits["validation"], BATCH)]
    return sum(found) / len(task.splits["validation"])

$views
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    model, best = $teacher, float("$worst")
    data = task.splits["train"]
    loader = DataLoader(data, BATCH, shuffle=True, drop_last=len(data) > BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        model.train()
        for batch in loader:
            loss = $loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        now = score(model)
        logging.info("epoch %d of %d: $score %.4f on validation", epoch + 1, EPOCHS, now)
        if now $better best:  # the best so far is what is kept
            best = now
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, HERE / "$file")
    logging.info("kept the best ($score %.4f on validation) as $file", best)


if __name__ == "__main__":
    main()
''')
MOVED = '''
def moved(images: Tensor) -> Tensor:
    """Each batch shifted by a few pixels, mirrored at the edge: more to learn from."""
    pad = max(1, images.shape[-1] // 16)
    down, right = torch.randint(0, 2 * pad + 1, (2,)).tolist()
    return F.pad(images, (pad,) * 4, mode="reflect")[..., down : down + images.shape[-2], right : right + images.shape[-1]]

'''


def trainer_source(data: DataPart, model: ModelPart, *, epochs: int) -> str:
    """The text of train_teacher.py."""
    classes, image = data.kind == "class", data.shape == "image"
    keyed = any(line[0] == "inputs" for line in data.more) or data.shape == "tokens"
    answer = 'model(batch["input_ids"], batch["attention_mask"])' if data.shape == "tokens" else "model(batch[0])"
    shown = "model(moved(batch[0]))" if image else answer
    target = 'batch["labels"]' if keyed else "batch[-1]"
    loss = f"F.cross_entropy({shown}, {target})" if classes else f"F.mse_loss({shown}.flatten(), {target}.float().flatten())"
    each = f"({answer}.argmax(1) == {target}).sum().item()" if classes else f'F.mse_loss({answer}.flatten(), {target}.float().flatten(), reduction="sum").item()'
    names = ["Tensor", "nn"] if image else ["nn"]
    third = source.imports((f"from torch import {', '.join(names)}", "from torch.nn import functional as F", "from torch.utils.data import DataLoader"))
    factory = 'task.models["teacher"]()' if model.factory != "teacher" else "teacher()"
    return TRAINER.substitute(
        stdlib="from pathlib import Path\n",
        imports=third + "\n\nfrom task import " + ("task" if model.factory != "teacher" else "task, teacher") + "\n\nHERE = Path(__file__).parent",
        epochs=epochs,
        batch=batch_size(data.count["train"]),
        rate="1e-3" if data.shape == "tokens" else "4e-3" if image else "2e-3",
        scored="The share of right answers" if classes else "The mean squared error",
        score="accuracy" if classes else "squared error",
        direction="higher" if classes else "lower",
        better=">=" if classes else "<=",
        worst="-inf" if classes else "inf",
        each=each,
        views=MOVED if image else "",
        teacher=factory,
        loss=loss,
        file=model.weights,
    )
