import pytest
import torch

from dms_mmrazor.cli.checkpoint_export import (
    SearchProgress,
    _scheduled_targets,
    load_search,
)
from dms_mmrazor.engine.hooks import ResourceHook
from dms_mmrazor.errors import DMSError
from dms_mmrazor.search.export import export_subnet, save_subnet


@pytest.fixture
def search(zoo, randomize_structure):
    search = zoo.algorithm(zoo.cifar_resnet(18))
    randomize_structure(search.mutator)
    return search


@pytest.fixture
def save(search, tmp_path):
    def write(state=None, **content):
        path = str(tmp_path / 'search.pth')
        state = search.state_dict() if state is None else state
        torch.save(dict(state_dict=state, **content), path)
        return path

    return write


def hub(**info):
    return dict(log_scalars={}, runtime_info=info, resumed_keys={})


def test_loads_weights_and_choices(search, save, zoo):
    path = save(meta=dict(iter=3), message_hub=hub(max_iters=9))
    other = zoo.algorithm(zoo.cifar_resnet(18))
    assert other.mutator.current_choices != search.mutator.current_choices
    progress = load_search(other, path)
    assert other.mutator.current_choices == search.mutator.current_choices
    assert progress == SearchProgress(3, 9)
    assert not progress.finished
    for name, value in search.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_length_of_the_search(search, save):
    path = save(meta=dict(iter=3))
    assert load_search(search, path).finished
    known = dict(train_cfg=dict(max_iters=6))
    assert load_search(search, path, known).fraction == 0.5


def test_classes_of_the_data_go_with_the_weights(search, save, tmp_path):
    from dms_mmrazor.engine.checkpoint_files import read_checkpoint

    meta = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])
    progress = load_search(search, save(meta=dict(dataset_meta=meta)))
    assert progress.dataset_meta == meta
    subnet = export_subnet(search)
    for given, written in ((meta, {'dataset_meta': meta}), (None, {})):
        files = save_subnet(subnet, str(tmp_path), given)
        assert read_checkpoint(files['weights'])['meta'] == written


def test_names_of_a_distributed_wrapper(search, save):
    state = {f'module.{k}': v for k, v in search.state_dict().items()}
    load_search(search, save(state))


def test_checkpoints_that_do_not_fit(search, save, zoo):
    with pytest.raises(DMSError, match='not the checkpoint of a search'):
        load_search(search, save(search.architecture.state_dict()))
    more = {**search.state_dict(), 'architecture.extra': torch.ones(1)}
    with pytest.raises(DMSError, match="no 'architecture.extra'"):
        load_search(search, save(more))
    other = zoo.algorithm(zoo.cifar_resnet(34))
    with pytest.raises(DMSError, match='another model'):
        load_search(other, save())


@pytest.mark.parametrize(
    'settings, ratios',
    [
        (dict(warmup=0.2, decay=0.5), (1, 0.5, 0.25)),
        (dict(warmup='2 epochs', decay='50 iterations'), (1, 0.5, 0.25)),
        (
            dict(warmup=0.2, decay=0.5, milestones=['40%'], settle=0.2),
            (1, 0.4, 0.25),
        ),
    ],
)
def test_targets_of_each_phase(search, settings, ratios):
    hook = ResourceHook(target=0.25, divisor=1, **settings)
    hook.resolve(search)
    whole = search.mutator.table.full['macs']
    found = [
        _scheduled_targets(search, hook, SearchProgress(done, 100, 10))
        for done in (10, 45, 90)
    ]
    assert [row['macs'] / whole for row in found] == pytest.approx(ratios)


def test_phases_that_do_not_fit(search):
    hook = ResourceHook(target=0.25, warmup='9 epochs', decay=0.5)
    hook.resolve(search)
    with pytest.raises(DMSError, match='ResourceHook: .*90 and 30 of 60'):
        _scheduled_targets(search, hook, SearchProgress(25, 60, 10))
