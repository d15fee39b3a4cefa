"""Pictures of found structures, and the card of a search."""

from dms_mmrazor.visualization.card import write_card
from dms_mmrazor.visualization.subnet_plot import (
    plot_subnet,
    rgb_image,
    save_plot,
)

__all__ = ['plot_subnet', 'rgb_image', 'save_plot', 'write_card']
