"""The folder of transformers at the end of a training by mmengine."""

from typing import Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from dms_mmrazor.plugins.transformers.folder import (
    language_model,
    save_folder,
)
from dms_mmrazor.plugins.transformers.loading import (
    has_lora,
    has_tokenizer,
    load_tokenizer,
)
from dms_mmrazor.plugins.transformers.lora import merge_lora
from dms_mmrazor.registry import HOOKS


@HOOKS.register_module()
class SaveFolderHook(Hook):
    """Writes a trained language model as a Hugging Face folder.

    Adapters are merged by then; checkpoints have been written before.

    Args:
        folder (str): Where to; it is made if missing.
        tokenizer (str, optional): Folder whose tokenizer is written beside
            it. Defaults to None.
        source (str): Of which model it is a part, for the model card.
            Defaults to ''.
    """

    # After the hook of checkpoints.
    priority = 'LOWEST'

    def __init__(
        self, folder: str, tokenizer: Optional[str] = None, source: str = ''
    ) -> None:
        self._folder, self._tokenizer = folder, tokenizer
        self._source = source

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Merge and write.

        Args:
            runner (Runner): Of the training.

        Raises:
            DMSError: If it trains no language model with known layers.
        """
        model: nn.Module = runner.model
        if is_model_wrapper(model):
            model = model.module
        # A teacher may be beside what is trained.
        model = getattr(model, 'architecture', model)
        if has_lora(language_model(model)):
            merge_lora(model)
        tokenizer = None
        if self._tokenizer and has_tokenizer(self._tokenizer):
            tokenizer = load_tokenizer(self._tokenizer)
        save_folder(model, self._folder, tokenizer, source=self._source)
        runner.logger.info(f'The language model is written to {self._folder}.')
