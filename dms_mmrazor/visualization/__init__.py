"""Pictures of found structures."""

from dms_mmrazor.visualization.subnet_plot import plot_subnet, save_plot

__all__ = ['plot_subnet', 'save_plot']
