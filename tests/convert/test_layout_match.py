"""PyTorch's weights give the same features here, and go back as they came."""

from dataclasses import replace

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.convert import networks  # noqa: E402  (it imports torch)
from vrl_jax.convert import layout_match  # noqa: E402
from vrl_jax.encoders.c3d import C3D  # noqa: E402
from vrl_jax.encoders.r2plus1d import R2plus1D  # noqa: E402
from vrl_jax.encoders.r3d import R3D  # noqa: E402
from vrl_jax.encoders.s3d import S3D  # noqa: E402
from vrl_jax.encoders.slowonly import SlowOnly  # noqa: E402

SHALLOW = (1, 1, 1, 1)
HALVES, WHOLE = networks.Halves, networks.Whole
NETWORKS = {
    "torchvision R3D": (lambda: networks.VideoResNet(False), R3D()),
    "torchvision R(2+1)D": (lambda: networks.VideoResNet(True), R2plus1D()),
    "torchvision S3D": (networks.S3D, S3D()),
    "pytorchvideo Slow-R50": (networks.Slow, SlowOnly()),
    "dualvar R(2+1)D": (
        lambda: networks.DualVarResNet(HALVES),
        R2plus1D(SHALLOW, variant="vcop"),
    ),
    "dualvar R3D": (lambda: networks.DualVarResNet(WHOLE, (2, 1, 1, 1)), R3D((2, 1, 1, 1))),
    "dualvar C3D": (networks.DualVarC3D, C3D()),
}
HEADS = ("fc.", "classifier.", "blocks.5.")


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_the_same_network_in_pytorch(rng, name):
    make, expected_encoder = NETWORKS[name]
    network = networks.fill(make())
    state = {key: x.numpy() for key, x in network.state_dict().items()}
    layout, prefix = layout_match.match_layout(state)
    encoder, variables, unused = layout_match.from_torch(state, layout, prefix)
    assert encoder == expected_encoder and f"{layout.family} {layout.network}" == name
    assert unused == sorted(key for key in state if key.startswith(HEADS))

    clips = rng.normal(size=(1, 8, 32, 32, 3)).astype(np.float32)
    expected = networks.encode(network, clips)
    module = replace(encoder, conv="native").module()  # the quickest to compile
    got = jax.jit(lambda v, x: module.apply(v, x, False).clip)(variables, clips)
    assert expected.std() > 0.1
    np.testing.assert_allclose(got / expected.std(), expected / expected.std(), atol=1e-4)

    back = layout_match.to_torch(encoder, variables, layout)
    assert all(array.flags.c_contiguous for array in back.values())  # as safetensors needs
    names = {key for key in state if not key.startswith(HEADS)}
    assert back.keys() == names
    for key in names:
        if key.endswith("num_batches_tracked"):
            assert (back[key].dtype, back[key].shape) == (np.int64, ())
        else:
            np.testing.assert_array_equal(back[key], state[key], strict=True)
