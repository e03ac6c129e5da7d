"""What a target's TOML may name: quantities with their units, limits, storage types."""

from __future__ import annotations

from collections.abc import Mapping

UNITS: Mapping[str, str] = {
    "peak_f32": "GMAC/s",
    "peak_f16": "GMAC/s",
    "peak_i8": "GMAC/s",
    "peak_u8": "GMAC/s",
    "peak_i16": "GMAC/s",
    "depthwise_i16": "GMAC/s",
    "conv_share": "1",
    "pointwise_share": "1",
    "square_share": "1",
    "window_share": "1",
    "depthwise_share": "1",
    "dense_share": "1",
    "integer_share": "1",
    "bandwidth": "GB/s",
    "weight_bandwidth": "GB/s",
    "integer_bandwidth": "GB/s",
    "bandwidth_i16": "GB/s",
    "transfer_bandwidth": "GB/s",
    "kernel_overhead": "us",
    "thread_overhead": "us",
    "invoke_overhead": "us",
    "transfer_overhead": "us",
    "speedup_2": "1",
    "speedup_4": "1",
    "speedup_8": "1",
    "error": "1",
}
"""Every quantity a target may give, and its unit.

peak_*: Multiply-accumulates of one core, or of the engine, by storage type. Where `storage` does
    not list i16, peak_i16 is that of the runtime's own kernels beside the engine, on one thread.
depthwise_i16, bandwidth_i16: What depthwise kernels reach in 16 bits, and activations of any.
*_share: Part of the peak that 1x1 convolutions (pointwise), 3x3 ones of stride 1 (square), other
    windows, depthwise and fully connected layers reach; `conv_share` stands for those left out.
integer_share: Times the peak of integer storage.
bandwidth, weight_bandwidth, integer_bandwidth: Of activations, of weights, and of activations in
    integer kernels, whose rounding counts; `bandwidth` stands for those left out.
transfer_bandwidth, transfer_overhead: At a change between the engine and its fallback.
kernel_overhead, thread_overhead: A launch, and what every further thread adds to it.
invoke_overhead: The call itself.
speedup_*: Of arithmetic, on so many threads.
error: Half-width of the interval: 0.3 means from 1/1.3 to 1.3 times the estimate.
"""

STORAGES = ("f32", "f16", "i8", "u8", "i16")

LIMITS: Mapping[str, type] = {
    "max_rank": float,
    "max_step_ratio": float,
    "per_channel": tuple,
    "border": tuple,
}
"""Every limit a target may set, and whether it is a number or a list of storage types.

max_rank: Dimensions of a tensor, the batch included.
max_step_ratio: A kernel's input scale times its largest kernel scale, over its result's scale, lies
    below this.
per_channel: Storage types whose kernels may have a scale per output channel.
border: Element types of inputs and outputs.
"""

REQUIRED = (
    "bandwidth",
    "conv_share",
    "depthwise_share",
    "error",
    "invoke_overhead",
    "kernel_overhead",
)
