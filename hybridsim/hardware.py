"""What a device can do: peak rates, bandwidth, capacity, price. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridsim.components import require_positive
from hybridsim.dtypes import BYTES_PER_ELEMENT
from hybridsim.errors import SpecError, bad_value, unknown
from hybridsim.fields import parse_dataclass


@dataclass(frozen=True)
class Hardware:
    """One kind of device, or several taken as one.

    Attributes:
        name: how commands call it.
        title: how tables call it.
        peak_flops: FLOP/s of dense matrix products by dtype, per device.
        memory_bytes: capacity per device.
        bandwidth_bytes_per_s: of that memory, per device.
        num_devices: devices whose rates and capacities add up. An ideal: no communication and no
            replication is charged, so figures for more than one device are a bound.
        price_usd_per_hour: per device, where published, else None.
        sources: where each number comes from.
    """

    name: str
    title: str
    peak_flops: dict[str, Any]
    memory_bytes: float
    bandwidth_bytes_per_s: float
    num_devices: int = 1
    price_usd_per_hour: float | None = None
    sources: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(
            memory_bytes=self.memory_bytes,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s,
            num_devices=self.num_devices,
        )
        for dtype, rate in self.peak_flops.items():
            if dtype not in BYTES_PER_ELEMENT:
                raise unknown(f"peak_flops.{dtype}", rate, BYTES_PER_ELEMENT, "dtype")
            if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
                raise bad_value(f"peak_flops.{dtype}", rate, "must be a number above 0 (FLOP/s)")
        if self.price_usd_per_hour is not None and self.price_usd_per_hour < 0:
            raise bad_value("price_usd_per_hour", self.price_usd_per_hour, "must be at least 0")

    def total_flops_per_s(self, dtype: str) -> float:
        """Return FLOP/s of all devices in `dtype`.

        Raises:
            SpecError: the device has no such rate.
        """
        if dtype not in self.peak_flops:
            rates = ", ".join(sorted(self.peak_flops))
            raise SpecError(
                f"dtypes.activations={dtype}: {self.name} has no {dtype} rate (known: {rates})"
            )
        return float(self.peak_flops[dtype]) * self.num_devices

    @property
    def total_bandwidth_bytes_per_s(self) -> float:
        """Memory bandwidth of all devices."""
        return self.bandwidth_bytes_per_s * self.num_devices

    @property
    def total_memory_bytes(self) -> float:
        """Capacity of all devices."""
        return self.memory_bytes * self.num_devices

    @property
    def total_price_usd_per_hour(self) -> float | None:
        """Price of all devices."""
        if self.price_usd_per_hour is None:
            return None
        return self.price_usd_per_hour * self.num_devices


def parse_hardware(mapping: Mapping[str, Any]) -> Hardware:
    """Return the device that a mapping describes; SpecError for anything wrong."""
    hardware: Hardware = parse_dataclass(Hardware, mapping, "hardware")
    return hardware
