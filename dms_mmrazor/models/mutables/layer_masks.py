"""The masks of one layer at one step."""

from typing import Any, Dict, Optional

from torch import Tensor


class LayerMasks:
    """What multiplies the parameters of a layer; ``None``: nothing.

    A plain object that a layer reads and the mask plan fills. Copies start
    empty, as masks belong to the autograd graph of one step.

    Args:
        inputs (Tensor, optional): Mask of the input channels [in].
        outputs (Tensor, optional): Mask of the output channels [out].
        depth (Tensor, optional): Mask of the block whose residual branch
            the layer ends, of one element.
        carried (bool): Whether ``inputs`` (without them ``outputs``) have
            been multiplied by ``depth``, so that only a bias still needs
            it. Defaults to False.
    """

    __slots__ = ('inputs', 'outputs', 'depth', 'carried')

    def __init__(
        self,
        inputs: Optional[Tensor] = None,
        outputs: Optional[Tensor] = None,
        depth: Optional[Tensor] = None,
        carried: bool = False,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.depth = depth
        self.carried = carried

    def __getstate__(self) -> Dict[str, Any]:
        return {'carried': self.carried}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__init__(**state)
