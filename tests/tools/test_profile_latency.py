import yaml

FAST = ('--structures', 4, '--rounds', 1, '--threads', 1)


def test_shows_what_it_has_measured(latency_table, workspace, call):
    done = call(
        'profile_latency.py', workspace / 'search.py', '--show', latency_table
    )
    assert done.status == 0, done.err
    assert '(cpu, 1 thread)' in done.out and 'input 1x3x16x16' in done.out
    assert '8 structures that no fit has seen' in done.out
    raw = yaml.safe_load(latency_table.read_text())
    # The search's own divisor.
    assert raw['divisor'] == 2
    for kind in raw['kinds']:
        assert kind in done.out


def test_serves_the_inspection(latency_table, workspace, call):
    options = (
        f'custom_hooks.0.latency_table={latency_table}',
        'custom_hooks.0.resource=latency',
        'custom_hooks.0.target=0.99',
    )
    done = call(
        *('inspect_supernet.py', workspace / 'search.py'),
        *('--cfg-options', *options),
    )
    assert done.status == 0, done.err
    assert 'ms latency, 0.990 of the supernet: reachable.' in done.out
    lines = done.out.splitlines()
    (row,) = [line for line in lines if line.startswith('latency ')]
    numbers = [float(word) for word in row.split()[1:] if word != 'ms']
    assert len(numbers) == 4 and numbers[0] == numbers[1] > numbers[2]


def test_measures_a_subnet(latency_table, workspace, search, call):
    subnet = search / 'subnet' / 'subnet.yaml'
    done = call(
        *('profile_latency.py', workspace / 'search.py', '--rounds', 1),
        *('--show', latency_table, '--subnet', subnet),
    )
    assert done.status == 0, done.err
    lines = done.out.splitlines()[-2:]
    assert lines[0].startswith('supernet: ')
    assert lines[1].startswith(f'{subnet}: ')
    for line in lines:
        assert ' ms measured, ' in line and ' ms predicted (' in line
    assert '1.000 of the supernet measured, 1.000 predicted' in lines[0]


def test_writes_where_the_config_looks(workspace, call, tmp_path):
    path = tmp_path / 'deep' / 'table.yaml'
    done = call(
        *('profile_latency.py', workspace / 'search.py', *FAST),
        *('--divisor', 4, '--batch-size', 2),
        *('--cfg-options', f'custom_hooks.0.latency_table={path}'),
    )
    assert done.status == 0, done.err
    raw = yaml.safe_load(path.read_text())
    assert raw['divisor'] == 4 and raw['input_size'] == [2, 3, 16, 16]
    assert [entry.name for entry in path.parent.iterdir()] == ['table.yaml']


def test_exports_with_the_predicted_latency(
    latency_table, workspace, search, call, tmp_path
):
    done = call(
        *('export_subnet.py', workspace / 'search.py', search / 'iter_8.pth'),
        *('--out-dir', tmp_path, '--target', 'latency=0.99'),
        *('--cfg-options', f'custom_hooks.0.latency_table={latency_table}'),
    )
    assert done.status == 0, done.err
    (line,) = [li for li in done.out.splitlines() if li.startswith('latency')]
    assert ' ms of ' in line and ', target ' in line
    raw = yaml.safe_load((tmp_path / 'subnet.yaml').read_text())
    row = raw['resources']['latency']
    assert row['subnet'] <= row['target'] and row['unit'] == 'ms'


def test_a_search_measures_what_it_shows(
    latency_table, workspace, call, tmp_path
):
    """A whole search to a latency; its card has times that were measured."""
    done = call(
        *('train.py', workspace / 'search.py', '--work-dir', tmp_path),
        *('--cfg-options', f'custom_hooks.0.latency_table={latency_table}'),
        'custom_hooks.0.resource=latency',
        'custom_hooks.0.target=0.99',
    )
    assert done.status == 0, done.err
    raw = yaml.safe_load((tmp_path / 'subnet' / 'subnet.yaml').read_text())
    row = raw['resources']['latency']
    assert row['subnet'] <= row['target'] and row['unit'] == 'ms'
    page = (tmp_path / 'subnet' / 'card.html').read_text()
    assert 'Time was not measured' not in page
    assert 'Whole models were not measured' not in page
