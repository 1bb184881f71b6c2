"""The one table of kinds of figures: a word in the data, and the class that computes it."""

from __future__ import annotations

from hybridsim.claims.figure import Kind
from hybridsim.claims.kinds import flops, published, sizes, times

KINDS: dict[str, type[Kind]] = {
    "cache_saving": sizes.CacheSaving,
    "cache_bytes": sizes.CacheBytes,
    "cache_per_token_added": sizes.CachePerTokenAdded,
    "parameters": sizes.ParameterCount,
    "active_share": sizes.ActiveShare,
    "layer_share": sizes.LayerShare,
    "spec_sum": sizes.SpecSum,
    "memory_need": sizes.MemoryNeed,
    "crossovers": sizes.Crossovers,
    "attention_thinning": sizes.AttentionThinning,
    "kv_formula": sizes.KvFormula,
    "ratio": flops.Ratio,
    "slope": flops.Slope,
    "growth": flops.Growth,
    "core_per_token": flops.CorePerToken,
    "training_ratio": flops.TrainingRatio,
    "training_formula": flops.TrainingFormula,
    "lightning_formula": flops.LightningFormula,
    "block_sparse_formula": flops.BlockSparseFormula,
    "per_token_growth": flops.PerTokenGrowth,
    "time_ratio": times.TimeRatio,
    "throughput_ratio": times.ThroughputRatio,
    "request_ratio": times.RequestRatio,
    "position_price": times.PositionPrice,
    "core_time_ratio": times.CoreTimeRatio,
    "decode_rates": times.DecodeRates,
    "prompt_rate": times.PromptRate,
    "decode_rate_bound": times.DecodeRateBound,
    "implied_rate": times.ImpliedRate,
    "published_ratio": published.PublishedRatio,
    "curve_ratio": published.CurveRatio,
    "curve_weight": published.CurveWeight,
    "missing": published.Missing,
}
