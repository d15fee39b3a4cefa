"""From a checkpoint of a search to a subnet."""

import os.path as osp
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import torch
from mmengine.config import Config

from dms_mmrazor.engine.checkpoint_files import (
    check_fits,
    read_checkpoint,
    state_dict_of,
)
from dms_mmrazor.engine.search_config import build_algorithm
from dms_mmrazor.errors import DMSError
from dms_mmrazor.models.algorithms import DMSAlgorithm
from dms_mmrazor.search.export import (
    ExportedSubnet,
    export_subnet,
    save_subnet,
)
from dms_mmrazor.subnet.onnx_export import check_onnx, export_onnx
from dms_mmrazor.supernet.resources import RESOURCES
from dms_mmrazor.version import __version__

ONNX_FILE = 'subnet.onnx'


class SearchProgress(NamedTuple):
    """How far the search of a checkpoint was.

    Attributes:
        iteration (int): Trained iterations.
        total (int): Iterations of the whole search; 0 if unknown.
        per_epoch (float, optional): Iterations of an epoch, if known.
        dataset_meta (Mapping[str, Any], optional): Names of the classes and
            the like, if known.
    """

    iteration: int
    total: int
    per_epoch: Optional[float] = None
    dataset_meta: Optional[Mapping[str, Any]] = None

    @property
    def fraction(self) -> float:
        """Progress in [0, 1]; 1 if the total is unknown."""
        return min(self.iteration / self.total, 1.0) if self.total else 1.0

    @property
    def finished(self) -> bool:
        """Whether the search was at its end."""
        return self.fraction >= 1

    def __str__(self) -> str:
        return f'iteration {self.iteration} of {self.total or "unknown"}'


def export_checkpoint(
    cfg: Config,
    hook: Any,
    checkpoint: str,
    folder: str,
    scheduled: bool = True,
    onnx: bool = False,
) -> List[str]:
    """Make ``subnet.yaml`` and ``subnet.pth`` from a search's checkpoint.

    Args:
        cfg (Config): Config of the search.
        hook (ResourceHook): Its targets, divisor and schedule.
        checkpoint (str): Checkpoint of any iteration.
        folder (str): Where to write.
        scheduled (bool): From the middle of a search, export for the target
            of that moment, not for the final one. Defaults to True.
        onnx (bool): Write ``subnet.onnx`` too. Defaults to False.

    Returns:
        list[str]: What was done, for the user.

    Raises:
        DMSError: If the checkpoint does not fit, or a target cannot be
            reached.
    """
    algorithm = build_algorithm(cfg)
    if onnx:
        # Before anything is written.
        check_onnx(algorithm.architecture)
    targets = dict(hook.resolve(algorithm))
    progress = load_search(algorithm, checkpoint, cfg)
    lines = [f'{checkpoint}: {progress}']
    if scheduled and not progress.finished:
        targets = _scheduled_targets(algorithm, hook, progress)
        lines.append(
            'The search was not at its end: exported for the target that was '
            'scheduled at that iteration; --target sets another one.'
        )
    search = {
        'dms_mmrazor': __version__,
        'torch': str(torch.__version__),
        'config': osp.basename(cfg.filename or ''),
        'checkpoint': osp.basename(checkpoint),
        'iterations': progress.iteration,
    }
    subnet = export_subnet(algorithm, targets, hook.divisor, search)
    written = save_subnet(subnet, folder, progress.dataset_meta)
    paths = list(written.values())
    if onnx:
        size = algorithm.mutator.analyzer.input_size
        paths.append(osp.join(folder, ONNX_FILE))
        difference = export_onnx(subnet.model, size, paths[-1])
        lines.append(_onnx_line(difference))
    return [*lines, *_summary(subnet), f'Wrote {", ".join(paths)}.']


def _scheduled_targets(
    algorithm: DMSAlgorithm, hook: Any, progress: SearchProgress
) -> Dict[str, float]:
    """Targets of the moment of a checkpoint, milestones included."""
    length = progress.total, progress.per_epoch
    path = hook.course.path(algorithm.mutator, hook.targets, *length)
    full = algorithm.mutator.table.full
    found = path.at(progress.iteration)
    return {kind: min(found[kind], full[kind]) for kind in found}


def _onnx_line(difference: Optional[float]) -> str:
    if difference is None:
        return 'onnxruntime is not installed: the ONNX file is not checked.'
    return f"ONNX Runtime's outputs equal the model's to {difference:.1e}."


def _summary(subnet: ExportedSubnet) -> List[str]:
    """Resources of an exported subnet, and how exact it is."""
    lines = []
    for kind, row in subnet.structure.resources.items():
        shown = {
            key: RESOURCES[kind].in_full(row[key])
            for key in ('subnet', 'supernet', 'target')
            if key in row
        }
        target = f', target {shown["target"]}' if 'target' in row else ''
        lines.append(
            f'{kind}: {shown["subnet"]} of {shown["supernet"]} '
            f'({row["ratio"]:.4f}{target})'
        )
    return [
        *lines,
        str(subnet.fit),
        f"Outputs equal the masked supernet's to {subnet.difference:.1e}.",
    ]


def load_search(
    algorithm: DMSAlgorithm, path: str, cfg: Optional[Config] = None
) -> SearchProgress:
    """Load the checkpoint of a search, every weight and every choice.

    Args:
        algorithm (DMSAlgorithm): Built from the config of the search; it is
            changed in place.
        path (str): The checkpoint, of any iteration.
        cfg (Config, optional): Config of the search, for its length where
            the checkpoint does not tell it. Defaults to None.

    Raises:
        DMSError: If it cannot be read or belongs to another model.
    """
    checkpoint = read_checkpoint(path)
    state = state_dict_of(checkpoint, path)
    state = {_without_wrapper(name): value for name, value in state.items()}
    if not any(name.startswith('mutator.') for name in state):
        raise DMSError(
            f'{path} is not the checkpoint of a search: it has no '
            "'mutator.' weights."
        )
    check_fits(algorithm, state, path)
    unknown = sorted(set(state) - set(algorithm.state_dict()))
    if unknown:
        raise DMSError(
            f'checkpoint {path} belongs to another model than the config: '
            f'the model has no {unknown[0]!r}.'
        )
    algorithm.load_state_dict(state)
    algorithm.eval()
    return _progress(checkpoint, cfg)


def _without_wrapper(name: str) -> str:
    """A name without the prefix of a distributed wrapper."""
    return name[len('module.') :] if name.startswith('module.') else name


def _progress(
    checkpoint: Mapping[str, Any], cfg: Optional[Config]
) -> SearchProgress:
    meta = checkpoint.get('meta') or {}
    hub = checkpoint.get('message_hub')
    info = hub.get('runtime_info', {}) if isinstance(hub, dict) else {}
    train_cfg = cfg.get('train_cfg') if cfg is not None else None
    total = info.get('max_iters') or (train_cfg or {}).get('max_iters') or 0
    epochs = info.get('max_epochs')
    return SearchProgress(
        int(meta.get('iter') or 0),
        int(total),
        total / epochs if epochs else None,
        meta.get('dataset_meta'),
    )
