import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.latency import (
    Settings,
    compare,
    compare_structures,
    describe_latency_table,
    measure,
    profile_latency,
)
from dms_mmrazor.latency.measure import timed_layers, use_threads
from dms_mmrazor.supernet.plain import plain_copy

CPU = torch.device('cpu')


def test_finds_the_law_of_every_layer(table, search):
    plain = plain_copy(search.architecture)
    assert set(table.fits) == set(timed_layers(plain))
    assert all(fit.worst < 1e-6 for fit in table.fits.values())
    # 0.02 + 0.001 · 64 + 0.002 · 64 + 0.0001 · 64²
    fit = table.fits['backbone.layer3.1.conv1']
    assert fit.full == pytest.approx(0.6216)
    expected = [n / 0.6216 for n in (0.02, 0.064, 0.128, 0.4096)]
    assert fit.shares == pytest.approx(expected, abs=1e-6)


def test_predicts_what_no_fit_has_seen(table):
    assert table.held_out['structures'] == 3
    assert table.held_out['worst'] < 1e-6
    assert set(table.rounding) == {1, 2, 8, 16, 32}
    assert list(table.rounding.values()) == pytest.approx([1] * 5)
    assert table.best_divisor == 1


def test_says_how_it_was_measured(table, profiled):
    assert table.device.type == 'cpu' and table.device.threads == 1
    assert table.device.torch == torch.__version__
    assert table.input_size == (1, 3, 32, 32)
    assert (table.divisor, table.rounds) == (2, 2)
    assert {call['rounds'] for call in profiled.calls} == {2}
    assert {call['size'] for call in profiled.calls} == {(1, 3, 32, 32)}


def test_the_search_has_the_latency_now(table, search):
    mutator = search.mutator
    total = sum(fit.full for fit in table.fits.values())
    assert mutator.table.full['latency'] == pytest.approx(total)
    assert table.supernet == pytest.approx(total)


def test_measured_widths_are_multiples(table):
    for kind in table.kinds:
        for inputs, outputs, milliseconds in kind.points:
            assert inputs % 2 == 0 or inputs == kind.channels[0]
            assert outputs % 2 == 0 or outputs == kind.channels[1]
            assert milliseconds > 0
        assert len(kind.points) > 1


def test_compares_subnets(table, search, by_formula, randomize_structure):
    structures = []
    for seed in range(3):
        randomize_structure(search.mutator, seed)
        structures.append(search.mutator.structure())
    rows = compare_structures(search, table, structures)
    assert len(rows) == 4
    assert rows[0].measured == pytest.approx(table.supernet)
    assert all(abs(row.error) < 1e-6 for row in rows)
    assert all(row.measured < rows[0].measured for row in rows[1:])


def test_the_description_names_everything(table):
    text = '\n'.join(describe_latency_table(table))
    assert '(cpu, 1 thread)' in text and 'input 1x3x32x32' in text
    for kind in table.kinds:
        assert f'{len(kind.layers)}x {kind.name}' in text
    assert '3 structures that no fit has seen' in text
    assert '`ResourceHook.divisor=1`' in text
    assert 'WARNING' not in text


def test_bad_predictions_are_not_kept_quiet(table):
    bad = table._replace(held_out=dict(structures=3, mean=0.12, worst=0.4))
    last = describe_latency_table(bad)[-1]
    assert last.startswith('WARNING: predictions are off by more than 10%')


def test_the_smallest_good_divisor_is_recommended(table):
    ratios = {1: 1.8, 8: 1.3, 16: 1.03, 32: 1.0}
    assert table._replace(rounding=ratios).best_divisor == 16
    assert table._replace(rounding={}).best_divisor == table.divisor


def test_a_slower_machine_is_no_error_of_the_table(
    table, search, by_formula, monkeypatch, randomize_structure
):
    measure_at_ease = compare.measure

    def measure_when_busy(*args):
        return [
            row._replace(total=2 * row.total) for row in measure_at_ease(*args)
        ]

    monkeypatch.setattr(compare, 'measure', measure_when_busy)
    randomize_structure(search.mutator, 0)
    rows = compare_structures(search, table, [search.mutator.structure()])
    for row in rows:
        assert row.error == pytest.approx(-0.5)
        assert row.paired_error == pytest.approx(0, abs=1e-6)


def test_really_measures(zoo, randomize_structure):
    """With the true clock: nothing is asserted of the times."""
    search = zoo.algorithm(zoo.cifar_resnet(18), 16)
    weights = {k: v.clone() for k, v in search.state_dict().items()}
    table = profile_latency(
        search,
        Settings(batch_size=2, structures=4, held_out=1, rounds=1, threads=1),
    )
    assert table.input_size == (2, 3, 16, 16)
    assert table.supernet > 0
    assert all(fit.full > 0 for fit in table.fits.values())
    assert all(ratio > 0 for ratio in table.rounding.values())
    for key, value in search.state_dict().items():
        torch.testing.assert_close(value, weights[key], msg=key)


def test_layers_add_up_to_the_pass(zoo):
    models = [zoo.plain(zoo.cifar_resnet(18)) for _ in range(2)]
    rows = measure(models, (1, 3, 16, 16), CPU, 3, by_layer=True)
    for row in rows:
        assert sum(row.layers.values()) == pytest.approx(row.total)


def test_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), use_threads(2):
        assert torch.get_num_threads() == 2
        raise RuntimeError
    assert torch.get_num_threads() == before
    with use_threads(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    'setting, text',
    [
        (dict(device='tpu'), "'tpu'"),
        (dict(device='mps'), "'mps'"),
        (dict(batch_size=0), 'batch_size'),
        (dict(threads=0), 'threads'),
        (dict(divisor=-1), 'divisor'),
        (dict(structures=3), 'structures'),
        (dict(rounds=0), 'rounds'),
        (dict(held_out=0), 'held_out'),
    ],
)
def test_settings_that_cannot_be(search, setting, text):
    with pytest.raises(DMSError, match=text):
        profile_latency(search, Settings(**setting))


def test_no_gpu(search, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(DMSError, match="'cuda:0' is not available"):
        profile_latency(search, Settings(device='cuda:0'))
