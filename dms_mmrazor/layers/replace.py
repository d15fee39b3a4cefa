"""Replace plain layers by their dynamic counterparts."""

from torch import nn

from dms_mmrazor.layers.block import block_kind_of
from dms_mmrazor.layers.dms_op import DMSOp
from dms_mmrazor.layers.kind import masked_form


def replace_with_dynamic(model: nn.Module, name: str) -> DMSOp:
    """Make layer ``name`` of ``model`` dynamic, unless it already is.

    A layer that several modules share (the heads of all levels, say) stays
    shared. What would compute it without calling it is made to call it.

    Returns:
        DMSOp: The dynamic layer, now part of the model.
    """
    parent_name, _, child_name = name.rpartition('.')
    parent = model.get_submodule(parent_name)
    module = getattr(parent, child_name)
    if isinstance(module, DMSOp):
        return module
    dynamic = masked_form(type(module)).convert_from(module)
    _put(model, module, dynamic)
    call_modules_of(model, parent_name)
    return dynamic


def call_modules_of(model: nn.Module, name: str) -> None:
    """Let a module and those around it call all modules inside.

    Encoder layers of torch do not in evaluation, where masks and hooks would
    be lost.

    Args:
        model (nn.Module): The supernet.
        name (str): Full name of a module of it.
    """
    while name:
        module = model.get_submodule(name)
        kind = block_kind_of(module)
        if kind is not None and type(module) in kind.calling:
            calling = kind.calling[type(module)]
            _put(model, module, calling.convert_from(module))
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # only torch's kernels read them
        name = name.rpartition('.')[0]


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Let all modules that have the old one have the new one."""
    for owner in model.modules():
        for key, child in owner._modules.items():
            if child is old:
                setattr(owner, key, new)
