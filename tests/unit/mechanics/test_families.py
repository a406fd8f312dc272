"""The students that limbeck brings: sizes, gradients, export, and arguments read off the data."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.core.errors import ConfigError
from limbeck.mechanics.families import ALL, family
from limbeck.mechanics.families.fit import fitted

IMAGE = {"x": torch.zeros(2, 3, 20, 16)}
TOKENS = {"input_ids": torch.tensor([[1, 2, 9, 0], [3, 4, 5, 6]]), "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}
FLOAT_OUTPUT = {"logits": torch.zeros(2, 5)}
TOKEN_OUTPUT = {"logits": torch.zeros(2, 4, 10)}
CASES = {
    "convnet": ({"width": 8}, IMAGE),
    "decoder": ({"width": 16, "layers": 1, "heads": 2}, TOKENS),
    "encoder": ({"vocabulary": 10, "width": 16, "layers": 1, "heads": 2}, TOKENS),
    "mlp": ({"widths": [12]}, IMAGE),
    "resnet": ({"widths": [8, 16], "blocks": [1, 2]}, IMAGE),
    "vit": ({"width": 8, "depth": 1, "heads": 2}, IMAGE),
}


def outputs(name: str) -> dict[str, torch.Tensor]:
    return TOKEN_OUTPUT if name == "decoder" else FLOAT_OUTPUT


def made(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    given, inputs = CASES[name]
    torch.manual_seed(0)
    return family(name)(**fitted(name, given, inputs, outputs(name))), tuple(torch.randn_like(t) if t.is_floating_point() else t for t in inputs.values())


def test_all_is_sorted_and_every_argument_is_by_keyword() -> None:
    assert [f.__name__ for f in ALL] == sorted(CASES)
    assert all(p.kind is p.KEYWORD_ONLY for f in ALL for p in inspect.signature(f).parameters.values())


@pytest.mark.parametrize("name", CASES)
def test_arguments_survive_json_and_rebuild_the_same_shapes(name: str) -> None:
    kwargs = fitted(name, *CASES[name], outputs(name))
    again = family(name)(**json.loads(json.dumps(kwargs)))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in made(name)[0].state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_learns(name: str) -> None:
    model, inputs = made(name)
    out = model.train()(*inputs)
    assert out.shape == outputs(name)["logits"].shape
    out.square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before softmax shifts all scores of a query alike; training-mode batch norm hides nothing here
    assert [n for n in dead if not n.endswith("attention.key.bias")] == []


@pytest.mark.parametrize("name", CASES)
def test_exports_with_a_free_batch(name: str, tmp_path) -> None:
    import onnxruntime

    model, inputs = made(name)
    model.eval()
    path = tmp_path / "m.onnx"
    torch.onnx.export(model, inputs, path, dynamo=True, dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wider = [torch.cat([t, t.flip(0), t[:1]]) for t in inputs]
    got = session.run(None, {spec.name: t.numpy() for spec, t in zip(session.get_inputs(), wider, strict=True)})[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, model(*wider).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["convnet", "resnet"])
@pytest.mark.parametrize("side", [1, 5, 33])
def test_images_of_any_size_go_in(name: str, side: int) -> None:
    model, _ = made(name)
    assert model.eval()(torch.zeros(2, 3, side, side + 2)).shape == (2, 5)


@pytest.mark.parametrize(("size", "strides"), [(4, [1, 1, 1, 1]), (7, [1, 2, 1, 1]), (8, [1, 2, 1, 1]), (28, [1, 2, 2, 2]), (14, [1, 2, 2, 1])])
def test_convnet_halves_only_while_four_pixels_are_left(size: int, strides: list[int]) -> None:
    model = family("convnet")(channels=1, classes=2, width=4, depth=4, size=size)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.stride[0] for m in convolutions] == strides
    assert convolutions[-1].out_channels == 4 * 2 ** sum(s == 2 for s in strides)


def test_resnet8_has_the_papers_parameters() -> None:
    # by hand: stem 3·16·9 + 32; stages 2·16·16·9, 16·32·9 + 32·32·9 + 16·32, 32·64·9 + 64·64·9 + 32·64; two norms a block, one a shortcut; head 64·10 + 10
    convolutions = 432 + 4608 + 4608 + 9216 + 512 + 18432 + 36864 + 2048
    norms = 2 * (16 + 2 * 16 + 3 * 32 + 3 * 64)
    assert sum(p.numel() for p in family("resnet")(channels=3, classes=10).parameters()) == convolutions + norms + 650


def test_encoder_ignores_padding_and_shares_one_row_between_unknown_tokens() -> None:
    model, (ids, mask) = made("encoder")
    model.eval()
    other = ids.clone()
    other[0, 3] = 7  # masked
    torch.testing.assert_close(model(ids, mask), model(other, mask))
    changed = ids.clone()
    changed[0, 1] = 7
    assert not torch.allclose(model(ids, mask), model(changed, mask))
    torch.testing.assert_close(model(ids + 10), model(ids * 0 + 10))  # ids ≥ vocabulary are one token
    assert not torch.allclose(model(ids * 0 + 9), model(ids * 0 + 10))
    assert model(torch.zeros(1, 9, dtype=torch.long)).isfinite().all()  # longer than the learned positions


def test_a_decoder_looks_back_alone_and_past_padding() -> None:
    model, (ids, mask) = made("decoder")
    model.eval()
    before = model(ids, mask)
    later = ids.clone()
    later[:, 2] = 7
    assert torch.equal(model(later, mask)[:, :2], before[:, :2]) and not torch.allclose(model(later, mask)[:, 2:], before[:, 2:])
    left = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    other = ids.clone()
    other[0, 0] = 7  # masked
    torch.testing.assert_close(model(other, left)[0, 1:], model(ids, left)[0, 1:])
    assert not torch.allclose(model(other)[0, 1:], model(ids)[0, 1:])
    torch.testing.assert_close(model(ids), model(ids, torch.ones_like(ids)))
    assert model(torch.zeros(1, 9, dtype=torch.long)).isfinite().all()  # longer than the learned positions


def test_fitted_reads_the_data_and_keeps_what_was_given() -> None:
    assert fitted("convnet", {"width": 8}, IMAGE, FLOAT_OUTPUT) == {"channels": 3, "classes": 5, "width": 8, "size": 16}
    assert fitted("mlp", {}, IMAGE, FLOAT_OUTPUT) == {"features": 960, "classes": 5}
    assert fitted("encoder", {"vocabulary": 30, "length": 64}, TOKENS, FLOAT_OUTPUT) == {"vocabulary": 30, "classes": 5, "length": 64}
    assert fitted("decoder", {}, TOKENS, TOKEN_OUTPUT) == {"vocabulary": 10, "length": 4}
    assert fitted("encoder", {"vocabulary": 30}, TOKENS, {"features": torch.zeros(2, 4, 8), "logits": torch.zeros(2, 3)})["classes"] == 3


@pytest.mark.parametrize(
    ("name", "given", "inputs", "said", "message"),
    [
        ("convnet", {}, TOKENS, FLOAT_OUTPUT, "takes one tensor"),
        ("convnet", {}, {"x": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, FLOAT_OUTPUT, "floating-point"),
        ("convnet", {}, {"x": torch.zeros(2, 64)}, FLOAT_OUTPUT, "limbeck:mlp"),
        ("convnet", {"channels": 1}, IMAGE, FLOAT_OUTPUT, "must be 3"),
        ("convnet", {"widht": 1}, IMAGE, FLOAT_OUTPUT, "'width'"),
        ("decoder", {}, TOKENS, FLOAT_OUTPUT, "limbeck:encoder"),
        ("decoder", {"vocabulary": 9}, TOKENS, TOKEN_OUTPUT, "must be 10"),
        ("decoder", {}, IMAGE, TOKEN_OUTPUT, "token ids"),
        ("encoder", {"vocabulary": 9}, IMAGE, FLOAT_OUTPUT, "token ids"),
        ("encoder", {}, TOKENS, FLOAT_OUTPUT, "largest id in them is 9"),
        ("encoder", {"vocabulary": 9}, {**TOKENS, "token_type_ids": TOKENS["input_ids"]}, FLOAT_OUTPUT, "Leave the others out"),
        ("mlp", {}, IMAGE, {"a": torch.zeros(2, 5), "b": torch.zeros(2, 5)}, "Task.outputs"),
        ("resnet", {}, IMAGE, {"logits": torch.zeros(2, 5, 4, 4)}, r"\[2, 5, 4, 4\]"),
        ("resnest", {}, IMAGE, FLOAT_OUTPUT, "'resnet'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(name, given, inputs, said, message) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(name, given, inputs, said)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("convnet", {"width": 0}, "convnet.width"),
        ("mlp", {"widths": [3, 2.5]}, "mlp.widths"),
        ("resnet", {"widths": [8]}, "one length"),
        ("decoder", {"heads": 3}, "divide"),
        ("encoder", {"heads": 3}, "divide"),
    ],
)
def test_bad_sizes_are_refused(name: str, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        family(name)(**{**fitted(name, *CASES[name], outputs(name)), **change})
