"""The contract of a method: pure functions over parameters and a state that only it can read.

`Method` is what the train step, the probes and the checkpoints see; its functions may be written by
hand, or put together by `vrl_jax.methods.compose.compose` from heads, slots and extra losses.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Splits
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.methods.micro_batches import Clips
from vrl_jax.methods.network import EncoderConfig, Outputs
from vrl_jax.types import Features, TrainLength, View

Tree = Any
Scalars = Mapping[str, Float[Array, ""]]


class Operators(NamedTuple):
    """Linear operators of clips, for the spectrum that a run records.

    Attributes:
      matrix: takes each frame vector of a clip to the next one, in the method's own coordinates.
      radius: eigenvalues of `matrix` at most this far from 1 count as static.
    """

    matrix: Float[Array, "*n m m"]
    radius: Float[Array, ""] | float


@runtime_checkable
class InitFn(Protocol):
    """Creates parameters and state."""

    def __call__(
        self,
        key: PRNGKeyArray,
        clips: Float[Array, "b v t h w 3"],
        encoder: dict[str, Tree] | None = None,
    ) -> tuple[Tree, Tree]:
        """Return what the optimiser updates, and everything else that the next step reads.

        Args:
          key: random key.
          clips: views of a batch, of which only the shape may matter.
          encoder: variables that the encoder and its teachers start from, as `EncoderFn` returns
            them; random by default.

        Returns:
          (params, state), two trees of arrays.

        Raises:
          ValueError: `encoder` has other arrays than the encoder.
        """
        ...


@runtime_checkable
class LossFn(Protocol):
    """Computes the loss of a batch, differentiable in `params`."""

    def __call__(
        self,
        params: Tree,
        state: Tree,
        clips: Clips,
        key: PRNGKeyArray,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Tree, Scalars]]:
        """Return the loss, with what `update` needs and what is logged.

        Args:
          params: the parameters.
          state: the state, constant in the gradient.
          clips: the augmented views of the global batch f32[b v t h w 3], in the order of
            `Method.views`, or micro-batches of them: see `embed_videos`.
          key: random key of this step.
          step: number of the step, from 0.

        Returns:
          (loss, (aux, metrics)); `aux` is passed to `update`.
        """
        ...


@runtime_checkable
class UpdateFn(Protocol):
    """Updates teachers, queues and statistics after the optimiser's step."""

    def __call__(
        self, params: Tree, state: Tree, aux: Tree, step: Int[Array, ""]
    ) -> tuple[Tree, Tree]:
        """Return the parameters and the state for the next step.

        Args:
          params: the parameters after the optimiser's step.
          state: the state that `loss` saw.
          aux: what `loss` returned.
          step: number of the step, from 0.
        """
        ...


@runtime_checkable
class EncodeFn(Protocol):
    """Encodes clips for evaluation."""

    def __call__(self, params: Tree, state: Tree, clips: Float[Array, "n t h w 3"]) -> Features:
        """Return the encoder's features of clips, with fixed batch statistics."""
        ...


@runtime_checkable
class EncoderFn(Protocol):
    """Selects the encoder that is kept after pretraining."""

    def __call__(self, params: Tree, state: Tree) -> dict[str, Tree]:
        """Return `{"params": ..., "batch_stats": ...}` for `EncoderConfig.module()`.

        An encoder without batch statistics has an empty dictionary there.
        """
        ...


@runtime_checkable
class OperatorsFn(Protocol):
    """Fits the linear operators whose spectrum a run records."""

    def __call__(self, params: Tree, state: Tree, clips: Float[Array, "n t h w 3"]) -> Operators:
        """Return an operator for each clip, matrix f32[n m m], with fixed batch statistics."""
        ...


@runtime_checkable
class PartsFn(Protocol):
    """Computes the embeddings of clips that a method makes besides the encoder's features."""

    def __call__(
        self, params: Tree, state: Tree, clips: Float[Array, "n t h w 3"]
    ) -> Mapping[str, Float[Array, "n d"]]:
        """Return the embeddings by name, such as "static", with fixed batch statistics."""
        ...


@runtime_checkable
class InnerLossFn(Protocol):
    """Computes the loss of the lower level, differentiable in `params`."""

    def __call__(
        self,
        params: Tree,
        state: Tree,
        clips: Clips,
        key: PRNGKeyArray,
        step: Int[Array, ""],
    ) -> Float[Array, ""]:
        """Return the loss; arguments as of `LossFn`."""
        ...


@runtime_checkable
class JointLossFn(Protocol):
    """Computes the loss of either level, differentiable in `params`."""

    def __call__(
        self,
        params: Tree,
        state: Tree,
        clips: Clips,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        is_lower: Bool[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[Tree, Scalars]]:
        """Return the loss of the level, with `aux` and metrics of `LossFn` for the upper level.

        Arguments are as of `LossFn`; `is_lower` selects the level.
        """
        ...


@runtime_checkable
class ScheduleFn(Protocol):
    """Gives a rate at each step."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the rate at a step, counted from 0."""
        ...


class Inner(NamedTuple):
    """The lower level of a bi-level programme over the same parameters.

    Attributes:
      loss: what its steps descend.
      steps: gradient steps on further videos before each step of the upper level.
      learning_rate: of those steps.
      hypergradient: "none" takes the upper gradient where the lower steps end; "maml1" multiplies
        it by (I - learning_rate * H), "betty" by (I - H), H the Hessian of `loss`.
      joint: the losses of both levels, which embed views alike; None where they do not. A step
        then compiles the network once, not once for each level.
    """

    loss: InnerLossFn
    steps: int
    learning_rate: ScheduleFn
    hypergradient: str = "none"
    joint: JointLossFn | None = None


class Method(NamedTuple):
    """A self-supervised method.

    Attributes:
      views: the views of a video that data must decode and augment.
      init: creates parameters and state.
      loss: computes the loss of a batch.
      update: updates teachers, queues and statistics after the optimiser's step.
      encode: encodes clips for evaluation.
      encoder: selects the encoder that checkpoints keep.
      operators: fits an operator for each clip; None where the method has none.
      parts: computes the embeddings that the method makes, such as a static and a dynamic one; None
        where there are only the encoder's features.
      inner: the lower level; None where there is one level.
    """

    views: tuple[View, ...]
    init: InitFn
    loss: LossFn
    update: UpdateFn
    encode: EncodeFn
    encoder: EncoderFn
    operators: OperatorsFn | None = None
    parts: PartsFn | None = None
    inner: Inner | None = None

    @property
    def levels(self) -> int:
        """Videos that a step reads for each one that the upper level sees."""
        return 1 + (self.inner.steps if self.inner else 0)


@runtime_checkable
class MethodConfig(Protocol):
    """The component under `method` in a config."""

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions.

        Args:
          encoder: the network that is kept.
          framework: how embeddings are compared; None for a method that makes its own comparisons.
          horizon: length of the run, for schedules.

        Raises:
          ValueError: components that do not go together.
        """
        ...


@runtime_checkable
class HasDataWarnings(Protocol):
    """A `MethodConfig` that knows which data it does not suit."""

    def data_warnings(self, data: Splits, sampling: Sampling) -> list[str]:
        """Return a sentence for each property of the data that defeats the method's purpose.

        Args:
          data: the data set. `standing_rate`, where it has it, is the rate of the slowest motion
            to and fro in its videos, in radians per frame.
          sampling: which frames make a clip.
        """
        ...


def reject_framework(method: str, framework: FrameworkConfig | None) -> None:
    """Raise `ValueError` if a method that makes its own comparisons gets a framework."""
    if framework is not None:
        raise ValueError(
            f"{method} makes its own comparisons: framework must be None, got "
            f"{type(framework).__name__}"
        )


@runtime_checkable
class ExtraLossFn(Protocol):
    """Computes losses that a method adds to those of its framework."""

    def __call__(
        self,
        params: Tree,
        state: Tree,
        outputs: Outputs,
        context: Tree,
        key: PRNGKeyArray,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""] | float, Scalars, Tree]:
        """Return the sum of these losses, weighted, with metrics and what `update` needs.

        Args:
          params: the network's parameters.
          state: what `init` or the last `update` returned.
          outputs: the network's that are kept, for all views of the global batch.
          context: what was drawn for the views; see `compose`.
          key: random key of this step.
          step: number of the step, from 0.

        Returns:
          (loss, metrics, aux).
        """
        ...


@runtime_checkable
class ExtraInitFn(Protocol):
    """Creates the state of extra losses."""

    def __call__(self, key: PRNGKeyArray, videos: int) -> Tree:
        """Return the state, given the number of videos in a batch."""
        ...


@runtime_checkable
class FreezeFn(Protocol):
    """Freezes some parameters at a step."""

    def __call__(self, params: Tree, step: Int[Array, ""]) -> Tree:
        """Return the network's parameters, the frozen ones without gradient."""
        ...


def _zero_loss(params, state, outputs, context, key, step):
    return 0.0, {}, {}


def _empty_state(key, videos):
    return {}


def _no_update(params, state, aux, step):
    return params, state


def _freeze_none(params, step):
    return params


class ExtraLosses(NamedTuple):
    """Losses of a method's own, added to the comparisons of its framework.

    Attributes:
      loss: computes them.
      init: creates their state.
      update: updates the network's parameters and that state after the optimiser's step.
      freeze: stops the gradient of some of the network's parameters at a step.
    """

    loss: ExtraLossFn = _zero_loss
    init: ExtraInitFn = _empty_state
    update: UpdateFn = _no_update
    freeze: FreezeFn = _freeze_none
