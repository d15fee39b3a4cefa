from dms_mmrazor.models.mutators.blame import as_patterns, find_guilty

NAMES = [f'layers.{i}.{part}' for i in range(6) for part in ('a', 'b', 'c')]


def test_the_guilty_family_is_found():
    trials = []

    def fails(names):
        trials.append(names)
        return 'layers.3.b' in names

    guilty = find_guilty(NAMES, fails)
    assert guilty == [f'layers.{index}.b' for index in range(6)]
    assert as_patterns(guilty, NAMES) == ['layers.*.b']
    assert len(trials) <= 4


def test_several_families_and_single_units():
    guilty = find_guilty(['x', *NAMES], lambda names: bool({'x'} & set(names)))
    assert guilty == ['x'] == as_patterns(guilty, NAMES)
    bad = {'x', 'layers.0.c'}
    guilty = find_guilty(['x', *NAMES], lambda names: bool(bad & set(names)))
    assert as_patterns(guilty, ['x', *NAMES]) == ['x', 'layers.*.c']


def test_units_that_fail_only_together_are_blamed_together():
    def fails(names):
        return {'one', 'three'} <= set(names)

    names = ['one', 'two', 'three', 'four']
    assert find_guilty(names, fails) == names


def test_patterns_spare_units_that_are_innocent():
    assert as_patterns(['layers.0.a', 'layers.1.a'], NAMES) == [
        'layers.0.a',
        'layers.1.a',
    ]
