"""What must be known of a library's models to run them for their tensors.

A library's file in `plugins/` holds a handler for those of its models that
take more than images::

    @register_model
    class DetrKind(ModelKind):
        names = ('mmdet.models.detectors.base_detr.DetectionTransformer',)

        def extras(self, model, shape, few=False):
            ...
"""

from typing import (
    Any,
    Callable,
    ClassVar,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from torch import Tensor, nn

from dms_mmrazor.layers.by_type import ByType

Forward = Callable[[nn.Module, Callable[..., Any], Tensor], Any]
"""Takes a model, what runs its own forward, and images."""


class ModelKind:
    """One kind of model; what is written here holds for any other.

    Attributes:
        types (tuple[type]): Classes of such models; those that derive from
            them are meant, too.
        names (tuple[str]): Full names of further classes, of libraries that
            nobody needs to have.
    """

    types: ClassVar[Tuple[type, ...]] = ()
    names: ClassVar[Tuple[str, ...]] = ()

    def vocabulary(self, model: nn.Module) -> int:
        """Number of tokens that it knows; 0 if its inputs are no tokens."""
        return int(getattr(model, 'token_vocabulary', 0))

    def example(self, model: nn.Module, inputs: Any) -> Any:
        """What the network itself sees of example inputs.

        Args:
            model (nn.Module): The model.
            inputs (Any): What the user calls it with.

        Returns:
            Any: The same, or a batch of images [B, C, H, W].
        """
        return inputs

    def extras(
        self, model: nn.Module, shape: Sequence[int], few: bool = False
    ) -> Optional[Forward]:
        """How it is run where images alone are not enough.

        Args:
            model (nn.Module): The model.
            shape (Sequence[int]): (B, C, H, W) of the images.
            few (bool): With as little beside them as will do. Defaults to
                False.

        Returns:
            Forward, optional: Gives what the network computes of images of
            that shape, before any post-processing. ``None`` where images are
            enough.

        Raises:
            DMSError: If a model of this kind cannot be run so.
        """
        return None

    def untraceable(self, model: nn.Module) -> str:
        """Why its channels are not followed; empty if they are."""
        return ''

    def why_not_onnx(self, model: nn.Module) -> str:
        """Why it cannot be one ONNX file; empty if it can."""
        if self.vocabulary(model):
            return (
                'its inputs are tokens, ONNX files are of images here; write '
                'a folder for transformers by tools/export_hf.py, without '
                '--onnx'
            )
        return ''


_MODELS: ByType[ModelKind] = ByType()
_OTHER = ModelKind()

KindType = TypeVar('KindType', bound=Type[ModelKind])


def register_model(kind: KindType) -> KindType:
    """Make a kind of model known."""
    _MODELS.add(kind(), (*kind.types, *kind.names))
    return kind


def model_kind_of(model: object) -> ModelKind:
    """The kind of a model."""
    return _MODELS.find(type(model)) or _OTHER


def vocabulary_of(model: object) -> int:
    """Number of tokens that a model knows; 0 if its inputs are no tokens."""
    return model_kind_of(model).vocabulary(model)
