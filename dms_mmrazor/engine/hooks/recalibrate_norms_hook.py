"""Norms of a subnet that was cut out of a supernet and not trained."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from dms_mmrazor.engine.subnet_fitness import NormRecalibration
from dms_mmrazor.registry import HOOKS


@HOOKS.register_module()
class RecalibrateNormsHook(Hook):
    """Computes the statistics of batch norms anew before a test.

    For subnets of a structure-only search (DMS paper, Table 1), whose
    weights stay what they were in the supernet::

        custom_hooks = [dict(type='mmrazor.RecalibrateNormsHook')]

    Args:
        images (int): Of the training data, with the pipeline of
            ``val_dataloader``. Defaults to 4096.
    """

    def __init__(self, images: int = 4096) -> None:
        self.images = images

    def before_test(self, runner: Runner) -> None:
        """Recalibrate the model that is tested."""
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        seen = NormRecalibration(runner, self.images)(model)
        runner.logger.info(f'Norms recalibrated on {seen} images.')
