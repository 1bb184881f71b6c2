"""Variables assigned to variables, in a haystack."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import put, shuffled_groups, statement_starts

SET, ASK, FIRST_VARIABLE = 1, 2, 3


@final
@dataclass(frozen=True)
class VariableTracking(Task):
    """Chains of assignments among noise, then: what is the value of each variable?

    A chain sets a variable to a value, another variable to the first, and so on. A statement is
    SET, variable, value or earlier variable; the statements of all chains are mixed, each chain's
    in order, and fall anywhere in the noise. At the end every variable is asked for once: ASK,
    variable, whose target is the value that its chain began with. The tokens but three are a third
    variables, a third values, a third noise.

        ... SET x 70 ... SET a 55 SET y x ... ASK y ASK a ASK x    targets: 70 at y, 55 at a, 70 at
        x

    Source: RULER, arXiv 2404.06654, variable tracking (c3f5e3b): one chain of 4 hops, swept over
        length; there the value is given and all its variables are asked for. Asked that way with
        the answers read back, each would follow from the one before by a single hop; asked for the
        value, a variable needs all its hops at once.

    Attributes:
        num_chains: chains, each with a value of its own.
        num_hops: assignments after a chain's first.
    """

    kind: ClassVar[str] = "variable_tracking"
    stresses: ClassVar[str] = "hops over long distances: recall and depth"
    source: ClassVar[str] = "RULER, arXiv 2404.06654"

    vocab_size: int = 128
    length: int = 256
    num_chains: int = 4
    num_hops: int = 3

    def _check(self) -> None:
        require_at_least(1, num_chains=self.num_chains)
        require_at_least(0, num_hops=self.num_hops)
        smallest = FIRST_VARIABLE + 3 * max(2, self.num_variables)
        require_at_least(smallest, vocab_size=self.vocab_size)
        require_at_least(5 * self.num_variables, length=self.length)

    @property
    def num_variables(self) -> int:
        """Variables of a sequence."""
        return self.num_chains * (self.num_hops + 1)

    @property
    def num_names(self) -> int:
        """Tokens that are variables, and as many values; the rest are noise."""
        return (self.vocab_size - FIRST_VARIABLE) // 3

    @property
    def chance(self) -> float:
        """One value of all."""
        return 1 / self.num_names

    @property
    def guess(self) -> float:
        """One of the values shown."""
        return 1 / self.num_chains

    @property
    def sequence_bits(self) -> float:
        variables = math.perm(self.num_names, self.num_variables)
        return math.log2(variables) + math.log2(math.perm(self.num_names, self.num_chains))

    def curriculum(self, progress: float) -> VariableTracking:
        """Return a task of no hops up to all, the length in proportion."""
        hops = eased(self.num_hops, 0, progress)
        length = max(16, -(-self.length * (hops + 1) // (self.num_hops + 1)))
        return replace(self, num_hops=hops, length=length)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        count, links = self.num_variables, self.num_hops + 1
        variables = FIRST_VARIABLE + draws.distinct(count, self.num_names)
        values = FIRST_VARIABLE + self.num_names + draws.distinct(self.num_chains, self.num_names)
        chain, link = shuffled_groups(draws, self.num_chains, links)
        member = chain * links + link
        earlier = variables.gather(1, (member - 1).clamp(min=0))
        right = torch.where(link == 0, values.gather(1, chain), earlier)
        stack = self.length - 2 * count
        first_noise = FIRST_VARIABLE + 2 * self.num_names
        tokens, targets = blanks(draws, self.length)
        tokens[:, :stack] = first_noise + draws.integers(self.vocab_size - first_noise, stack)
        starts = statement_starts(draws, count, 3, stack)
        put(tokens, starts, torch.full_like(starts, SET), variables.gather(1, member), right)
        asked = draws.permutation(count)
        tokens[:, stack::2] = ASK
        tokens[:, stack + 1 :: 2] = variables.gather(1, asked)
        targets[:, stack + 1 :: 2] = values.gather(1, asked // links)
        return Batch(tokens, targets, targets)
