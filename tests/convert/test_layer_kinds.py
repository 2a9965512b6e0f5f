"""Kernels are transposed by the kind of their layer, where no shape shows that they must be."""

from dataclasses import dataclass, replace

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.encoders.reference import fill
from vrl_jax.augment.clip_views import Augment
from vrl_jax.convert import layer_kinds, layout_match
from vrl_jax.convert.weight_layouts import Layout
from vrl_jax.encoders.layers import Conv3d, pool_features
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT

CLIPS = (2, 3, 4, 5, 3)


class SquareNet(nn.Module):
    """One layer of every kind, each with as many inputs as outputs: no shape tells the axes."""

    @nn.compact
    def __call__(self, clips, train):
        x = Conv3d(3, (3, 3, 3), formulation="native", bias=True, name="conv")(clips)
        x = nn.BatchNorm(use_running_average=not train, epsilon=1e-5, name="batch_norm")(x)
        x = nn.Dense(3, name="dense")(x)
        x = x + nn.Embed(3, 3, name="table")(jnp.arange(x.shape[1]) % 3)[:, None, None]
        return pool_features([nn.LayerNorm(epsilon=1e-5, name="layer_norm")(x)])


@dataclass(frozen=True)
class Square:
    """The config of a `SquareNet`, or of another network."""

    network: type[nn.Module] = SquareNet
    dim: int = 3

    def module(self):
        return self.network()


LAYOUT = Layout(
    family="test",
    network="Square",
    anchor="dense.weight",
    rename=lambda path: path,
    encoder=lambda arrays, config: Square(),
    fits=lambda encoder: isinstance(encoder, Square),
    inputs=Augment(),
)


def make_torch_network(torch):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(3, 3, 3, padding=1)
            self.batch_norm = torch.nn.BatchNorm3d(3)
            self.dense = torch.nn.Linear(3, 3)
            self.table = torch.nn.Embedding(3, 3)
            self.layer_norm = torch.nn.LayerNorm(3)

        def forward(self, clips):
            x = self.batch_norm(self.conv(clips.permute(0, 4, 1, 2, 3))).permute(0, 2, 3, 4, 1)
            position = self.table(torch.arange(x.shape[1]) % 3)[:, None, None]
            return self.layer_norm(self.dense(x) + position).mean((1, 2, 3))

    return Network()


def features_in_both(rng, torch):
    """Return the features of PyTorch and ours, the weights there, and ours converted back."""
    from tests.convert import networks

    network = networks.fill(make_torch_network(torch))
    state = {name: x.numpy() for name, x in network.state_dict().items()}
    encoder, variables, unused = layout_match.from_torch(state, LAYOUT, "")
    assert not unused
    clips = rng.normal(size=CLIPS).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(clips)).numpy()
    got = jax.jit(encoder.module().apply, static_argnums=2)(variables, clips, False).clip
    return expected, got, state, layout_match.to_torch(encoder, variables, LAYOUT)


def test_square_kernels_give_the_features_of_pytorch(rng):
    expected, got, state, back = features_in_both(rng, pytest.importorskip("torch"))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert back.keys() == state.keys()
    for name in state.keys() - {"batch_norm.num_batches_tracked"}:
        np.testing.assert_array_equal(back[name], state[name], strict=True)


@pytest.mark.parametrize(
    "layer_class, axes",
    [
        (nn.Dense, {"kernel": (0, 1)}),
        (nn.Embed, {"embedding": (1, 0)}),
        (Conv3d, {"kernel": (3, 4, 0, 1, 2)}),
    ],
)
def test_a_wrong_kind_is_seen_in_the_features(rng, monkeypatch, layer_class, axes):
    wrong = replace(layer_kinds.KINDS[layer_class], axes=axes)
    monkeypatch.setitem(layer_kinds.KINDS, layer_class, wrong)
    layout_match.torch_arrays.cache_clear()
    try:
        expected, got, *_ = features_in_both(rng, pytest.importorskip("torch"))
    finally:
        layout_match.torch_arrays.cache_clear()
    assert np.abs(got - expected).max() > 0.01


def test_each_kind_is_transposed_as_pytorch_stores_it(rng):
    variables = fill(SquareNet(), CLIPS, rng)
    arrays = layout_match.to_torch(Square(), variables, LAYOUT)
    ours = flatten_dict(variables, sep="/")
    kernel = ours["params/conv/kernel"]
    assert arrays["conv.weight"][0, 1, 2, 0, 1] == kernel[2, 0, 1, 1, 0]
    np.testing.assert_array_equal(arrays["dense.weight"], ours["params/dense/kernel"].T)
    np.testing.assert_array_equal(arrays["table.weight"], ours["params/table/embedding"])
    _, again, _ = layout_match.from_torch(arrays, LAYOUT, "")
    chex.assert_trees_all_equal(again, variables)


@pytest.mark.parametrize(
    "encoder",
    [
        Tiny(),
        R2plus1D((1, 1, 1, 1), remat=True),
        SlowOnly((1, 1, 1, 1), remat=True),
        ViT(width=12, depth=4, heads=2, remat=True),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_every_layer_of_an_encoder_has_a_kind(encoder):
    arrays = layout_match.torch_arrays(encoder, replace(LAYOUT, rename=lambda path: path))
    kernels = {path: x for path, x in arrays.items() if path.endswith("kernel")}
    expected = {(4, 3, 0, 1, 2)} | ({(1, 0)} if isinstance(encoder, ViT) else set())
    assert {x.axes for x in kernels.values()} == expected


def test_layers_of_unknown_kind_are_refused():
    class General(nn.Module):
        @nn.compact
        def __call__(self, clips, train):
            return pool_features([nn.DenseGeneral((3, 2), name="general")(clips)[..., 0]])

    class Own(nn.Module):
        @nn.compact
        def __call__(self, clips, train):
            return pool_features([clips @ self.param("kernel", nn.initializers.ones, (3, 3))])

    with pytest.raises(ValueError, match=r"params/general/bias .*known kind \(Conv3d, .*Dense"):
        layout_match.torch_arrays(Square(General), LAYOUT)
    with pytest.raises(ValueError, match=r"params/kernel of .*add the layer's class to .*KINDS"):
        layout_match.torch_arrays(Square(Own), LAYOUT)


def test_arrays_that_a_kind_does_not_have_are_refused():
    class Stacked(nn.Module):
        @nn.compact
        def __call__(self, clips, train):
            stack = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
            return pool_features([stack(3, name="stack")(clips)])

    with pytest.raises(
        ValueError, match="params/stack/kernel of .*: kernel must have 2 axes, got 3"
    ):
        layout_match.torch_arrays(Square(Stacked), LAYOUT)
    with pytest.raises(ValueError, match="arrays must be among kernel, bias, got scale"):
        layer_kinds.DENSE.axes_of("scale", 1)
