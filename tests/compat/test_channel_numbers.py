import pytest

import dms_mmrazor.plugin  # noqa: F401  (before anything imports mmrazor)

JOINTS = 10


@pytest.fixture
def graph():
    """Branches that part and meet again and again; who was asked."""
    from mmrazor.structures.graph import channel_nodes as nodes
    from mmrazor.structures.graph.base_graph import BaseGraph

    class Cat(nodes.CatChannelNode):
        def _get_in_channels_by_prev_nodes(self, prev_nodes):
            graph.asked.append(self.name)
            return super()._get_in_channels_by_prev_nodes(prev_nodes)

    graph = BaseGraph()
    graph.asked = []
    last = nodes.InputChannelNode('in', 'input_placeholder')
    graph.add_node(last)
    for index in range(JOINTS):
        cat = Cat(f'cat{index}', 'cat_placeholder')
        graph.add_node(cat)
        for side in 'ab':
            part = nodes.PassUnionChannelNode(f'{side}{index}', 'pass')
            graph.add_node(part)
            graph.connect(last, part)
            graph.connect(part, cat)
        last = cat
    return graph


def remembered():
    from dms_mmrazor.compat.channel_numbers import remembered_channel_numbers

    return remembered_channel_numbers()


def test_each_node_is_asked_once(graph):
    last = graph.nodes[f'cat{JOINTS - 1}']
    expected = last.out_channels
    assert len(graph.asked) == 2**JOINTS - 1  # what mmrazor does
    graph.asked.clear()
    with remembered():
        assert last.out_channels == expected == 3 * 2**JOINTS
        assert last.in_channels == expected
    assert len(graph.asked) == JOINTS


def test_a_changed_graph_is_asked_anew(graph):
    first, part = graph.nodes['cat0'], graph.nodes['b0']
    with remembered():
        assert first.out_channels == 6
        graph.disconnect(part, first)
        assert first.out_channels == 3
        graph.connect(part, first)
        assert first.out_channels == 6


def test_mmrazor_is_left_as_it_was():
    from mmrazor.structures.graph.base_graph import BaseGraph
    from mmrazor.structures.graph.channel_nodes import ChannelNode

    before = {**ChannelNode.__dict__}, {**BaseGraph.__dict__}
    with pytest.raises(ValueError), remembered():
        raise ValueError
    assert ({**ChannelNode.__dict__}, {**BaseGraph.__dict__}) == before
