"""Latent prediction by one shared linear operator: the forecast of `BOD(forecast="shared")` alone.

The features of a frame predict those of a later frame of the same clip, by a linear map that is
fitted in closed form to all clips of the batch; the right frame must be told from the others of its
clip. There is neither a comparison between videos nor a split. It is contrastive predictive coding
(arXiv 1807.03748) with a linear predictor, and negatives from the same clip only. Ours.
"""

from dataclasses import dataclass

from vrl_jax import check
from vrl_jax.encoders.layers import pool_to_grid
from vrl_jax.frameworks.base import FrameworkConfig, ProjectionHead
from vrl_jax.losses import forecast
from vrl_jax.methods.base import ExtraLosses, Method, reject_framework
from vrl_jax.methods.compose import compose
from vrl_jax.methods.network import EncoderConfig, Network
from vrl_jax.types import TrainLength, View


@dataclass(frozen=True)
class SharedForecast:
    """Latent prediction within clips, by one linear operator for all clips of a batch.

    Attributes:
      dim: width of the predicted embedding.
      hidden: width of the head's hidden layers.
      layers: linear layers of the head.
      clips: clips of a video, of which each is predicted by itself.
      grid: cells per side of the last feature map that the head reads.
      ahead: frames that are predicted ahead, fewer than the encoder's frames.
      ridge: see `forecast.shared_forecast`.
      temperature: divides the cosines.
    """

    dim: int = 128
    hidden: int = 2048
    layers: int = 2
    clips: int = 2
    grid: int = 4
    ahead: int = 4
    ridge: float = 1e-2
    temperature: float = 0.1

    def __post_init__(self):
        check.at_least(1, dim=self.dim, hidden=self.hidden, layers=self.layers, clips=self.clips)
        check.at_least(1, grid=self.grid, ahead=self.ahead)
        check.positive(ridge=self.ridge, temperature=self.temperature)

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions.

        Raises:
          ValueError: there is a framework.
        """
        reject_framework("SharedForecast", framework)

        def read(features):
            return {"forecast": pool_to_grid(features, self.grid)}, {}

        head = ProjectionHead(self.hidden, self.dim, self.layers)
        return compose(
            network=Network(encoder.module(), {"forecast": head}, {}, read),
            views=tuple(View(i) for i in range(self.clips)),
            horizon=horizon,
            terms=ExtraLosses(self._forecast),
        )

    def _forecast(self, params, state, outputs, context, key, step):
        settings = {"ahead": self.ahead, "ridge": self.ridge, "temperature": self.temperature}
        result = forecast.shared_forecast(outputs.projected["forecast"], **settings)
        metrics = {"loss/forecast": result.loss, "forecast/accuracy": result.accuracy}
        return result.loss, metrics, {}
