"""Write ``configs.md``: every config, and what was run of it.

python docs/list_configs.py
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Configs

Every config of the repository, and what was run of it; made by
`python docs/list_configs.py`. *Built* means: a test builds the model and looks
whether the target is in reach; nobody has trained it to its end. Those of the
paper use its supernets and targets (ImageNet families, YOLOv8).

| config | what was run |
|---|---|
"""

RUN = {
    'digits/': 'whole, with seeds, by the former `make demo`',
    'cifar10/': 'searches of 400 iterations, and to a latency: '
    '`configs/cifar10/README.md`',
    'bccd': 'whole, with seeds, by the former structure step: '
    '`configs/yolov8/README.md`',
    'spaces/': 'see `configs/spaces/README.md`',
    'segformer/': 'built, trained two steps, exported and retrained two steps '
    'by a test, with small widths',
    'deeplabv3plus/': 'as `segformer/`',
    'pspnet/': 'as `segformer/`',
    'unet/': 'as `segformer/`',
    'topdown_heatmap/': 'as `segformer/`',
    'llama/': 'on a tiny checkpoint: `configs/llama/README.md`',
}
"""What was done beyond building, by a part of the path."""


def names() -> list:
    """Paths of all configs below ``configs``, without bases."""
    folder = ROOT / 'configs'
    paths = [path.relative_to(folder) for path in folder.rglob('*.py')]
    return sorted(p.as_posix() for p in paths if p.parts[0] != '_base_')


def main() -> None:
    """Write the page."""
    rows = []
    for name in names():
        done = [text for part, text in RUN.items() if part in name]
        rows.append(f'| `{name}` | {done[0] if done else "built"} |\n')
    page = HEAD + ''.join(rows)
    (ROOT / 'docs/configs.md').write_text(page, encoding='utf-8')


if __name__ == '__main__':
    main()
