"""A table of bad inputs: each is answered by one line and status 2."""

import pickle

import pytest

HOOK = 'custom_hooks.0.'
MUTATOR = 'model.mutator.'
WIDTH = MUTATOR + 'channel_unit_cfg.'
DEPTH = MUTATOR + 'depth_unit_cfg.'
STEP = 'model.structure_step.'

# What is wrong in the config → what the line contains.
CONFIGS = [
    (HOOK + 'target=0', ('ResourceHook.target (macs)', 'got 0')),
    (HOOK + 'target=-0.5', ('ResourceHook.target', 'got -0.5')),
    (HOOK + 'target=2X', ('ResourceHook.target', "'2X'", "'300M'")),
    (HOOK + 'target=9G', ('9G macs is more than the supernet has',)),
    (HOOK + 'target=1.5', ('cannot be reached', 'ratios are in (0, 1]')),
    (HOOK + 'target=50', ('cannot be reached', 'ratios are in (0, 1]')),
    (HOOK + 'target=0.0', ('ResourceHook.target (macs)', 'got 0')),
    (HOOK + 'target=-1G', ('ResourceHook.target (macs)', "'-1G'")),
    (
        HOOK + 'target=1e-4',
        ('cannot be reached', 'smallest reachable', 'largest', 'supernet'),
    ),
    (HOOK + 'target=nan', ('ResourceHook.target', 'got nan')),
    (HOOK + 'target=[0.5,0.4]', ('ResourceHook.target', '[0.5, 0.4]')),
    (HOOK + 'target=True', ('ResourceHook.target', 'got True')),
    (HOOK + 'resource=time', ("unknown resource 'time'", "'params'")),
    (HOOK + 'resource=latency', ('latency_table', 'profile_latency.py')),
    (HOOK + 'loss_weight=0', ('`loss_weight` of macs', 'got 0')),
    (HOOK + 'loss_weight=-1', ('`loss_weight` of macs', 'got -1')),
    (HOOK + 'loss_weight=inf', ('`loss_weight` of macs', 'got inf')),
    (HOOK + 'loss_weight=much', ('`loss_weight` of macs', "'much'")),
    (HOOK + 'loss_weight.params=1', ("names 'params'", "['macs']")),
    (HOOK + 'warmup=0.5', ('warmup=0.5', 'decay=0.8')),
    (HOOK + 'warmup=long', ('ResourceHook', 'warmup', "'long'")),
    (HOOK + 'warmup=5', ('`warmup`', "'3 epochs'", 'got 5')),
    (HOOK + 'decay=3days', ('`decay`', "'500 iterations'", "'3days'")),
    (HOOK + 'decay=0', ('decay > 0', 'decay=0')),
    (HOOK + 'schedule=stairs', ("'stairs'", "'cosine'")),
    (HOOK + 'divisor=0', ('`divisor`', 'got 0')),
    (HOOK + 'divisor=1.5', ('`divisor`', 'got 1.5')),
    (HOOK + 'interval=0', ('`interval`', 'got 0')),
    (HOOK + 'traget=0.5', ('ResourceHook', "'traget'", 'target')),
    (MUTATOR + 'exclude=[backbone.layer9]', ('mutator.exclude', 'Did you')),
    (MUTATOR + 'exclude=7', ('mutator.exclude', 'got 7')),
    (MUTATOR + 'exclude=head.fc', ('mutator.exclude', "'head.fc'")),
    (WIDTH + 'units.stem.init_args.step=2', ('units', "'stem'", 'Did you')),
    (DEPTH + 'units.layer9.init_args.min_blocks=1', ('units', "'layer9'")),
    (WIDTH + 'default_args.step=0', ('`step` must be an int', 'got 0')),
    (WIDTH + 'default_args.min_ratio=1.5', ('`min_ratio`', '1.5')),
    (WIDTH + 'default_args.min_ratio=low', ('`min_ratio`', "got 'low'")),
    (DEPTH + 'default_args.min_blocks=True', ('min_blocks', 'got True')),
    (DEPTH + 'default_args.max_blocks=1.5', ('max_blocks', 'got 1.5')),
    (HOOK + 'latency_device=T4', ('latency_device', "'T4'", 'table')),
    (WIDTH + 'default_args.max_ratio=-1', ('`max_ratio`', '-1')),
    (WIDTH + 'default_args.steps=2', ('steps', 'channel_unit_cfg')),
    (WIDTH + 'unit.x=1', ('`channel_unit_cfg`', "['unit']")),
    (STEP + 'weight_decay=0', ('structure_step.weight_decay', '`rule`')),
    (STEP + 'rule=fame', ('structure_step', "'fame'")),
    (STEP + 'lr=0', ('structure_step', 'lr', 'got 0')),
    (STEP + 'lr=fast', ('structure_step', 'lr', "'fast'")),
    (STEP + 'lr=nan', ('structure_step', 'lr', 'got nan')),
    (STEP + 'average=1', ('structure_step', 'average', 'got 1')),
    (DEPTH + 'default_args.min_blocks=-1', ('min_blocks', '-1')),
    (DEPTH + 'default_args.max_blocks=9', ('max_blocks', '9')),
    (DEPTH + 'default_args.min_blocks=few', ('min_blocks', "'few'")),
    (DEPTH + 'default_args.blocks=1', ('blocks', 'depth_unit_cfg')),
    (DEPTH + 'type=DepthUnit', ('depth_unit_cfg.type', "'DepthUnit'")),
    (WIDTH + 'type=DMSUnit', ('channel_unit_cfg.type', "'DMSUnit'")),
    (WIDTH + 'type=L1MutableChannelUnit', ('DMSChannelUnit', "'L1Mut")),
    (MUTATOR + 'importance.metric=fame', ('metric', "'fame'")),
    (MUTATOR + 'importance.decay=1.5', ('decay', '1.5')),
    (MUTATOR + 'importance.decay=slow', ('decay', "'slow'")),
    (MUTATOR + 'importance.dekay=0.9', ('mutator.importance', 'dekay')),
    (MUTATOR + 'importance=taylor', ('mutator.importance', "'taylor'")),
    (MUTATOR + 'parse_cfg.type=Backward', ('parse_cfg.type', 'Backward')),
    (MUTATOR + 'parse_cfg.demo=1', ('parse_cfg', 'demo')),
    (MUTATOR + 'exclude=[backbone*,head*]', ('no searchable unit',)),
    ('model.type=mmrazor.DMSAlgorithmus', ('DMSAlgorithmus',)),
    ('model.type=mmrazor.ItePruneAlgorithm', ('not a DMSAlgorithm',)),
    (
        'model.architecture.type=mmcls.ImageClassifier',
        ('mmcls.ImageClassifier', 'mmpretrain now'),
    ),
    ('model.type=DMSAlgorithm', ("write `type='mmrazor.DMSAlgorithm'`",)),
    (MUTATOR + 'parse_cfg=32', ('mutator.parse_cfg', 'got 32')),
    ('model.architecture=resnet18', ('model.architecture', "'resnet18'")),
    ('custom_hooks=5', ('`custom_hooks` must be a list', 'got int')),
    (HOOK + 'out_dir=5', ('`out_dir`', 'got 5')),
    (HOOK + 'milestones=75%', ('`milestones` must be a list', "'75%'")),
    ('custom_hooks=[]', ('has no ResourceHook',)),
    ('custom_hooks.9.x=1', ('--cfg-options do not fit',)),
]


def check(done, *texts):
    """One line on standard error, no traceback, status 2."""
    assert done.status == 2, done.err[-3000:]
    assert 'Traceback' not in done.err
    (line,) = [li for li in done.err.splitlines() if 'error: ' in li]
    assert done.err.splitlines()[-1] == line
    for text in texts:
        assert text in line, line


@pytest.mark.parametrize('options, texts', CONFIGS)
def test_config(options, texts, workspace, call):
    config = workspace / 'search.py'
    args = ('--cfg-options', *options.split())
    check(call('inspect_supernet.py', config, *args), *texts)


TRAININGS = [
    (STEP + 'lr=-1', ('structure_step', 'lr', 'got -1')),
    (
        'optim_wrapper.paramwise_cfg.structure.lr=0.1',
        ('paramwise_cfg.structure', 'model.structure_step', 'lr=0.1'),
    ),
    ('model={architecture}', ('DMSAlgorithm', 'ImageClassifier')),
    ('model={architecture} {default}', ('ResourceHook needs', 'DMSAlgo')),
    (HOOK + 'divisor=0', ('`divisor`', 'got 0')),
    (HOOK + 'decay=9iters', ('decay=9iters', '0 and 9 of 8 iterations')),
    (HOOK + 'decay=2epochs', ('`decay`', 'no epochs', 'by_epoch=False')),
    ('load_from={files}/none.pth', ('none.pth does not exist',)),
]


@pytest.fixture
def train(workspace, call, tmp_path):
    """Start a training that is refused, in this process."""

    def run(config, *args):
        name = f'experiment_name={tmp_path.name}'
        options = [name, *[a for a in args if '=' in str(a)]]
        rest = [a for a in args if '=' not in str(a)]
        done = call(
            *('train.py', config, '--work-dir', tmp_path, *rest),
            *('--cfg-options', *options),
        )
        assert 'Epoch(train)' not in done.out
        return done

    return run


@pytest.mark.parametrize('options, texts', TRAININGS)
def test_training(options, texts, workspace, files, train, tmp_path):
    config = workspace / 'search.py'
    if '{architecture}' in options:
        text = config.read_text() + 'model = architecture\n'
        if '{default}' in options:
            text += "optim_wrapper.pop('constructor')\n"
        config, options = tmp_path / 'search.py', ''
        config.write_text(text)
    args = options.format(files=files).split()
    check(train(config, *args), *texts)


@pytest.fixture(scope='session')
def files(workspace):
    """Files that are broken in some way, and whole ones beside them."""
    import torch
    from mmengine.config import Config

    from dms_mmrazor.engine.search_config import build_algorithm
    from dms_mmrazor.subnet import save_structure

    folder = workspace / 'bad'
    folder.mkdir()
    cfg = Config.fromfile(str(workspace / 'search.py'))
    algorithm = build_algorithm(cfg)
    state = algorithm.state_dict()
    save_structure(algorithm.mutator.structure(), str(folder / 'whole.yaml'))
    torch.save(dict(state_dict=state), folder / 'weights.pth')
    whole = (folder / 'weights.pth').read_bytes()
    (folder / 'half.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'text.pth').write_text('no checkpoint')
    torch.save(dict(x=Malicious(folder)), folder / 'malicious.pth')
    (folder / 'pickle.pth').write_bytes(pickle.dumps(Malicious(folder)))
    torch.save([1, 2], folder / 'list.pth')
    torch.save(dict(state_dict={}), folder / 'nothing.pth')
    plain = algorithm.architecture.state_dict()
    torch.save(dict(state_dict=plain), folder / 'other.pth')
    _write_structures(folder)
    (folder / 'syntax.py').write_text('model = dict(\n')
    (folder / 'raises.py').write_text('a = 1 / 0\n')
    (folder / 'import.py').write_text("_base_ = 'nowhere.py'\n")
    (folder / 'name.py').write_text('a = unknown\n')
    (folder / 'module.py').write_text(
        "custom_imports = dict(imports=['no_such_module'])\n"
    )
    (folder / 'config.txt').write_text('model')
    (folder / 'empty.py').write_text('')
    return folder


class Malicious:
    """Its unpickling makes a file."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return open, (str(self.folder / 'was_here'), 'w')


def _write_structures(folder):
    whole = (folder / 'whole.yaml').read_text()
    kept = next(li for li in whole.splitlines() if li.startswith('    kept: '))
    changes = dict(
        version=('subnet 1', 'subnet 99'),
        channel=(kept, '    kept: 0-9999'),
        words=(kept, '    kept: most'),
        order=(kept, '    kept: 5, 2'),
        layer=('backbone.layer1.0.conv1', 'backbone.layer1.0.convolution'),
        other=('supernet_layers: ', 'supernet_layers: 1'),
        field=('supernet_channels', 'channels'),
        tag=(
            'resources:',
            'x: !!python/object/apply:os.getcwd []\nresources:',
        ),
    )
    for name, (old, new) in changes.items():
        assert old in whole, old
        (folder / f'{name}.yaml').write_text(whole.replace(old, new))
    (folder / 'half.yaml').write_text(whole[: len(whole) // 2])
    (folder / 'broken.yaml').write_text('a: [1, 2\nb: }')
    (folder / 'empty.yaml').write_text('')
    (folder / 'binary.yaml').write_bytes(bytes(range(256)))


STRUCTURES = [
    ('nowhere', ('nowhere.yaml does not exist',)),
    ('broken', ('broken.yaml cannot be read as YAML',)),
    ('tag', ('tag.yaml cannot be read as YAML', 'os.getcwd')),
    ('binary', ('binary.yaml cannot be read as YAML',)),
    ('empty', ('empty.yaml is not a structure file',)),
    ('half', ('half.yaml',)),
    ('version', ('version.yaml is not a structure file', 'subnet 1`')),
    ('channel', ('`kept` is broken', '9999 is not one of')),
    ('words', ('`kept` is broken', "'most'")),
    ('order', ('`kept` is broken', 'not ascending')),
    ('field', ("has no field 'supernet_channels'",)),
]


@pytest.mark.parametrize('name, texts', STRUCTURES)
def test_structure(name, texts, files, call):
    path = files / f'{name}.yaml'
    check(call('visualize_subnet.py', path), *texts)


@pytest.mark.parametrize(
    'name, texts',
    [
        ('layer', ("'backbone.layer1.0.convolution'", 'architecture')),
        ('other', ('another architecture',)),
        ('channel', ('9999 is not one of',)),
    ],
)
def test_structure_of_a_retraining(name, texts, workspace, files, train):
    option = f'model.structure={files / name}.yaml'
    check(train(workspace / 'retrain.py', option), *texts)


CHECKPOINTS = [
    ('nowhere', ('nowhere.pth does not exist',)),
    ('half', ('half.pth cannot be read', 'truncated')),
    ('empty', ('empty.pth cannot be read (0 bytes)',)),
    ('text', ('text.pth', 'not')),
    ('list', ('list.pth holds a list, not a dict',)),
    ('nothing', ('nothing.pth contains no weights',)),
    ('malicious', ('malicious.pth is not loaded: it contains', 'open')),
    ('pickle', ('pickle.pth is not loaded: it contains',)),
    ('other', ('other.pth',)),
]


# What only a text can say → what the line contains.
APPENDED = [
    ('custom_hooks[0].update(target=dict())', ('`target` is empty',)),
    (
        "custom_hooks[0].update(target=dict(macs=0.5, params='2X'))",
        ('ResourceHook.target (params)', "'2X'"),
    ),
    (
        'custom_hooks[0].update(target=dict(macs=0.5, params=-1))',
        ('ResourceHook.target (params)', 'got -1'),
    ),
    (
        'custom_hooks[0].update(target=dict(macs=0.5, params=1e-4))',
        ('params cannot be reached', 'smallest reachable', 'largest'),
    ),
    (
        'custom_hooks[0].update(target=dict(macs=0.5, flops=0.5))',
        ("unknown resource 'flops'",),
    ),
    (
        "model['mutator'].update(channel_unit_cfg=None, depth_unit_cfg=None)",
        ('no searchable unit', 'channel_unit_cfg=None'),
    ),
    (
        "model['mutator'].update(channel_unit_cfg=None, depth_unit_cfg="
        'dict(default_args=dict(min_blocks=9)))',
        ('no searchable unit', 'min_blocks=9'),
    ),
    ('model = architecture', ('ImageClassifier, not a DMSAlgorithm',)),
    (
        'optim_wrapper = dict(_base_.search_optim_wrapper)',
        ('`search_optim_wrapper` is gone', 'delete', 'structure_step'),
    ),
]


@pytest.mark.parametrize('text, texts', APPENDED)
def test_text_of_a_config(text, texts, workspace, call, tmp_path):
    config = tmp_path / 'search.py'
    config.write_text(f'{(workspace / "search.py").read_text()}\n{text}\n')
    check(call('inspect_supernet.py', config), *texts)


@pytest.mark.parametrize('tool_name', ['export_subnet.py', 'test.py'])
@pytest.mark.parametrize('name, texts', CHECKPOINTS)
def test_checkpoint(
    name, texts, tool_name, workspace, files, call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the default work dir
    config, path = workspace / 'search.py', files / f'{name}.pth'
    options = ('--cfg-options', f'experiment_name={tmp_path.name}')
    check(call(tool_name, config, path, *options), *texts)
    assert not (files / 'was_here').exists()


@pytest.mark.parametrize(
    'name, texts',
    [
        ('nowhere', ('nowhere.pth does not exist',)),
        ('half', ('half.pth cannot be read',)),
        ('malicious', ('malicious.pth is not loaded',)),
        ('weights', ('weights.pth has only weights', 'load_from')),
    ],
)
def test_resume(name, texts, workspace, files, train):
    path = files / f'{name}.pth'
    check(train(workspace / 'search.py', '--resume', path), *texts)


@pytest.mark.parametrize(
    'line, texts',
    [
        ('inspect_supernet.py nowhere.py', ('nowhere.py does not exist',)),
        ('inspect_supernet.py {files}', ('does not exist',)),
        ('inspect_supernet.py {files}/syntax.py', ('syntax.py', 'Syntax')),
        ('inspect_supernet.py {files}/raises.py', ('ZeroDivisionError',)),
        ('inspect_supernet.py {files}/name.py', ('NameError', 'unknown')),
        ('inspect_supernet.py {files}/import.py', ('nowhere.py',)),
        ('inspect_supernet.py {files}/module.py', ('no_such_module',)),
        ('inspect_supernet.py {files}/config.txt', ('config.txt', 'json')),
        ('inspect_supernet.py {files}/empty.py', ('has no ResourceHook',)),
        ('train.py {files}/empty.py', ('empty.py', '`model`')),
        ('train.py', ('config',)),
        ('train.py {search} --launcher ssh', ("'ssh'", 'slurm')),
        ('train.py {search} --no-such-option', ('--no-such-option',)),
        ('train.py {search} --cfg-options model', ('--cfg-options', 'model')),
        ('train.py {search} --auto-scale-lr', ('auto_scale_lr',)),
        ('test.py {search} {files}/weights.pth --out a.txt', ('.pkl',)),
        ('export_subnet.py {search}', ('checkpoint',)),
        ('export_subnet.py {search} x.pth --divisor 1.5', ("'1.5'",)),
        ('export_subnet.py {search} {files}/weights.pth --divisor 0', ('0',)),
        (
            'export_subnet.py {search} {files}/weights.pth --target 2X',
            ('target', "'2X'"),
        ),
        (
            'export_subnet.py {search} {files}/weights.pth --target time=1',
            ("unknown resource 'time'",),
        ),
        (
            'export_subnet.py {files}/hookless.py {files}/weights.pth',
            ('has no ResourceHook',),
        ),
        ('visualize_subnet.py {files}/whole.yaml --out a.gif', ('.png',)),
        ('visualize_subnet.py {files}', ('is a folder',)),
    ],
)
def test_command_line(
    line, texts, workspace, files, call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    search = workspace / 'search.py'
    (files / 'hookless.py').write_text(
        search.read_text() + 'custom_hooks = []\n'
    )
    words = line.format(search=search, files=files).split()
    check(call(*words), *texts)


@pytest.mark.parametrize(
    'line, texts',
    [
        ('train.py {files}/raises.py', ('ZeroDivisionError',)),
        ('train.py {search} --resume {files}/half.pth', ('truncated',)),
        ('test.py {search} {files}/malicious.pth', ('it contains',)),
        ('visualize_subnet.py {files}/binary.yaml', ('as YAML',)),
    ],
)
def test_real_process(line, texts, workspace, files, tool, tmp_path):
    search = workspace / 'search.py'
    words = line.format(search=search, files=files).split()
    check(tool(*words, cwd=tmp_path), *texts)


LATENCY = HOOK + 'resource=latency ' + HOOK + 'latency_table={tables}/'
PROFILE = 'profile_latency.py {search} --show {tables}/'

# A broken latency table → what the line contains.
LATENCY_TABLES = [
    ('nowhere', ('nowhere.yaml does not exist',)),
    ('half', ('half.yaml',)),
    ('empty', ('empty.yaml is not a latency table',)),
    ('binary', ('binary.yaml cannot be read as YAML',)),
    ('tag', ('tag.yaml cannot be read as YAML', 'os.getcwd')),
    ('subnet', ('subnet.yaml is not a latency table', 'latency 1`')),
    ('negative', ('`input` is broken', 'is negative')),
    ('infinite', ('`full` is broken', 'not finite')),
    ('device', ('Cortex-A72 (cpu, 1 thread)', 'latency_device')),
    ('gpu', ('cuda', 'latency_device')),
    ('layer', ('lacks layer backbone.conv1', 'another network')),
    ('channels', ('layer backbone.conv1 with (3, 99)', 'another network')),
    ('size', ('(3, 99, 16)', 'demo_input')),
]


@pytest.fixture(scope='session')
def tables(latency_table, files):
    """Latency tables that are broken, or of something else."""
    import yaml

    folder = files / 'tables'
    folder.mkdir()
    text = latency_table.read_text()
    (folder / 'whole.yaml').write_text(text)
    (folder / 'half.yaml').write_text(text[: len(text) // 2])
    (folder / 'empty.yaml').write_text('')
    (folder / 'binary.yaml').write_bytes(bytes(range(256)))
    tag = 'x: !!python/object/apply:os.getcwd []\n'
    (folder / 'tag.yaml').write_text(text + tag)
    (folder / 'subnet.yaml').write_text((files / 'whole.yaml').read_text())
    changes = dict(
        negative=lambda raw, kind: kind['shares'].update(input=-1.0),
        infinite=lambda raw, kind: kind.update(full=float('inf')),
        device=lambda raw, kind: raw['device'].update(name='Cortex-A72'),
        gpu=lambda raw, kind: raw['device'].update(type='cuda', name='G1'),
        layer=lambda raw, kind: kind.update(layers=['backbone.conv0']),
        channels=lambda raw, kind: kind.update(channels=[3, 99]),
        size=lambda raw, kind: raw.update(input_size=[1, 3, 99, 16]),
    )
    for name, change in changes.items():
        raw = yaml.safe_load(text)
        change(raw, next(iter(raw['kinds'].values())))
        (folder / f'{name}.yaml').write_text(yaml.safe_dump(raw))
    return folder


@pytest.mark.parametrize('name, texts', LATENCY_TABLES)
def test_latency_table(name, texts, workspace, tables, call):
    options = LATENCY.format(tables=tables) + f'{name}.yaml'
    config = workspace / 'search.py'
    args = ('--cfg-options', *options.split())
    check(call('inspect_supernet.py', config, *args), *texts)


@pytest.mark.parametrize(
    'line, texts',
    [
        (PROFILE + 'half.yaml', ('half.yaml',)),
        (PROFILE + 'layer.yaml', ('lacks layer backbone.conv1',)),
        (
            PROFILE + 'device.yaml --subnet {tables}/../whole.yaml',
            ('Cortex-A72',),
        ),
        (PROFILE + 'whole.yaml --subnet nowhere.yaml', ('nowhere.yaml',)),
        ('profile_latency.py {search} --device tpu', ("'tpu'",)),
        ('profile_latency.py {search} --device cuda:99', ("'cuda:99'",)),
        ('profile_latency.py {search} --batch-size 0', ('batch_size',)),
        ('profile_latency.py {search} --threads -1', ('threads',)),
        ('profile_latency.py {search} --divisor 0', ('divisor',)),
        ('profile_latency.py {search} --rounds 0', ('rounds',)),
        ('profile_latency.py {search} --structures 1', ('structures',)),
        ('profile_latency.py {search} --rounds many', ("'many'",)),
    ],
)
def test_profile_latency(line, texts, workspace, tables, call):
    words = line.format(search=workspace / 'search.py', tables=tables).split()
    check(call(*words), *texts)


@pytest.mark.parametrize('name', ['nowhere', 'device', 'layer', 'tag'])
def test_training_with_a_latency_table(name, workspace, tables, train):
    texts = dict(LATENCY_TABLES)[name]
    options = LATENCY.format(tables=tables) + f'{name}.yaml'
    check(train(workspace / 'search.py', *options.split()), *texts)
