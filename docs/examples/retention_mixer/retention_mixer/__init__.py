"""The retention of RetNet as a mixer of hybridsim. Imports no torch."""

from hybridsim.mixers import MixerEntry
from retention_mixer.cost import inside_chunks_flops

ENTRY = MixerEntry(
    folder="retention_mixer",
    prefix="Retention",
    title="retention",
    source="arXiv 2307.08621",
    flop_rules={"retention_mixer::inside_chunks": inside_chunks_flops},
)
