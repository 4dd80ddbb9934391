"""Schedules: pure functions of the number of samples seen.

A schedule is any ``Callable[[float], float]``. It keeps no state, so there is nothing to save, and it means the same at
any batch size, number of ranks and accumulation. ``join`` builds longer ones from pieces. A batch schedule is the
same for the global batch. Scaling rules say how hyper-parameters follow the batch. Nothing here imports torch.
"""

from disttrain.schedules import adaptive, adascale, batch, carry, cycles, pieces, scaling
from disttrain.schedules.adaptive import *
from disttrain.schedules.adascale import *
from disttrain.schedules.batch import *
from disttrain.schedules.carry import *
from disttrain.schedules.cycles import *
from disttrain.schedules.pieces import *
from disttrain.schedules.scaling import *

__all__: list[str] = []
__all__ += adaptive.__all__
__all__ += adascale.__all__
__all__ += batch.__all__
__all__ += carry.__all__
__all__ += cycles.__all__
__all__ += pieces.__all__
__all__ += scaling.__all__
