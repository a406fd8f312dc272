"""Sites are found by dataflow: the full rule, folding, operators that only move values, what stays float."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.mechanics.ports import folds, placement, trace
from limbeck.mechanics.quantizers import fold_, site_key

X = torch.linspace(-2, 2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Residual(nn.Module):
    """A functional ReLU twice, a residual add, and a shortcut that slices and pads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.renamed_norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.renamed_norm(self.stem(x)))
        y = F.relu(self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(y.mean((2, 3)))


def place(model: nn.Module, x: Tensor = X, **options) -> tuple[dict[str, dict], tuple[str, ...]]:
    model.eval()
    fold_(model, folds(model, trace(model, lambda: model(x))))
    found = placement(model, trace(model, lambda: model(x)), **options)
    return {site_key(e): e for e in found.edits}, found.left_float


def test_full_rule_on_functional_residual_net():
    edits, left = place(Residual())
    assert set(edits) == {"stem:weight", "conv:weight", "head:weight", "stem:in", ":relu:0", "conv:out", ":getitem:0", ":pad:0", ":relu:1", ":mean:0", "head:out"}
    assert left == ()
    assert edits[":pad:0"]["shares"] == edits[":getitem:0"]["shares"] == ":relu:0"
    assert edits[":relu:0"]["count"] == 2
    assert "shares" not in edits[":mean:0"]


def test_trace_leaves_nothing_behind():
    model = Residual().eval()
    trace(model, lambda: model(X))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_norm_is_folded_by_dataflow_only_where_it_alone_reads_the_conv():
    class Peeked(Residual):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return self.renamed_norm(y) + y

    plain, peeked = Residual().eval(), Peeked().eval()
    assert folds(plain, trace(plain, lambda: plain(X))) == ({"edit": "fold", "module": "stem", "norm": "renamed_norm"},)
    assert folds(peeked, trace(peeked, lambda: peeked(X))) == ()
    assert placement(peeked, trace(peeked, lambda: peeked(X))).left_float == ("renamed_norm",)


def test_comparison_counts_as_a_reader():
    class Compared(Residual):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            mask = y > 0
            return self.renamed_norm(y) * mask

    model = Compared().eval()
    assert folds(model, trace(model, lambda: model(X))) == ()


def test_tied_or_twice_run_convs_are_not_folded():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(self.conv(x)))

    model = Twice().eval()
    assert folds(model, trace(model, lambda: model(X))) == ()
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).eval()
    tied[2].weight = tied[0].weight
    assert folds(tied, trace(tied, lambda: tied(X))) == ()


def test_linear_folds_its_norm_only_over_its_own_features():
    rows = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    tokens = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(5)).eval()
    assert len(folds(rows, trace(rows, lambda: rows(torch.ones(3, 6))))) == 1
    assert folds(tokens, trace(tokens, lambda: tokens(torch.ones(3, 5, 6)))) == ()


def test_rectifiers_with_lower_bound_zero_are_fused_others_not():
    for layer, fused in ((nn.ReLU6(), True), (nn.Hardtanh(0.0, 3.0), True), (nn.Hardtanh(-1.0, 1.0), False), (nn.GELU(), False)):
        edits, _ = place(nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Conv2d(4, 2, 1)))
        assert ("0:out" not in edits) == fused, layer
        assert "1:out" in edits


def test_a_module_run_twice_gets_operator_sites():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.b(self.act(self.a(x))))

    edits, _ = place(Shared())
    assert {"act:relu:0", "act:relu:1"} <= set(edits)
    assert not any(k.endswith(":out") for k in edits)


def test_moved_values_share_the_grid_of_what_they_move():
    edits, _ = place(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)))
    assert edits["2:out"]["shares"] == edits["3:out"]["shares"] == "1:out"


def test_concat_that_feeds_a_conv_is_quantized_and_its_parts_are():
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([x, self.a(x)], 1))

    edits, _ = place(Dense())
    assert {"a:in", "a:out", ":cat:0", "b:out"} <= set(edits)


def test_adds_that_only_feed_a_layer_norm_stay_float_and_products_are_reported():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.norm, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            mixed = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ x
            return self.out(self.norm(F.gelu(mixed) + self.q(x)))

    edits, left = place(Attention(), torch.ones(2, 5, 8))
    assert not any(":add:" in k for k in edits)
    assert {"q:weight", "k:weight", "out:weight", "norm:out"} <= set(edits)
    assert left == (":matmul",)


def test_an_identity_is_not_the_maker_of_what_it_hands_on():
    edits, _ = place(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 2, 1)))
    assert {"0:out", "2:out", "3:out"} <= set(edits)


def test_kept_float_covers_all_below():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Conv2d(4, 2, 1))
    edits, left = place(model, keep_float=("0",))
    assert "0.0:weight" not in edits
    assert left == ("0.0",)
    assert {"1:weight", "0.1:out", "1:out"} == set(edits)


def test_containers_host_no_operator_site():
    class Layer(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cat([x, x], 1))

    edits, _ = place(Layer(nn.Conv2d(6, 2, 1)))
    assert set(edits) == {"0:weight", "0:in", "0:out"}
