"""Wrap no functions of torch's own, and none after the trace.

Symptom: while ResNet of torchvision is traced, torch warns four times that
``has_cuda`` and the like are deprecated. torch lists its own functions once,
when a proxy first calls one, and silences these warnings for code of its own;
a wrapped function is code of mmrazor's. So the list is made before.

Symptom: once a vision transformer of timm was traced, ``torch.cat`` and other
functions of torch are wrappers for the rest of the process. While mmrazor
traces, it wraps the functions that a model's code can reach. A wrapper wraps
more of them whenever it is called, also after the trace, when nobody undoes
that: functions that the graph or the model has kept are called later.
Seen with: mmrazor 1.0.0.
Drop when: ``AutoWrapper`` does nothing once its patcher has been left.
"""

from importlib import import_module
from typing import Any

from torch.overrides import get_overridable_functions

_MODULE = 'mmrazor.models.task_modules.tracer.fx_tracer'


def end_wrapping_with_trace() -> None:
    """Let wrappers that outlive a trace call their function, no more."""
    get_overridable_functions()  # torch remembers the list
    tracer = import_module(_MODULE)
    stock_patcher, stock_check = tracer._Patcher, tracer._autowrap_check
    if hasattr(stock_patcher, 'is_over'):
        return

    class Patcher(stock_patcher):
        """One that knows whether it was left."""

        is_over = False

        def __exit__(self, *error: Any) -> Any:
            self.is_over = True
            return super().__exit__(*error)

    def autowrap_check(patcher: Any, *args: Any) -> None:
        if not getattr(patcher, 'is_over', False):
            stock_check(patcher, *args)

    tracer._Patcher, tracer._autowrap_check = Patcher, autowrap_check
