"""teacher = "auto:cka": layers matched by what they hold."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import limbeck.mechanics.alignment as alignment
from limbeck import LiveTeacher
from limbeck.core.errors import ConfigError
from limbeck.core.plan import Training
from limbeck.mechanics.alignment import calls, linear_cka, vectors
from limbeck.mechanics.build import rebuild, teacher_candidate
from limbeck.mechanics.data import batch_of
from limbeck.mechanics.families.convnet import convnet
from limbeck.mechanics.families.encoder import encoder
from limbeck.mechanics.families.vit import vit
from limbeck.mechanics.matching import layers, match_by_cka, resolved, table
from limbeck.mechanics.quantizers import quantize_edits, set_face_
from limbeck.mechanics.signals import CachedTeacher
from limbeck.mechanics.terms import attention_maps, hint, similarity_preserving
from limbeck.mechanics.terms.features import Pair, answering
from limbeck.mechanics.train import fit
from limbeck.pipeline.context import FileCheckpoint, QuietLog
from limbeck.testing import SmallNet, small_task

IMAGES = (torch.zeros(2, 1, 8, 8),)


def rotation(width: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e5])
def test_a_rotation_a_scale_and_a_shift_change_nothing(scale):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(40, width, generator=generator, dtype=torch.float64) for width in (7, 12))
    value = linear_cka(a, b)
    assert linear_cka(scale * a @ rotation(7, 1) + 5 * scale, b @ rotation(12, 2)) == pytest.approx(value, abs=1e-6)
    assert linear_cka(a, scale * a @ rotation(7, 3)) == pytest.approx(1, abs=1e-6) and linear_cka(b, a) == pytest.approx(value)
    skewed = a @ torch.diag(torch.tensor([100.0, *[1.0] * 6], dtype=torch.float64))
    assert abs(linear_cka(skewed, b) - value) > 1e-3, "CKA isn't invariant to any linear map"


def test_it_equals_its_definition_by_sums_over_four_different_samples():
    """Song et al.: the mean over all (i, j, q, r) that differ of K_ij · (L_ij + L_qr − 2 L_iq)."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, width, generator=generator, dtype=torch.float64) for width in (3, 5))

    def hsic(x, y):
        k, l, total, count = x @ x.T, y @ y.T, 0.0, 0  # noqa: E741
        for i in range(7):
            for j in range(7):
                for q in range(7):
                    for r in range(7):
                        if len({i, j, q, r}) == 4:
                            total, count = total + (k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])).item(), count + 1
        return total / count

    a, b = a - a.mean(0), b - b.mean(0)
    assert linear_cka(a, b) == pytest.approx(hsic(a, b) / (hsic(a, a) * hsic(b, b)) ** 0.5, abs=1e-9)


def test_unrelated_features_are_about_zero_however_wide_they_are():
    generator = torch.Generator().manual_seed(0)
    values = [linear_cka(torch.randn(64, 500, generator=generator), torch.randn(64, 500, generator=generator)) for _ in range(20)]
    assert abs(np.mean(values)) < 0.02
    assert linear_cka(torch.ones(20, 3), torch.randn(20, 3)) == 0, "one side tells no sample from another"
    with pytest.raises(ConfigError, match="needs at least 4, got 3 and 3"):
        linear_cka(torch.ones(3, 2), torch.ones(3, 2))


class Chain(nn.Module):
    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(6, 4)

    def forward(self, image):
        for block in self.blocks:
            image = block(image)
        return self.head(image.mean((2, 3)))


def residual(width: int = 6) -> nn.Module:
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Conv2d(width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, width, 3, padding=1)

        def forward(self, x):
            return x + 0.3 * self.outer(torch.relu(self.inner(x)))

    return Block()


@pytest.mark.parametrize("kept", [[0, 2, 3, 6], [0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 6]])
def test_a_copy_with_layers_dropped_is_matched_to_its_originals(kept):
    torch.manual_seed(0)
    teacher = Chain(nn.Conv2d(1, 6, 3, padding=1), *[residual() for _ in range(6)])
    student = Chain(*[teacher.blocks[i] for i in kept])
    both = [layers(m, IMAGES, {}) for m in (student, teacher)]
    asked = [f"blocks.{i}.inner" for i in range(1, len(kept))]
    found = match_by_cka([*asked, "blocks.0"], *both, calls(small_task()))
    assert [found[path].teacher.path for path in asked] == [f"blocks.{i}.inner" for i in kept[1:]], table(list(found.values()))
    assert found["blocks.0"].teacher.path == "blocks.0" and found["blocks.0"].cka == pytest.approx(1, abs=1e-9)
    by_depth = resolved([f"auto:{path}" for path in asked], *both)[1]
    assert kept == [0, 2, 3, 6] or list(by_depth.values()) != [f"blocks.{i}.inner" for i in kept[1:]], "shape and depth alone take others"


def test_equal_features_are_settled_as_auto_settles():
    torch.manual_seed(0)
    model = SmallNet()
    both = layers(model, IMAGES, {})
    for path in ("features.5", "features", "head", "in:head", "in:features.3"):
        found = match_by_cka([path], both, both, calls(small_task()))[path]
        assert found.teacher.path == path and found.cka == pytest.approx(1)


def test_a_map_answers_to_tokens():
    torch.manual_seed(0)
    student = vit(channels=1, classes=4, image=[8, 8], patch=2, width=8, depth=2, heads=2)
    places = [layers(m, IMAGES, {}) for m in (student, convnet(channels=1, classes=4, width=4, depth=2, size=8))]
    found = match_by_cka(["layers.1"], *places, calls(small_task()))["layers.1"]
    assert len(found.student.shape) == 3 and -0.2 < found.cka <= 1 and found.teacher.path in {layer.path for layer in places[1]}


def test_padding_is_left_out_of_a_texts_mean():
    torch.manual_seed(0)
    model = encoder(vocabulary=9, classes=2, width=8, layers=1, heads=2, length=4)
    ids, mask = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[1, 1, 1, 0]])
    (_, padded), *_ = vectors(model, {"in:norm": 8}, [((), {"input_ids": ids, "attention_mask": mask})])
    (_, short), *_ = vectors(model, {"in:norm": 8}, [((), {"input_ids": ids[:, :3], "attention_mask": mask[:, :3]})])
    torch.testing.assert_close(padded, short)
    assert list(vectors(model, {"in:tokens": 1}, [((), {"input_ids": ids})])) == [], "token ids are no features"


def test_groups_modes_and_hooks(monkeypatch):
    torch.manual_seed(0)
    model, given = SmallNet().train(), calls(small_task())
    widths = {"features.0": 16, "in:head": 32, "head": 4, "features.3": 32}
    one = dict(vectors(model, widths, given))
    monkeypatch.setattr(alignment, "GROUP_BYTES", 4 * 96 * 20)  # two layers at once at most
    several = dict(vectors(model, widths, given))
    assert one.keys() == several.keys() == widths.keys() and all(torch.equal(one[k], several[k]) for k in widths)
    assert model.training and not any(m._forward_hooks for m in model.modules()) and len(one["head"]) == 96


def test_a_term_says_it_and_the_match_is_told(tmp_path):
    task = small_task()
    teacher = rebuild(teacher_candidate(task).torch_form, task)
    student = rebuild(teacher_candidate(task).torch_form, task)
    objective = 1.0 * hint(student="features.5", teacher="auto:cka") + 1.0 * similarity_preserving(student="features.2")
    for signals in (LiveTeacher(task, teacher), CachedTeacher(tmp_path / "cache", LiveTeacher(task, teacher), {"weights": "x"})):
        bound = objective.bind(task, signals, student)
        told = {m.student.path: (m.teacher.path, m.cka) for m in bound.matches}
        assert told["features.5"] == ("features.5", pytest.approx(1)) and told["features.2"] == ("features.2", None)
        seen = bound.see(student, batch_of(task, "train", range(4)), np.arange(4))
        assert torch.equal(seen.tap("teacher", answering("features.5", "auto:cka")), seen.tap("teacher", "features.5"))
    lines = table(bound.matches).splitlines()
    assert lines[0].endswith("| depth | CKA |") and any("`features.5`" in line and line.endswith("| 1.000 |") for line in lines) and any(line.endswith("|  |") for line in lines)
    log = QuietLog()
    fit(student, bound, Training(epochs=1, batch_size=32), seed=0, checkpoint=FileCheckpoint(tmp_path / "c"), log=log)
    assert [data.get("cka") for event, data in log.events if event == "layers matched"] == [None, 1.0]


def test_modules_inside_are_found_from_what_was_matched():
    pair = Pair(student="layers.0.attention", teacher="auto:cka")
    term = attention_maps(pairs=(pair,), heads=2)
    assert all(tap.startswith("auto:cka:layers.0.attention>") for tap in term.teacher_taps)
    torch.manual_seed(0)
    model = vit(channels=1, classes=4, image=[8, 8], patch=2, width=8, depth=2, heads=2)
    both = layers(model, IMAGES, {})
    _, paths = resolved(term.teacher_taps, both, both, lambda: calls(small_task()))
    assert {p.rpartition(".")[0] for p in paths.values()} == {"layers.0.attention"}


def test_what_cannot_be_compared_is_said():
    both = layers(SmallNet(), IMAGES, {})
    with pytest.raises(ConfigError, match=r"needs at least 16, got 12"):
        calls(small_task(samples=12))
    with pytest.raises(ConfigError, match="the student has no layer 'featurs.2' that runs.*Did you mean 'features.2'"):
        match_by_cka(["featurs.2"], both, both, calls(small_task()))


def test_pooling_isnt_taken_for_the_models_own_operator():
    """A quantizer at the one mean of a forward counts the means: those that pool a tap's map are none of them."""

    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).mean((2, 3)))

    model = Pools().eval()
    quantize_edits(model, [{"module": "", "port": "operator", "operator": "mean", "ordinal": 0, "count": 1, "bits": 8}])
    set_face_(model, "float")
    images = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = dict(vectors(model, {"conv": 4, "head": 2}, [((images,), {})]))
    assert torch.allclose(found["conv"], model.conv(images).mean((2, 3)), atol=1e-6) and found["head"].shape == (16, 2)
