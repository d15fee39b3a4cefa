import struct

import pytest

from dms_mmrazor.search.export import export_subnet
from dms_mmrazor.visualization import plot_subnet, save_plot


@pytest.fixture
def structure(zoo, randomize_structure):
    search = zoo.algorithm(zoo.cifar_resnet(34))
    randomize_structure(search.mutator, seed=3)
    return export_subnet(search, divisor=1).structure


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
    return found


def test_every_unit_and_block_is_shown(structure):
    figure = plot_subnet(structure, 'a title')
    found = texts(figure)
    assert 'a title' in found
    for stage in structure.stages:
        kept, total = len(stage.kept), len(stage.blocks)
        assert f'{kept} of {total} removable blocks kept' in found
    removed = found.count('removed')
    shown = [text for text in found if ' / ' in text]
    assert len(shown) + removed == len(structure.units)
    assert any('MACs' in text and '%' in text for text in found)


def test_texts_stay_in_the_picture(structure):
    figure = plot_subnet(structure)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        for text in [*axes.texts, *figure.texts]:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= width, text
            assert box.y0 >= 0 and box.y1 <= height, text


def test_files(structure, tmp_path):
    figure = plot_subnet(structure)
    png = tmp_path / 'subnet.png'
    save_plot(figure, str(png))
    width, height = struct.unpack('>II', png.read_bytes()[16:24])
    assert width == 900 and 300 < height < 1200
    save_plot(figure, str(tmp_path / 'subnet.svg'))
    assert '<svg' in (tmp_path / 'subnet.svg').read_text()[:2000]
