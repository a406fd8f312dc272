"""What is looked at before anything is spent: splits, determinism, leaks, numbers; and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from limbeck.core.errors import TaskError
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.intake import fingerprint as fingerprints
from limbeck.intake.checks import check
from limbeck.intake.fingerprint import digest, fingerprint, scan, spread

METRIC = Metric(name="none", rows=lambda outputs, batch: {}, reduce=lambda rows: 0.0)


def rows(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator))


def task(**splits) -> Task:
    return Task(metric=METRIC, splits={"train": rows(200, 0), "validation": rows(20, 1), "test": rows(30, 2)} | splits)


class Items:
    """A data set of any samples, counting how often it is read."""

    def __init__(self, items: list) -> None:
        self.items, self.reads = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.reads += 1
        return self.items[index]


def test_a_good_task_passes_with_a_fingerprint_for_each_split() -> None:
    found = check(task())
    assert found.notes == () and found.dropped == ()
    assert found.fingerprints == {name: fingerprint(task().splits[name]) for name in ("train", "validation", "test")}
    assert len(set(found.fingerprints.values())) == 3


def test_only_the_splits_that_are_asked_for_are_needed() -> None:
    alone = Task(metric=METRIC, splits={"test": rows(9, 2)})
    assert set(check(alone, splits=("test",)).fingerprints) == {"test"}
    with pytest.raises(TaskError, match=r"no split 'train' and no split 'validation'\. There is 'test'"):
        check(alone)


def test_a_missing_split_names_the_near_one() -> None:
    with pytest.raises(TaskError, match="Did you mean 'validaton'"):
        check(Task(metric=METRIC, splits={"train": rows(9, 0), "validaton": rows(9, 1), "test": rows(9, 2)}))


def test_shared_content_is_reported_and_left_out_of_train() -> None:
    train, test = rows(200, 0), rows(30, 2)
    for i, j in ((7, 3), (150, 29)):
        train.tensors[0][i], train.tensors[1][i] = test.tensors[0][j], test.tensors[1][j]
    found = check(task(train=train, test=test))
    assert found.dropped == (7, 150)
    assert found.notes == ("2 of 200 training samples also stand in test; they are left out of training.",)


def test_more_than_one_percent_of_train_in_test_is_refused() -> None:
    train, test = rows(200, 0), rows(30, 2)
    for i in range(3):
        train.tensors[0][i], train.tensors[1][i] = test.tensors[0][i], test.tensors[1][i]
    with pytest.raises(TaskError, match=r"3 of 200 training samples also stand in test \(as train\[0\]\), which is more than 1%"):
        check(task(train=train, test=test))


def test_validation_in_test_is_reported() -> None:
    found = check(task(validation=rows(20, 2), test=rows(20, 2)))
    assert found.dropped == () and found.notes == ("20 samples of 'validation' also stand in 'test': both figures rest on them.",)


class Random(Items):
    def __getitem__(self, index: int):
        return self.items[index] + torch.rand(1)


class Identified(Items):
    def __init__(self, items: list, ids: list) -> None:
        super().__init__(items)
        self.ids = ids


def _with_nan(where: str) -> TensorDataset:
    data = rows(20, 1)
    x, y = data.tensors[0], data.tensors[1].float()
    if where == "input":
        x[3, 2] = float("nan")
    else:
        y[5] = float("inf")
    return TensorDataset(x, y)


def _stream() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": []}, "split 'test' is empty"),
        ({"test": _stream()}, "must have a length and be indexed by number, got generator"),
        ({"train": Random([torch.zeros(2)] * 20)}, r"split 'train': dataset\[i\] must be deterministic.*Task\.views"),
        ({"validation": _with_nan("input")}, r"split 'validation': input '0' must be finite, got nan at \[3, 2\]"),
        ({"validation": _with_nan("label")}, r"split 'validation': the label must be finite, got inf at \[5\]"),
        ({"train": Identified([torch.rand(2)] * 3, [1, 2, 3]), "test": Identified([torch.rand(2)] * 2, [9, 3])}, "'train' and 'test' share 1 ids, as 3"),
        ({"train": Identified([torch.rand(2)] * 3, torch.tensor([1, 2, 3])), "test": Identified([torch.rand(2)] * 2, np.array([9, 3]))}, "share 1 ids, as 3"),
        ({"train": Identified([torch.rand(2)] * 3, [1, 2])}, "3 samples but 2 ids"),
        ({"train": [SimpleNamespace(x=1)]}, r"split 'train'\[0\] is a types.SimpleNamespace"),
        ({"train": [{"x": (1, np.array([object()]))}]}, r"split 'train'\[0\]\['x'\]\[1\] is a numpy.ndarray"),
        ({"train": [torch.rand(2), torch.rand(3)]}, r"split 'train': its samples can't be joined.*Task\(collate"),
    ],
)
def test_what_can_not_be_trusted_is_refused(change: dict, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(task(**change))


def test_what_is_not_a_metric_or_a_function_is_refused() -> None:
    with pytest.raises(TaskError, match=r"metric must be a limbeck\.Metric, got str"):
        check(replace(task(), metric="accuracy"))
    with pytest.raises(TaskError, match=r"collate must be a function, got list"):
        check(replace(task(), collate=[]))


def test_dict_samples_and_nested_inputs_are_looked_at() -> None:
    good = [{"a": {"b": torch.rand(2)}, "label": torch.tensor(float(i))} for i in range(8)]
    bad = [*good[:7], {"a": {"b": torch.tensor([1.0, -torch.inf])}, "label": torch.tensor(9.0)}]
    splits = {n: [{"a": {"b": torch.rand(2)}, "label": torch.tensor(float(i))} for i in range(8)] for n in ("train", "validation")}
    check(Task(metric=METRIC, splits={**splits, "test": good}))
    with pytest.raises(TaskError, match=r"input 'a\.b' must be finite, got -inf at \[7, 1\]"):
        check(Task(metric=METRIC, splits={**splits, "test": bad}))


SCRIPT = """
import numpy as np, torch
from limbeck.intake.fingerprint import fingerprint
print(fingerprint([{"x": torch.arange(6.0).view(2, 3).to(torch.bfloat16), "s": "ä", "n": (1, 2.5, True, None), "b": b"0", 3: np.float32(2)}, [np.arange(3)]]))
"""


def test_fingerprints_are_the_same_in_every_process() -> None:
    printed = {subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": s}).stdout for s in ("1", "2")}
    assert printed == {"79e3cbca6f7da9ff395c4c80fcdbaa04829436fc39f81e02c1798f498ae62f23\n"}


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 2), (12,)),
        ("ab", ["a", "b"]),
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("1", b"1"),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (np.zeros(2, ">i4"), np.zeros(2, "<i4")),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (None, "None"),
        ([[1], 2], [[1, 2]]),
    ],
)
def test_different_samples_have_different_digests(a, b) -> None:
    assert digest(a, where="a") != digest(b, where="b")


def test_equal_samples_have_equal_digests_whatever_their_memory() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert digest(x.t(), where="") == digest(x.t().contiguous(), where="")
    assert digest({"a": 1, "b": x}, where="") == digest({"b": x.clone().requires_grad_(), "a": 1}, where="")
    assert digest(x.numpy()[:, ::2], where="") == digest(x.numpy()[:, ::2].copy(), where="")


def test_order_length_and_content_of_a_data_set_count() -> None:
    a, b = torch.rand(2), torch.rand(2)
    assert len({fingerprint(d) for d in ([a, b], [b, a], [a], [a, b, b], [a, b + 1e-7])}) == 5
    assert fingerprint([a, b]) == fingerprint(Items([a.clone(), b.clone()]))


def test_one_pass_reads_each_sample_once_besides_the_probe() -> None:
    data = Items([torch.rand(3) for _ in range(1000)])
    found = scan(data, where="data")
    assert found.whole and data.reads == 1000 + fingerprints.PROBED


def test_large_data_are_judged_by_a_fixed_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(fingerprints, "CHOSEN", 50)
    items = [torch.tensor([float(i)]) for i in range(1000)]
    found = scan(Items(items), where="data")
    assert sorted(found.samples) == list(range(0, 1000, 20)) and not found.whole
    other = [*items[:40], items[40] + 1, *items[41:]]
    assert scan(Items(other), where="data").fingerprint != found.fingerprint
    notes = check(Task(metric=METRIC, splits={"train": items, "validation": rows(5, 0), "test": rows(5, 1)})).notes
    assert notes == ("split 'train' is large: 50 of 1,000 samples were compared with the other splits.",)


def test_spread_keeps_all_of_a_few_and_never_repeats() -> None:
    assert spread(3, 5) == [0, 1, 2] and spread(0, 5) == []
    assert len(set(spread(4097, 4096))) == 4096


class Own(Items):
    def __init__(self, items: list, own) -> None:
        super().__init__(items)
        self.fingerprint = own


def test_a_data_set_may_bring_its_own_fingerprint_and_is_still_searched_for_leaks() -> None:
    test = rows(30, 2)
    assert fingerprint(Own([1], "v1")) == fingerprint(Own([2], "v1")) != fingerprint(Own([1], "v2"))
    found = check(task(train=Own([test[0], *rows(199, 0)], "v1"), test=test))
    assert found.dropped == (0,) and found.fingerprints["train"] == fingerprint(Own([], "v1"))
    with pytest.raises(TaskError, match="fingerprint must be a text"):
        check(task(train=Own([1], lambda: "v1")))
