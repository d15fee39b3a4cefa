"""End the wrapping of functions with the trace that needs it.

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

_MODULE = 'mmrazor.models.task_modules.tracer.fx_tracer'


def end_wrapping_with_trace() -> None:
    """Let wrappers that outlive a trace call their function, no more."""
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
