"""The memory hierarchy: stream buffer and episodic memory in RAM, every sample ever seen on storage."""

from mirolib.memory.budget import (
    BudgetSchedule as BudgetSchedule,
    LiveBudget as LiveBudget,
    MemoryBudget as MemoryBudget,
    SystemBudget as SystemBudget,
    parse_amount as parse_amount,
    parse_budget as parse_budget,
    parse_size as parse_size,
)
from mirolib.memory.config import MemoryConfig as MemoryConfig
from mirolib.memory.storage import Storage as Storage
from mirolib.memory.store_file import Fingerprint as Fingerprint
from mirolib.memory.swapper import (
    SwapCounts as SwapCounts,
    Swapper as Swapper,
    SwapPolicy as SwapPolicy,
    UniformSwap as UniformSwap,
    exchanges as exchanges,
)
from mirolib.memory.tiered import Batch as Batch, TieredMemory as TieredMemory
