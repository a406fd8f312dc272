"""Corruptions: nothing at strength 0, more at every strength, the same for the same sample, and what is told of a task's samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import limbeck
from limbeck.core.errors import ConfigError, TaskError
from limbeck.intake.metrics import accuracy, perplexity
from limbeck.mechanics.shifts import STRENGTHS, corrupted, kinds_of, why_no_kinds
from limbeck.mechanics.shifts.images import LEVELS, level
from limbeck.testing import small_task, small_text_task

TEXT = "The quick brown fox jumps over the lazy dog while seven wizards box with heavy liquor jugs at night"


def smooth(channels: int = 1, side: int = 24, seed: int = 0) -> np.ndarray:
    """A ramp with a few waves on it, in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (rng.integers(1, 3) * x + rng.integers(1, 3) * y) + 6 * rng.random()) for _ in range(channels)]
    ramp = (x * np.cos(seed) + y * np.sin(seed) + 1) / 2.5
    return np.clip(0.8 * ramp + 0.1 * (np.stack(waves) + 1), 0, 1).astype(np.float32)


def all_kinds() -> list[tuple[str, object, object]]:
    """Every kind that limbeck brings, with a sample."""
    song = np.sin(np.arange(256) / 5).astype(np.float32)
    ids = {"input_ids": torch.tensor([1, *range(10, 30), 2, 0, 0]), "attention_mask": torch.tensor([1] * 22 + [0] * 2), "label": 3}
    found = [(name, f, (torch.from_numpy(smooth()), 3)) for name, f in limbeck.image_shifts().items()]
    found += [(name, f, (song, 3)) for name, f in limbeck.series_shifts().items()]
    found += [(name, f, {"text": TEXT, "label": 3}) for name, f in limbeck.text_shifts().items()]
    return found + [(name, f, ids) for name, f in limbeck.token_shifts(pad_id=0, keep_ids=(1, 2)).items()]


def flat(sample: object) -> list:
    values = list(sample.values()) if isinstance(sample, dict) else list(sample)
    return [v.tolist() if isinstance(v, (torch.Tensor, np.ndarray)) else v for v in values]


@pytest.mark.parametrize("name, kind, sample", all_kinds(), ids=[f"{i}-{n}" for i, (n, _, _) in enumerate(all_kinds())])
def test_a_kind_holds_what_it_promises(name, kind, sample):
    nothing = corrupted(name, kind, sample, number=5, strength=0)
    assert flat(nothing) == flat(sample)
    before = flat(sample)
    first, again, other = (corrupted(name, kind, sample, number=n, strength=3) for n in (5, 5, 6))
    assert flat(first) == flat(again) != flat(sample)
    assert flat(sample) == before, "the sample itself was changed"
    drawn = name not in ("blur", "contrast", "jpeg", "clipping", "gain")
    assert (flat(first) != flat(other)) == drawn, "what is drawn follows from the sample's number"
    value, changed = (next(iter(s.values())) if isinstance(s, dict) else s[0] for s in (sample, first))
    assert type(value) is type(changed)
    if not isinstance(value, str):
        assert (value.dtype, value.shape) == (changed.dtype, changed.shape)
    assert flat(first)[-1] == 3, "the label stays"
    with pytest.raises(ConfigError, match="strength"):
        kind(sample, 6, np.random.default_rng(0))


def test_images_are_further_off_at_every_strength():
    for name, kind in limbeck.image_shifts().items():
        far = [np.mean([np.abs(corrupted(name, kind, smooth(seed=i), number=i, strength=s) - smooth(seed=i)).mean() for i in range(40)]) for s in (0, *STRENGTHS)]
        assert far == sorted(far) and far[0] == 0 and len(set(far)) == 6, (name, far)


def test_series_are_further_off_at_every_strength():
    song = np.sin(np.arange(512) / 7)[None] * 3
    for name, kind in limbeck.series_shifts().items():
        far = [np.abs(corrupted(name, kind, song, number=0, strength=s) - song).mean() for s in (0, *STRENGTHS)]
        assert far == sorted(far) and len(set(far)) == 6, (name, far)


def test_noise_of_a_series_has_the_power_that_it_says():
    song = np.sin(np.arange(20000) / 7) + 4
    noise = corrupted("noise", limbeck.series_shifts()["noise"], song, number=0, strength=4) - song
    assert 10 * np.log10(song.var() / noise.var()) == pytest.approx(10, abs=0.2)


def test_text_is_touched_more_at_every_strength():
    words, kinds = TEXT.split(), limbeck.text_shifts()
    shown = {name: [corrupted(name, kind, TEXT, number=1, strength=s).split() for s in STRENGTHS] for name, kind in kinds.items()}
    assert [sum(a != b for a, b in zip(words, found, strict=True)) for found in shown["typos"]] == [1, 2, 4, 6, 8]
    assert [len(words) - len(found) for found in shown["drops"]] == [1, 2, 3, 4, 6]
    assert all(sorted(found) == sorted(words) != found for found in shown["swaps"]) and all(found != words for found in shown["swaps"])
    assert corrupted("drops", kinds["drops"], "one", number=0, strength=5) == "one"
    assert corrupted("swaps", kinds["swaps"], "one", number=0, strength=5) == "one"


def test_special_tokens_and_padding_keep_their_places():
    sample = {
        "input_ids": torch.tensor([1, 11, 12, 13, 14, 15, 16, 2, 0, 0]),
        "attention_mask": torch.tensor([1] * 8 + [0] * 2),
        "kinds": torch.tensor([0] * 4 + [1] * 4 + [0] * 2),
    }
    kinds = limbeck.token_shifts(pad_id=0, keep_ids=(1, 2))
    dropped = corrupted("drops", kinds["drops"], sample, number=0, strength=5)
    ids, mask = dropped["input_ids"].tolist(), dropped["attention_mask"].tolist()
    count = sum(mask)
    assert count == 6 and ids[0] == 1 and ids[count - 1] == 2 and ids[count:] == [0] * 4 and mask == [1] * 6 + [0] * 4
    assert dropped["kinds"].tolist()[: count - 1] == [0 if i < 14 else 1 for i in ids[: count - 1]], "what stands beside a token moves with it"
    swapped = corrupted("swaps", kinds["swaps"], sample, number=0, strength=5)["input_ids"].tolist()
    assert sorted(swapped) == sorted(sample["input_ids"].tolist()) and (swapped[0], swapped[7:]) == (1, [2, 0, 0]) and swapped != sample["input_ids"].tolist()


def test_padding_at_the_front_stays_at_the_front():
    sample = (torch.tensor([0, 0, 11, 12, 13, 14]), 1)
    dropped = corrupted("drops", limbeck.token_shifts(pad_id=0)["drops"], sample, number=0, strength=5)[0].tolist()
    assert dropped[:4] == [0, 0, 0, 0] and set(dropped[4:]) < {11, 12, 13, 14}


def test_without_padding_the_last_token_is_repeated():
    dropped = corrupted("drops", limbeck.token_shifts(keep_ids=(1, 2))["drops"], (np.array([1, 11, 12, 13, 14, 2]), 0), number=0, strength=5)[0].tolist()
    assert dropped[0] == 1 and dropped[-1] == 2 and dropped[-2] == dropped[-3]


def test_a_range_is_kept_whatever_its_form():
    bytes_ = (smooth(3) * 255).astype(np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.1])
    normal = ((smooth(3) - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    for name in LEVELS:
        plain = corrupted(name, limbeck.image_shifts()[name], smooth(3), number=1, strength=4)
        eight = corrupted(name, limbeck.image_shifts(high=255)[name], bytes_, number=1, strength=4)
        normalised = corrupted(name, limbeck.image_shifts(mean=mean.tolist(), std=std.tolist())[name], normal, number=1, strength=4)
        last = corrupted(name, limbeck.image_shifts(layout="HWC")[name], np.moveaxis(smooth(3), 0, -1), number=1, strength=4)
        assert eight.dtype == np.uint8 and np.abs(eight / 255 - plain).max() < 0.1 and plain.min() >= 0 and plain.max() <= 1
        assert np.allclose(normalised * std[:, None, None] + mean[:, None, None], plain, atol=0.01 if name == "jpeg" else 1e-5)
        assert np.allclose(np.moveaxis(last, -1, 0), plain, atol=1e-6)


def test_strengths_are_the_published_ones_at_both_sizes():
    assert [level("noise", s, 32) for s in STRENGTHS] == pytest.approx([0.04, 0.06, 0.08, 0.09, 0.10])
    assert [level("noise", s, 500) for s in STRENGTHS] == pytest.approx([0.08, 0.12, 0.18, 0.26, 0.38])
    assert [level("jpeg", s, 8) for s in STRENGTHS] == [80, 65, 58, 50, 40]
    assert 1.0 < level("blur", 5, 64) < 6.0


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: limbeck.image_shifts(low=1, high=0), "below high"),
        (lambda: limbeck.image_shifts(mean=0.5), "together"),
        (lambda: limbeck.image_shifts(mean=0.5, std=0), "std must be > 0"),
        (lambda: limbeck.image_shifts(layout="WH"), "layout"),
        (lambda: limbeck.image_shifts()["noise"]((np.zeros((2, 3)), 0), 1, np.random.default_rng(0)), "must get images CHW"),
        (lambda: limbeck.image_shifts(low=(0, 0))["noise"]((np.zeros((3, 8, 8)), 0), 1, np.random.default_rng(0)), "one a channel"),
        (lambda: limbeck.text_shifts()["typos"]((np.zeros(3), 0), 1, np.random.default_rng(0)), "token_shifts"),
        (lambda: limbeck.token_shifts()["drops"](("words", 0), 1, np.random.default_rng(0)), "text_shifts"),
        (lambda: limbeck.series_shifts(input="wave")["noise"]({"song": np.zeros(9)}, 1, np.random.default_rng(0)), "'song'"),
        (lambda: limbeck.series_shifts()["noise"]({"a": np.zeros(9), "b": np.zeros(9)}, 1, np.random.default_rng(0)), "Name the one"),
        (lambda: limbeck.series_shifts(input=4)["noise"]((np.zeros(9), 1), 1, np.random.default_rng(0)), "below 2"),
    ],
)
def test_what_can_not_be_is_said(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def task_of(samples: list, **more):
    return limbeck.Task(splits={"test": samples}, metric=accuracy(), **more)


def test_kinds_are_derived_where_samples_are_plain():
    images = kinds_of(small_task(), "test")
    assert list(images.kinds) == list(LEVELS) and images.derived and "images CHW" in images.assumed
    unit = kinds_of(task_of([(torch.rand(3, 8, 8), 0) for _ in range(8)]), "test")
    assert unit.assumed == "images CHW, black 0, white 1"
    assert kinds_of(task_of([(torch.zeros(1, 8, 8, dtype=torch.uint8), 0)] * 3), "test").assumed == "images CHW, black 0, white 255"
    assert list(kinds_of(task_of([("some words", 0)] * 3), "test").kinds) == ["typos", "drops", "swaps"]
    assert list(kinds_of(task_of([{"wave": torch.randn(2, 400), "label": 1}] * 3), "test").kinds) == ["noise", "clipping", "gain"]
    assert list(kinds_of(small_text_task(), "test").kinds) == ["drops", "swaps"]


def test_an_image_is_not_moved_away_from_the_label_of_its_pixels():
    mask = torch.zeros(8, 8, dtype=torch.int64)
    for sample in ((torch.rand(3, 8, 8), mask), {"image": torch.rand(3, 8, 8), "target": mask[None].numpy()}):
        found = kinds_of(task_of([sample] * 8), "test")
        assert list(found.kinds) == [name for name in LEVELS if name != "translation"] and "wouldn't move" in found.left_out["translation"]
    assert "translation" in kinds_of(task_of([(torch.rand(3, 8, 8), torch.rand(8))] * 8), "test").kinds, "eight numbers are no map"


def test_special_tokens_and_padding_are_derived():
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(40):
        n = int(rng.integers(3, 8))
        samples.append(
            {"input_ids": torch.tensor([101, *rng.integers(200, 900, n).tolist(), 102, *[0] * (8 - n)]), "attention_mask": torch.tensor([1] * (n + 2) + [0] * (8 - n)), "label": 0}
        )
    masked = kinds_of(task_of(samples), "test").kinds["drops"]
    assert (masked.pad_id, masked.keep_ids) == (0, (101, 102))
    bare = kinds_of(task_of([(s["input_ids"], 0) for s in samples]), "test").kinds["drops"]
    assert (bare.pad_id, bare.keep_ids) == (0, (101, 102))


@pytest.mark.parametrize(
    "samples",
    [
        [(torch.randn(12), 0)] * 3,  # a row of a table
        [(torch.randn(20, 30), 0)] * 3,  # an image without channels, or a table
        [(torch.full((1, 8, 8), 2.0), 0)] * 3,  # never varies
        [({"nested": 1}, 0)] * 3,
        [({"a": torch.randn(1, 8, 8)}, 0)] * 3,
        [{"a": torch.randn(1, 8, 8), "b": torch.randn(1, 8, 8)}] * 3,
        [],
    ],
    ids=["table", "flat", "constant", "nested", "nested tensor", "two inputs", "empty"],
)
def test_what_is_not_plain_asks_for_shifts(samples):
    assert "image_shifts" in why_no_kinds(task_of(samples), "test")
    if samples:
        named = task_of(samples, shifts={"mine": lambda sample, strength, rng: sample})
        assert why_no_kinds(named, "test") == "" and not kinds_of(named, "test").derived


def test_labels_by_place_are_not_torn_from_their_tokens():
    assert "labels tokens" in why_no_kinds(replace(small_text_task(), metric=perplexity()), "test")


def test_functions_of_a_users_own_are_called_with_their_own_draws():
    seen = []
    corrupted("mine", lambda sample, strength, rng: seen.append((sample, strength, rng.integers(1000))), (1, 2), number=7, strength=2)
    corrupted("mine", lambda sample, strength, rng: seen.append((sample, strength, rng.integers(1000))), (1, 2), number=8, strength=2)
    corrupted("yours", lambda sample, strength, rng: seen.append((sample, strength, rng.integers(1000))), (1, 2), number=7, strength=2)
    assert [s[:2] for s in seen] == [((1, 2), 2)] * 3 and len({s[2] for s in seen}) == 3
    with pytest.raises(TaskError, match=r"shifts\['mine'\].*ZeroDivisionError"):
        corrupted("mine", lambda sample, strength, rng: sample / 0, 1, number=7, strength=2)
    with pytest.raises(TaskError, match="dict of functions"):
        kinds_of(replace(small_task(), shifts={"fog": 3}), "test")


def test_a_kind_whose_library_is_missing_is_left_out(monkeypatch):
    monkeypatch.setattr("limbeck.mechanics.shifts.derive.installed", lambda name: None)
    found = kinds_of(small_task(), "test")
    assert "jpeg" not in found.kinds and "pip install pillow" in found.left_out["jpeg"]
