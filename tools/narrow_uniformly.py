"""Write the structure file of a supernet narrowed by one ratio everywhere.

The honest baseline of a search: the same architecture at the same resource,
without a search. Train it with the search's own retraining config.
"""

import argparse

from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)
from dms_mmrazor.apis import uniform_structure
from dms_mmrazor.engine.hooks import find_resource_hook
from dms_mmrazor.models.subnet import save_structure


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of the search')
    parser.add_argument('out', help='structure file to write')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes of keys'
    )
    return parser.parse_args()


def main() -> None:
    """Narrow the config's supernet to the target of its ResourceHook."""
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    algorithm = MODELS.build(cfg.model)
    hook = find_resource_hook(cfg)
    targets = hook.resolve(algorithm)
    structure = uniform_structure(algorithm.mutator, targets, hook.divisor)
    save_structure(structure, args.out)


if __name__ == '__main__':
    main()
