"""Which network a row of the table of published latencies means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial

from benchmarks.published import classic, mobile
from lmopt.ir.graph import Graph

Builder = Callable[..., Graph]

# PaddleClas cuts widths off where the papers round, and widens the last layer of a small V3.
_SCALED: Mapping[str, Builder] = {
    "MobileNetV1": mobile.mobilenet_v1,
    "MobileNetV2": partial(mobile.mobilenet_v2, rounded=int),
    "MobileNetV3_large": partial(mobile.mobilenet_v3, "large"),
    "MobileNetV3_small": partial(mobile.mobilenet_v3, "small", last=1280),
    "ShuffleNetV2": mobile.shufflenet_v2,
    "GhostNet": mobile.ghostnet,
    "ESNet": mobile.esnet,
}
_FIXED: Mapping[str, Builder] = {
    "mobilenet": mobile.mobilenet_v1,
    "mobilenet_v1": mobile.mobilenet_v1,
    "mobilenet-v1-1.0": mobile.mobilenet_v1,
    "mobilenet_v1_fp32_224": mobile.mobilenet_v1,
    "Mobilenet_1.0_224(float)": mobile.mobilenet_v1,
    "MobileNet v1": mobile.mobilenet_v1,
    "MobileNet v1 1.0": mobile.mobilenet_v1,
    "mobilenet_v2": mobile.mobilenet_v2,
    "MobileNetV2_224": mobile.mobilenet_v2,
    "MobileNet v2": mobile.mobilenet_v2,
    "MobileNet v2 1.0": mobile.mobilenet_v2,
    "mobilenet_v3": _SCALED["MobileNetV3_large"],
    "MobileNet v3 Large": _SCALED["MobileNetV3_large"],
    "MobileNet v3 Small": partial(mobile.mobilenet_v3, "small"),
    "shufflenet": mobile.shufflenet_v1,
    "shufflenet_v2": mobile.shufflenet_v2,
    "ShuffleNet v2": mobile.shufflenet_v2,
    "ShuffleNetV2_swish": partial(mobile.shufflenet_v2, act="swish"),
    "ghostnet": mobile.ghostnet,
    "mnasnet": mobile.mnasnet,
    "MnasNet": mobile.mnasnet,
    "proxylessnasnet": mobile.proxylessnas,
    "efficientnet_b0": mobile.efficientnet_b0,
    "regnety_400m": mobile.regnety_400m,
    "mobilenet_ssd": mobile.mobilenet_ssd,
    "mobilenet_yolo": mobile.mobilenet_yolo,
    "mobilenetv2_yolov3": mobile.mobilenet_v2_yolov3,
    "squeezenet": classic.squeezenet,
    "SqueezeNet": partial(classic.squeezenet, "1.0"),
    "SqueezeNet 1.0": partial(classic.squeezenet, "1.0"),
    "SqueezeNet 1.1": classic.squeezenet,
    "SqueezeNetV1.0": partial(classic.squeezenet, "1.0"),
    "squeezenet_ssd": classic.squeezenet_ssd,
    "alexnet": classic.alexnet,
    "vgg16": classic.vgg16,
    "resnet50_fp32_224": partial(classic.resnet, 50),
    "ResNet50 v1": partial(classic.resnet, 50),
    "ResNet50 v2": partial(classic.resnet, 50, "v2"),
    "resnet-v2-50": partial(classic.resnet, 50, "v2"),
    "googlenet": classic.googlenet,
    "inception-v3": classic.inception_v3,
    "DenseNet 121": classic.densenet_121,
    "Inception_ResNet_V2": classic.inception_resnet_v2,
    "yolov4-tiny": classic.yolov4_tiny,
}
_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], Builder]], ...] = (
    (
        rf"({'|'.join(_SCALED)})(?:_x(\d+)_(\d+))?",
        lambda m: partial(_SCALED[m[1]], scale=float(f"{m[2]}.{m[3]}") if m[2] else 1.0),
    ),
    (r"resnet(\d+)", lambda m: partial(classic.resnet, int(m[1]))),
    (r"(?:Fix_)?ResNet(\d+)(?:_(v[cd]))?(?:_ssld)?(?:_v2)?", lambda m: _resnet(m[1], m[2])),
    (r"(?i)inception[ _]?v3", lambda m: classic.inception_v3),
    (r"(?i)inception[ _]?v4", lambda m: classic.inception_v4),
    (r"GoogLeNet", lambda m: classic.googlenet),
    (r"Xception(\d+)(?:_deeplab)?", lambda m: partial(classic.xception, int(m[1]))),
    (r"HRNet_W(\d+)_C", lambda m: partial(classic.hrnet, int(m[1]))),
)
_QUANTIZED = re.compile(r"(.+?)(?:_int8|_quant|Quant| \(quant uint8\)|_int8_224_per_\w+)$")
"""How the table marks 8-bit networks; the precision column says it too."""


def _resnet(layers: str, variant: str | None) -> Builder:
    return partial(classic.resnet, int(layers), variant or "")


def find(model: str) -> Builder | None:
    """Returns what builds a network by its name in the table, or None for one not described."""
    if (quantized := _QUANTIZED.fullmatch(model)) is not None:
        model = {"Mobilenet_1.0_224": "mobilenet"}.get(quantized[1], quantized[1])
    if model in _FIXED:
        return _FIXED[model]
    for pattern, builder in _PATTERNS:
        if (match := re.fullmatch(pattern, model)) is not None:
            return builder(match)
    return None


@cache
def network(model: str, size: int) -> Graph | None:
    """Returns a network at an input size, or None for one not described."""
    builder = find(model)
    return None if builder is None else builder(size=size)
