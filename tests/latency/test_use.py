import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.latency import (
    measured_beside_supernet,
    save_latency_table,
    use,
    use_latency_table,
)


@pytest.fixture
def save(tmp_path):
    path = str(tmp_path / 'latency.yaml')

    def save_table(table):
        save_latency_table(table, path)
        return path

    return save_table


@pytest.fixture
def fresh(zoo):
    return zoo.algorithm(zoo.cifar_resnet(18)).mutator


def test_gives_the_search_its_latency(table, save, fresh):
    found = use_latency_table(fresh, save(table))
    assert found.kinds == use.load_latency_table(save(table)).kinds
    assert fresh.table.full['latency'] == pytest.approx(
        table.supernet, rel=1e-4
    )


def refused(mutator, path, device=None):
    with pytest.raises(DMSError) as error:
        use_latency_table(mutator, path, device)
    assert '\n' not in str(error.value)
    assert 'latency' not in mutator.table.full
    return str(error.value)


def test_another_network(table, save, zoo):
    other = zoo.algorithm(zoo.cifar_resnet(34)).mutator
    text = refused(other, save(table))
    assert 'lacks layer backbone.layer1.2.conv1' in text
    assert 'tools/profile_latency.py' in text


def test_other_widths(table, save, fresh):
    kind = table.kinds[0]._replace(channels=(3, 99))
    kinds = (kind, *table.kinds[1:])
    text = refused(fresh, save(table._replace(kinds=kinds)))
    assert 'layer backbone.conv1 with (3, 99) channels' in text


def test_layers_too_many(table, save, fresh):
    kind = table.kinds[0]._replace(layers=('backbone.conv1', 'extra'))
    kinds = (kind, *table.kinds[1:])
    text = refused(fresh, save(table._replace(kinds=kinds)))
    assert 'layer extra, which the supernet lacks' in text


def test_another_input_size(table, save, fresh):
    text = refused(fresh, save(table._replace(input_size=(1, 3, 64, 64))))
    assert '(3, 64, 64)' in text and 'demo_input' in text


def test_a_batch_may_have_any_size(table, save, fresh):
    use_latency_table(fresh, save(table._replace(input_size=(9, 3, 32, 32))))
    assert 'latency' in fresh.table.full


def of_device(table, **changes):
    return table._replace(device=table.device._replace(**changes))


def test_another_device(table, save, fresh):
    path = save(of_device(table, name='Cortex-A72'))
    text = refused(fresh, path)
    assert 'Cortex-A72 (cpu, 1 thread)' in text
    assert "`ResourceHook.latency_device='Cortex-A72'`" in text
    # Whoever names the device means it.
    use_latency_table(fresh, path, 'cortex')
    assert 'latency' in fresh.table.full


def test_not_the_device_that_is_named(table, save, fresh):
    text = refused(fresh, save(table), 'RTX 3090')
    assert "`ResourceHook.latency_device` 'RTX 3090'" in text


def test_no_gpu_here(table, save, fresh, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    path = save(of_device(table, type='cuda', name='NVIDIA H200'))
    assert 'this machine has no GPU' in refused(fresh, path)


def test_another_gpu(table, save, fresh, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda d: 'Tesla T4')
    path = save(of_device(table, type='cuda', name='NVIDIA H200'))
    text = refused(fresh, path)
    assert 'NVIDIA H200' in text and "'Tesla T4'" in text


def test_measures_what_was_found(table, save, zoo, by_formula):
    """Supernet and subnet in turns; nothing if the table is not of here."""
    search = zoo.algorithm(zoo.cifar_resnet(18))
    path = save(table)
    found = measured_beside_supernet(search, path, search.mutator.structure())
    assert found['supernet'] == found['subnet'] > 0
    assert by_formula[-1]['size'] == table.input_size
    other = table._replace(device=table.device._replace(name='Cortex'))
    path = save(other)
    assert measured_beside_supernet(search, path, None) == {}
