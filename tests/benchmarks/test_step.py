import dataclasses
import functools
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import jax_step, step
from benchmarks.step import Settings, check_equal, find_largest_batch
from vrl_jax.augment import photometric as ours
from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.spatial_crops import resize_box
from vrl_jax.losses import info_nce, nt_xent
from vrl_jax.types import TrainLength

torch = pytest.importorskip("torch")

from benchmarks import torch_augment, torch_step  # noqa: E402  (they import torch)

TURN = {"seconds": 0.5, "device": "cpu", "augmentation": {}, "parameters": 7, "matmul_flops": 4e12}


def planes(clips):
    """Return clips n t h w 3 as PyTorch has them."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(clips, -1, 1)))


def channels_last(x):
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.fixture
def clips(rng):
    return rng.uniform(size=(3, 2, 9, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("encoder", "framework"),
    [("r2plus1d-18", "simclr"), ("r3d-18", "moco"), ("slowonly-50", "simclr")],
)
def test_both_sides_have_as_many_parameters(encoder, framework):
    run = jax_step.make_experiment(Settings(encoder=encoder, framework=framework))
    method = run.method.build(run.encoder, run.framework, TrainLength(1, 1))
    clips = jax.ShapeDtypeStruct((2, 2, 2, 16, 16, 3), jnp.float32)
    params, _ = jax.eval_shape(method.init, jax.random.key(0), clips)
    with torch.device("meta"):
        network = torch_step.Network(encoder, norm=framework == "simclr")
    expected = sum(p.numel() for p in network.parameters())
    assert jax_step.count(params["network"]) == expected > 3e7


def test_both_sides_have_the_same_losses(rng):
    a, b, queue = (rng.normal(size=(n, 6)).astype(np.float32) for n in (5, 5, 9))
    tensors = [torch.from_numpy(x) for x in (a, b, queue)]
    got = torch_step.nt_xent(*tensors[:2])
    np.testing.assert_allclose(got, jax.jit(nt_xent)(a, b), rtol=1e-5)
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in tensors]
    got = torch_step.info_nce(tensors[0], *unit[1:], torch.tensor(4))
    expected = jax.jit(info_nce)(a, b, queue, filled=np.int32(4))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_both_sides_resample_alike(clips, rng):
    extent = rng.uniform((2, 3), (9, 12), size=(3, 2)).astype(np.float32)
    corner = (rng.uniform(size=(3, 2)) * ((9, 12) - extent)).astype(np.float32)
    for size in (5, 14):
        resize = jax.jit(jax.vmap(functools.partial(resize_box, size=size)))
        expected = resize(clips, corner, extent)
        boxes = torch.from_numpy(corner), torch.from_numpy(extent)
        got = torch_augment.resize_box(planes(clips), *boxes, size)
        np.testing.assert_allclose(channels_last(got), expected, atol=2e-5)


def test_both_sides_colour_alike(clips):
    strength, hue = np.array([0.6, 0.5, 0.7], np.float32), 0.15

    @jax.jit
    @jax.vmap
    def jitter(seed, clip):
        key = jax.random.key(seed)
        _, factor_key, hue_key, order_key = jax.random.split(key, 4)
        factors = jax.random.uniform(factor_key, 3, minval=1 - strength, maxval=1 + strength)
        turns = jax.random.uniform(hue_key, minval=-hue, maxval=hue)
        parameters = factors, jax.random.permutation(order_key, 4), turns
        return ours.color_jitter(key, clip, 1.0, *map(float, strength), hue), parameters

    expected, parameters = jax.device_get(jitter(np.arange(len(clips)), clips))
    factors, order, turns = (torch.from_numpy(x.copy()) for x in parameters)
    on = torch.tensor([True, True, True])
    got = torch_augment.color_jitter(planes(clips), on, factors, order.long(), turns)
    np.testing.assert_allclose(channels_last(got), expected, atol=1e-5)
    unchanged = torch_augment.color_jitter(planes(clips), ~on, factors, order.long(), turns)
    np.testing.assert_allclose(channels_last(unchanged), clips, atol=1e-5)


def test_both_sides_lose_colour_and_blur_alike(clips):
    key, sigma = jax.random.key(0), 0.8
    gray = jax.jit(jax.vmap(lambda clip: ours.random_grayscale(key, clip, 1.0)))(clips)
    got = torch_augment.to_gray(planes(clips)).expand(-1, 3, -1, -1, -1)
    np.testing.assert_allclose(channels_last(got), gray, atol=1e-6)
    blur = jax.jit(jax.vmap(lambda clip: ours.gaussian_blur(key, clip, 1.0, (sigma, sigma))))
    blurred = np.asarray(blur(clips))
    on = torch.tensor([True, False, True])
    got = channels_last(torch_augment.gaussian_blur(planes(clips), on, torch.full((3,), sigma)))
    np.testing.assert_allclose(got[[0, 2]], blurred[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(got[1], clips[1], atol=1e-6)


def test_views_in_pytorch_are_random_and_whole(rng):
    decoded = torch.from_numpy(rng.integers(256, size=(64, 2, 18, 24, 3), dtype=np.uint8))
    views = torch_augment.make_views(decoded, Augment(size=8))
    assert views.shape == (64, 3, 2, 8, 8) and bool(views.isfinite().all())
    corner, extent = torch_augment.draw_boxes(500, (18, 24), (0.2, 0.766), (0.75, 4 / 3), "cpu")
    assert bool(
        (corner >= 0).all() and (corner + extent <= torch.tensor([18.0, 24.0]) + 1e-4).all()
    )
    shares = extent.prod(-1) / (18 * 24)
    assert 0.2 <= shares.min() < 0.25 and 0.65 < shares.max() <= 0.767
    with pytest.raises(ValueError, match="must have only resized crops and luma"):
        torch_augment.make_views(decoded, Augment(size=8, crop="plain"))


@pytest.mark.slow
def test_each_side_tells_the_same_of_its_step(monkeypatch):
    """Our step does not run here but in the tests of the other benchmarks."""
    ran = []
    monkeypatch.setattr(jax_step, "compile_runner", lambda program: ran.append)
    monkeypatch.setattr(torch_step, "WARM", 1)
    settings = Settings(framework="moco", optim="adamw", batch=2, frames=2, size=16, steps=1)
    jax_result = jax_step.measure(dataclasses.replace(settings, encoder="tiny"))
    torch_result = torch_step.measure(
        dataclasses.replace(settings, encoder="r3d-18", compile=False)
    )
    assert jax_result["seconds"] > 0 and torch_result["seconds"] > 0
    assert ran == [step.WARM, settings.steps]
    for name in ("device", "augmentation", "matmul_flops"):
        assert jax_result[name] == torch_result[name]
    with pytest.raises(ValueError, match="parameters differ"):
        check_equal({"ours": [jax_result], "PyTorch": [torch_result]})
    forward = jax_step.multiply_adds(jax_step.Tiny(conv="native").module(), (1, 2, 16, 16, 3))
    assert jax_result["flop_per_clip"] == 2 * forward * 4  # forward, two backward, a teacher's


@pytest.mark.slow
def test_a_step_in_pytorch_changes_its_weights():
    settings = Settings(encoder="r3d-18", batch=2, frames=2, size=16, compile=False)
    network, run = torch_step.make_runner(settings, Augment(size=16), torch.device("cpu"))
    before = [p.detach().clone() for p in network.parameters()]
    run(1)
    changed = [not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)]
    assert sum(changed) >= len(changed) - 1  # the last bias may move by rounding alone


def test_the_largest_batch_is_looked_for_by_doubling():
    batches = []

    def turn(side, settings):
        batches.append(settings.batch)
        if settings.batch > 20:
            raise MemoryError

    assert find_largest_batch("ours", Settings(), turn) == 16
    assert batches == [2, 4, 8, 16, 32]
    assert step.MEMORY.search("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")


def run_main(monkeypatch, path, seconds, *flags):
    order, seconds = [], iter(seconds)

    def turn(side, settings):
        order.append((side, settings.conv))
        return {**TURN, "seconds": next(seconds), "flop_per_clip": 10**12}

    monkeypatch.setattr(step, "run_turn", turn)
    monkeypatch.setattr(step, "find_backend", lambda: "cpu")
    command = ["step.py", "--rounds=2", "--batch=3", f"--json={path}", *flags]
    monkeypatch.setattr(sys, "argv", command)
    step.main()
    return order, json.loads(path.read_text())


def test_turns_alternate_and_become_a_table(monkeypatch, tmp_path, capsys):
    turns, numbers = run_main(monkeypatch, tmp_path / "step.json", [1.0, 2.0, 1.0, 4.0])
    order = [side for side, _ in turns]
    assert order == ["ours", "PyTorch"] * 2
    assert numbers["clips_per_second"] == {"ours": [6.0, 6.0], "PyTorch": [3.0, 1.5]}
    assert numbers["ratio"] == {"ours": [2.0, 4.0]} and numbers["flops"]["ours"] == [6e12, 6e12]
    printed = capsys.readouterr().out
    assert "| ours | 6.0 (6.0 - 6.0) | 6.000 | 150.0% |" in printed
    assert "ours / PyTorch: 3.00 (2.00 - 4.00), median of 2 rounds" in printed


def test_formulations_are_sides_of_their_own(monkeypatch, tmp_path, capsys):
    seconds = [1.0, 2.0, 4.0] * 2
    flags = "--conv=planar,native"
    order, numbers = run_main(monkeypatch, tmp_path / "step.json", seconds, flags)
    one_round = [("ours, planar", "planar"), ("ours, native", "native"), ("PyTorch", "auto")]
    assert order == one_round * 2
    assert numbers["ratio"] == {"ours, planar": [4.0] * 2, "ours, native": [2.0] * 2}
    printed = capsys.readouterr().out
    assert "| ours, native | 3.0 (3.0 - 3.0) |" in printed
    assert "ours, planar / PyTorch: 4.00 (4.00 - 4.00), median of 2 rounds" in printed


def test_a_layout_is_forced_by_a_flag_of_xla(monkeypatch):
    def run(command, env, **_):
        assert step.NHWC in env["XLA_FLAGS"] and json.loads(command[2])["conv"] == "native"
        return subprocess.CompletedProcess(command, 0, stdout='warning\n{"seconds": 1.0}\n')

    monkeypatch.setattr(step.subprocess, "run", run)
    assert step.run_turn("ours, native-nhwc", Settings(conv="native-nhwc")) == {"seconds": 1.0}


def test_a_batch_without_end_is_refused_on_cpu(monkeypatch, capsys):
    monkeypatch.setattr(step, "find_backend", lambda: "cpu")
    with pytest.raises(SystemExit):
        step.parse_args(["--conv=folded"])
    assert "--conv must be among auto, native, planar" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        step.parse_args(["--batch=0"])


@pytest.mark.slow
def test_a_whole_run():
    shape = "--encoder=r3d-18 --batch=2 --frames=2 --size=16 --steps=1 --rounds=1 --no-compile"
    command = [sys.executable, step.__file__, *shape.split()]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"\| ours \| .*\n\| PyTorch \| .*\n\nours / PyTorch: \d", printed)
