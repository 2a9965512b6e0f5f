"""An encoder to judge; and runs draw no report, except where a test asks for one."""

import pytest

from tests.evaluation.test_evaluation_run import ENCODER
from vrl_jax import pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.report import html_page


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with an encoder whose input is not the default one."""
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    augment = Augment(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    pretrained.save(path, pretrained.init_untrained(ENCODER, augment, frames=4, seed=7))
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def no_report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_page, "write_report", lambda folder: folder / "report.html")
        yield
