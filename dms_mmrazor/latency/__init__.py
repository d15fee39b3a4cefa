"""Latency of a supernet's layers: measure, keep, use."""

from dms_mmrazor.latency.compare import (
    Comparison,
    compare_structures,
    measured_beside_supernet,
)
from dms_mmrazor.latency.file import (
    load_latency_table,
    save_latency_table,
)
from dms_mmrazor.latency.measure import (
    Measurement,
    find_device,
    measure,
    use_threads,
)
from dms_mmrazor.latency.profile import (
    Settings,
    fit_layers,
    profile_latency,
)
from dms_mmrazor.latency.sampling import SubnetSampler, levels
from dms_mmrazor.latency.table import (
    LatencyTable,
    describe_latency_table,
)
from dms_mmrazor.latency.use import (
    check_device,
    check_network,
    divisor_warning,
    prepare_latency,
    use_latency_table,
)

__all__ = [
    'Comparison',
    'LatencyTable',
    'Measurement',
    'Settings',
    'SubnetSampler',
    'check_device',
    'check_network',
    'compare_structures',
    'describe_latency_table',
    'divisor_warning',
    'find_device',
    'fit_layers',
    'levels',
    'load_latency_table',
    'measure',
    'measured_beside_supernet',
    'prepare_latency',
    'profile_latency',
    'save_latency_table',
    'use_latency_table',
    'use_threads',
]
