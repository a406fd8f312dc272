"""The teacher's cache: right under augmentation, bound to what it was made with, safe when it is cut off."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from limbeck.core.errors import ConfigError, Interrupted, TaskError
from limbeck.core.technique import Reads
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import Reader
from limbeck.mechanics.signals import CachedTaps, CachedTeacher, LiveTeacher
from limbeck.mechanics.terms import hint, kd, similarity_preserving, task_loss
from limbeck.mechanics.views import Views
from limbeck.testing import small_task

IDENTITY = {"teacher": "t", "data": "d", "views": None}
TAP = "features.5"


def live(task) -> LiveTeacher:
    return LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))


def cache(folder, teacher: LiveTeacher, **options) -> CachedTeacher:
    """96 samples: two whole shards and a part."""
    return CachedTeacher(folder, teacher, options.pop("identity", IDENTITY), **{"shard": 40} | options)


def viewed(task, ids, view):
    return task.views.apply_to(task, Reader(task, "train").batch(ids), ids, np.full(len(ids), view))


def plain(task, ids):
    return (Reader(task, "train").batch(ids)[0],)


class Counting(nn.Module):
    """Counts the samples that the teacher is asked about, and may end everything."""

    def __init__(self, model, dies_at: int = 10**9):
        super().__init__()
        self.model, self.asked, self.dies_at = model, 0, dies_at

    def forward(self, x):
        self.asked += len(x)
        if self.asked > self.dies_at:
            raise KeyboardInterrupt
        return self.model(x)


def test_cached_equals_live_on_the_same_view(tmp_path):
    """Oracle 8: at fp32 the cache is the live teacher, to 1e-6 under another batch shape."""
    task = replace(small_task(), views=Views(shift=1, versions=3))
    teacher = live(task)
    cached = cache(tmp_path, teacher, dtype="float32")
    for view in (0, 2):
        ids = np.array([95, 3, 41, 40, 39])
        args, kwargs = viewed(task, ids, view)
        expected = teacher.teacher(ids, view, args, kwargs)["logits"]
        got = cached.teacher(ids, view, args, kwargs)["logits"]
        assert torch.allclose(expected, got, atol=1e-6)
    assert not torch.allclose(cached.teacher(ids, 0, args, kwargs)["logits"], cached.teacher(ids, 2, args, kwargs)["logits"])


def test_at_equal_batch_shape_cached_is_live_bit_for_bit_features_too(tmp_path):
    task = small_task()
    teacher, ids = live(task), np.arange(32, 64)
    expected = teacher.tapped((TAP,)).teacher(ids, 0, plain(task, ids), {})
    got = cache(tmp_path, teacher, dtype="float32", features="float32", batch_size=32, shard=96).tapped((TAP,)).teacher(ids, 0, (), {})
    assert expected.keys() == got.keys() == {"logits", f"tap:{TAP}"}
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


def test_half_precision_is_within_its_rounding(tmp_path):
    task = small_task()
    ids = np.arange(96)
    expected = live(task).tapped((TAP,)).teacher(ids, 0, plain(task, ids), {})
    got = cache(tmp_path, live(task), features="float16").tapped((TAP,)).teacher(ids, 0, (), {})
    for name, value in expected.items():
        assert 0 < (value - got[name]).abs().max() <= value.abs().max() * 2**-11 + 1e-6, name


def test_eight_bits_are_within_half_a_step_of_their_channel(tmp_path):
    """Oracle 8 within the bound of quantization: a scale for each channel, and channels differ a lot."""
    task = small_task()
    teacher, ids = live(task), np.arange(96)
    with torch.no_grad():
        teacher.model.features[4].weight[3] *= 100
    expected = teacher.tapped((TAP,)).teacher(ids, 0, plain(task, ids), {})[f"tap:{TAP}"]
    taps = CachedTaps(tmp_path, teacher, IDENTITY, (TAP,), dtype="int8")
    got = taps.teacher(ids, 0, (), {})[f"tap:{TAP}"]
    step = expected.abs().amax((0, 2, 3)) / 127
    assert ((expected - got).abs().amax((0, 2, 3)) <= step / 2 + 1e-6 * expected.abs().amax((0, 2, 3))).all()
    assert step.max() > 10 * step.median(), "one scale for all channels would have been as good"
    assert [np.load(file).dtype for file in tmp_path.glob("*/view0.0.0.npy")] == [np.int8]


@pytest.mark.parametrize("shape", [(6, 5), (6, 7, 5), (6, 5, 2, 3), (6,)])
def test_eight_bits_take_maps_tokens_vectors_and_numbers(shape):
    from limbeck.mechanics.signals import _int8

    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array[..., 0] = 0
    stored = _int8(array)
    channels = {1: 1, 2: 5, 3: 5, 4: 5}[len(shape)]
    assert stored.scale is not None and stored.scale.size == channels
    assert np.abs(stored.rows(np.arange(6)) - array).max() <= stored.scale.max() / 2 + 1e-7


def test_a_cache_of_something_else_is_refused_by_name(tmp_path):
    task = small_task()
    cache(tmp_path, live(task))
    for key in IDENTITY:
        with pytest.raises(ConfigError, match=f"made with another {key}.*Delete the folder"):
            cache(tmp_path, live(task), identity=IDENTITY | {key: "other"})
    with pytest.raises(ConfigError, match="another dtype"):
        cache(tmp_path, live(task), dtype="float32")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="manifest that isn't JSON.*Delete the folder"):
        cache(tmp_path, live(task))


def test_a_cut_off_cache_is_completed_and_whole_shards_are_not_made_again(tmp_path):
    task, seen = small_task(), []
    model = rebuild(teacher_candidate(task).torch_form, task)
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path, LiveTeacher(task, Counting(model, dies_at=2 + 80))).teacher(np.array([0]), 0, (), {})  # 2 for the shapes
    assert sorted(p.name for p in tmp_path.glob("shard.*")) == ["shard.view0.0.json", "shard.view0.1.json"]
    counted = Counting(model)
    cached = cache(tmp_path, LiveTeacher(task, counted), progress=lambda *at: seen.append(at))
    got = cached.teacher(np.arange(96), 0, (), {})["logits"]
    assert counted.asked == 2 + 16  # the last, partial shard alone
    assert seen == [(16.0, 16.0, "teacher's answers to view 0")]
    assert torch.allclose(got, live(task).teacher(np.arange(96), 0, plain(task, np.arange(96)), {})["logits"], atol=2e-2)


def _cut(path: Path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("view0.1.0.npy", _cut, "view0.1.0.npy has 428 bytes of 448: it was cut off"),
        ("view0.1.0.npy", _flip, "view0.1.0.npy was changed: its bytes don't have their hash"),
        ("view0.1.0.npy", Path.unlink, "view0.1.0.npy is missing"),
        ("shard.view0.1.json", _cut, "its record can't be read"),
        ("shard.view0.1.json", Path.unlink, None),  # as a kill between the arrays and their record leaves it
    ],
)
def test_a_damaged_shard_is_found_and_made_again_with_a_note(tmp_path, file, damage, reason):
    task, notes = small_task(), []
    cache(tmp_path, live(task)).teacher(np.array([0]), 0, (), {})
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    damage(tmp_path / file)
    counted = Counting(live(task).model)
    cache(tmp_path, LiveTeacher(task, counted), note=lambda event, **data: notes.append((event, data))).teacher(np.array([0]), 0, (), {})
    assert counted.asked == 2 + 40, "that shard alone is made again"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == whole
    assert [(n[0], n[1]["view"], n[1]["shard"]) for n in notes] == ([("teacher's answers are made again", 0, 1)] if reason else [])
    assert not reason or notes[0][1]["reason"].startswith(reason), notes


KILLED = """
import os, signal, sys
from pathlib import Path
from limbeck.mechanics import shards
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.signals import CachedTeacher, LiveTeacher
from limbeck.testing import small_task
import numpy as np
task, left, write = small_task(), int(sys.argv[2]), shards.write
def dying(path, data):
    global left
    if left == 0:
        path.with_name(f".{path.name}.1.tmp").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(path, data)
shards.write = dying
teacher = LiveTeacher(task, rebuild(teacher_candidate(task).torch_form, task))
CachedTeacher(Path(sys.argv[1]), teacher, {"teacher": "t", "data": "d", "views": None}, shard=40).teacher(np.array([0]), 0, (), {})
"""


def test_killed_at_a_write_it_goes_on_to_the_same_bytes(tmp_path):
    """The writes are: manifest, then array and record of each of three shards. A kill in the middle of the fourth leaves one shard."""
    task = small_task()
    cache(tmp_path / "whole", live(task)).teacher(np.array([0]), 0, (), {})
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), "3"], capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in (tmp_path / "killed").glob("shard.*")] == ["shard.view0.0.json"]
    counted = Counting(live(task).model)
    cache(tmp_path / "killed", LiveTeacher(task, counted)).teacher(np.array([0]), 0, (), {})
    assert counted.asked == 2 + 56
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if not p.name.startswith(".")} for name in ("whole", "killed")]
    assert files[0] == files[1]


def _reads(folder: str, out) -> None:
    task = small_task()
    out.put(cache(Path(folder), live(task)).teacher(np.arange(96), 0, (), {})["logits"].numpy().tobytes())


def test_several_processes_make_and_read_it_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=_reads, args=(str(tmp_path), out)) for _ in range(3)]
    for process in processes:
        process.start()
    got = {out.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(got) == 1 and len(json.loads((tmp_path / "shard.view0.2.json").read_text())) == 1


def test_reading_holds_as_much_memory_at_ten_times_the_samples(tmp_path):
    """Arrays are memory-mapped: what a process allocates to read an epoch doesn't grow with the data set."""

    def peak(samples: int) -> int:
        generator = torch.Generator().manual_seed(0)
        data = TensorDataset(torch.randn(samples, 8, generator=generator), torch.zeros(samples, dtype=torch.long))
        task = replace(small_task(), models={"teacher": lambda: nn.Linear(8, 256)}, weights={}, splits={"train": data, "validation": data, "test": data})
        made = [CachedTeacher(tmp_path / str(samples), LiveTeacher(task, nn.Linear(8, 256)), IDENTITY, shard=4000) for _ in range(2)]
        made[0].teacher(np.array([0]), 0, (), {})
        order = np.random.default_rng(0).permutation(samples)
        tracemalloc.start()
        for start in range(0, samples, 500):
            made[1].teacher(order[start : start + 500], 0, (), {})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(2000), peak(20000)
    file = (tmp_path / "20000" / "view0.0.0.npy").stat().st_size
    assert large < 1.2 * small + 20_000 and large < file, (small, large, file)


def test_nan_in_the_teachers_outputs_is_refused_with_the_samples(tmp_path):
    task = small_task()

    class Broken(nn.Module):
        def forward(self, x):
            out = x.flatten(1)[:, :4].clone()
            out[x.flatten(1)[:, 0] > 2.5] = float("nan")
            return out

    images = Reader(task, "train").batch(np.arange(96))[0].flatten(1)[:, 0]
    bad = torch.nonzero(images > 2.5).flatten().tolist()
    assert 0 < len(bad) <= 8
    with pytest.raises(TaskError, match=f"output 'logits' holds NaN or Inf for {len(bad)} samples? of the training split, number {', '.join(map(str, bad))}. Look"):
        cache(tmp_path, LiveTeacher(task, Broken()), shard=96).teacher(np.array([0]), 0, (), {})
    assert not list(tmp_path.glob("shard.*"))


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    task = small_task()
    teacher = live(task)
    teacher.model.head.bias.data[0] = -1e9
    with pytest.raises(ConfigError, match="'logits' reaches 1e.09, more than float16 holds. Take dtype float32"):
        cache(tmp_path, teacher).teacher(np.array([0]), 0, (), {})


def test_answers_of_several_sizes_and_a_stop_are_said(tmp_path):
    task = small_task()

    class Ragged(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, : 4 if len(x) == 2 else 5]

    with pytest.raises(ConfigError, match=r"'logits' is \[4\] for the first samples and \[5\] for those from 0: a cache needs one size. Pad"):
        cache(tmp_path / "a", LiveTeacher(task, Ragged())).teacher(np.array([0]), 0, (), {})
    with pytest.raises(Interrupted, match="those that are whole are kept"):
        cache(tmp_path / "b", live(task), stop=lambda: True).teacher(np.array([0]), 0, (), {})


def test_terms_with_taps_are_served_from_the_cache_and_the_teacher_rests(tmp_path):
    task = small_task()
    counted = Counting(live(task).model)
    student, ids = task.models["small"](), np.arange(8)
    objective = 0.5 * task_loss() + 1.0 * similarity_preserving(student=TAP, teacher=f"model.{TAP}") + 1.0 * hint(student=TAP, teacher=f"model.{TAP}")
    batch = Reader(task, "train").batch(ids)
    expected = objective.bind(task, LiveTeacher(task, counted), student)(student.eval(), batch, ids)[0]
    bound = objective.bind(task, cache(tmp_path, LiveTeacher(task, counted), features="float32"), student)
    before = counted.asked
    got = bound(student.eval(), batch, ids)[0]
    assert counted.asked == before and torch.allclose(expected, got, atol=1e-5)
    assert not list(tmp_path.glob("*.npy")), "whole outputs were kept although no term reads them"
    both = (objective + 1.0 * kd()).bind(task, cache(tmp_path, LiveTeacher(task, counted), features="float32"), student)
    assert both.see(student, batch, ids).teacher.keys() == {"logits", f"tap:model.{TAP}"} and list(tmp_path.glob("*.npy"))
    assert isinstance(cache(tmp_path, live(task)).serving(Reads(taps=(TAP,))), LiveTeacher)
