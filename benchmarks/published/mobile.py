"""Networks for phones: separable, inverted, shuffled and squeezed."""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.published.net import Act, Net, divisible
from lmopt.ir.graph import Graph, Value


def mobilenet_v1(scale: float = 1.0, size: int = 224) -> Graph:
    """Returns MobileNet. Source: Howard et al., arXiv:1704.04861, table 1."""
    net = Net("mobilenet_v1", size)
    _, deep = _mobilenet_v1_features(net, scale)
    return net.classified(net.mean(deep))


def _mobilenet_v1_features(net: Net, scale: float = 1.0) -> tuple[Value, Value]:
    """Returns the maps at strides 16 and 32."""
    x = net.conv(net.image, int(32 * scale), 3, 2)
    wide = x
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for filters, stride in [*plan, (1024, 2), (1024, 1)]:
        if filters == 1024 and stride == 2:
            wide = x
        x = net.separable(x, int(filters * scale), stride)
    return wide, x


def _inverted(
    net: Net,
    x: Value,
    kernel: int,
    expanded: int,
    filters: int,
    stride: int,
    act: Act,
    squeezed: int = 0,
) -> Value:
    """Returns an inverted residual block, the sum included where the shapes allow one."""
    inner = x if expanded == net.channels(x) else net.conv(x, expanded, act=act)
    inner = net.depthwise(inner, kernel, stride, act)
    if squeezed:
        inner = net.squeeze_excite(inner, squeezed)
    out = net.conv(inner, filters, act="none")
    return net.add(x, out) if stride == 1 and net.channels(x) == filters else out


def _mobilenet_v2_features(
    net: Net, scale: float = 1.0, rounded: Callable[[float], int] = divisible
) -> tuple[Value, Value]:
    """Returns the expanded map at stride 16 and the last map."""
    x = net.conv(net.image, rounded(32 * scale), 3, 2, "relu6")
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    for expand, filters, repeats, stride in [*plan, (6, 160, 3, 2), (6, 320, 1, 1)]:
        if filters == 160:
            wide = x
        for k in range(repeats):
            step = stride if k == 0 else 1
            width = net.channels(x) * expand
            x = _inverted(net, x, 3, width, rounded(filters * scale), step, "relu6")
    return wide, net.conv(x, max(1280, int(1280 * scale)), act="relu6")


def mobilenet_v2(
    scale: float = 1.0, size: int = 224, rounded: Callable[[float], int] = divisible
) -> Graph:
    """Returns MobileNetV2. Source: Sandler et al., arXiv:1801.04381, table 2."""
    net = Net("mobilenet_v2", size)
    return net.classified(net.mean(_mobilenet_v2_features(net, scale, rounded)[1]))


_V3_LARGE = (
    (3, 16, 16, 0, "relu", 1),
    (3, 64, 24, 0, "relu", 2),
    (3, 72, 24, 0, "relu", 1),
    (5, 72, 40, 1, "relu", 2),
    (5, 120, 40, 1, "relu", 1),
    (5, 120, 40, 1, "relu", 1),
    (3, 240, 80, 0, "hswish", 2),
    (3, 200, 80, 0, "hswish", 1),
    (3, 184, 80, 0, "hswish", 1),
    (3, 184, 80, 0, "hswish", 1),
    (3, 480, 112, 1, "hswish", 1),
    (3, 672, 112, 1, "hswish", 1),
    (5, 672, 160, 1, "hswish", 2),
    (5, 960, 160, 1, "hswish", 1),
    (5, 960, 160, 1, "hswish", 1),
)
_V3_SMALL = (
    (3, 16, 16, 1, "relu", 2),
    (3, 72, 24, 0, "relu", 2),
    (3, 88, 24, 0, "relu", 1),
    (5, 96, 40, 1, "hswish", 2),
    (5, 240, 40, 1, "hswish", 1),
    (5, 240, 40, 1, "hswish", 1),
    (5, 120, 48, 1, "hswish", 1),
    (5, 144, 48, 1, "hswish", 1),
    (5, 288, 96, 1, "hswish", 2),
    (5, 576, 96, 1, "hswish", 1),
    (5, 576, 96, 1, "hswish", 1),
)


def mobilenet_v3(kind: str, scale: float = 1.0, size: int = 224, last: int = 0) -> Graph:
    """Returns MobileNetV3 `large` or `small`. Source: Howard et al., arXiv:1905.02244."""
    net = Net(f"mobilenet_v3_{kind}", size)
    x = net.conv(net.image, divisible(16 * scale), 3, 2, "hswish")
    for kernel, expanded, filters, squeeze, act, stride in (
        _V3_LARGE if kind == "large" else _V3_SMALL
    ):
        width = divisible(expanded * scale)
        squeezed = width // 4 if squeeze else 0
        x = _inverted(net, x, kernel, width, divisible(filters * scale), stride, act, squeezed)  # type: ignore[arg-type]
    x = net.conv(x, divisible((960 if kind == "large" else 576) * scale), act="hswish")
    x = net.dense(net.mean(x), last or (1280 if kind == "large" else 1024))
    return net.classified(net.act(x, "hswish"))


_SHUFFLE_V2 = {
    0.25: (24, 24, 48, 96, 512),
    0.33: (24, 32, 64, 128, 512),
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 224, 488, 976, 2048),
}


def shufflenet_v2(scale: float = 1.0, size: int = 224, act: Act = "relu") -> Graph:
    """Returns ShuffleNetV2. Source: Ma et al., arXiv:1807.11164, table 5."""
    net = Net("shufflenet_v2", size)
    first, *stages, last = _SHUFFLE_V2[scale]
    x = net.max_pool(net.conv(net.image, first, 3, 2, act))
    for filters, repeats in zip(stages, (4, 8, 4), strict=True):
        half = filters // 2
        side = net.conv(net.depthwise(x, 3, 2, "none"), half, act=act)
        main = net.depthwise(net.conv(x, half, act=act), 3, 2, "none")
        x = net.shuffle(net.concat(side, net.conv(main, half, act=act)))
        for _ in range(repeats - 1):
            kept, main = net.halves(x)
            main = net.depthwise(net.conv(main, half, act=act), 3, 1, "none")
            x = net.shuffle(net.concat(kept, net.conv(main, half, act=act)))
    return net.classified(net.mean(net.conv(x, last, act=act)))


def shufflenet_v1(size: int = 224) -> Graph:
    """Returns ShuffleNet with three groups. Source: Zhang et al., arXiv:1707.01083, table 1."""
    net, groups = Net("shufflenet", size), 3
    x = net.max_pool(net.conv(net.image, 24, 3, 2))
    for filters, repeats in ((240, 4), (480, 8), (960, 4)):
        for k in range(repeats):
            first = net.channels(x) == 24
            inner = net.conv(x, filters // 4, groups=1 if first else groups)
            inner = net.shuffle(inner, groups)
            inner = net.depthwise(inner, 3, 2 if k == 0 else 1, "none")
            width = filters - net.channels(x) if k == 0 else filters
            inner = net.conv(inner, width, act="none", groups=groups)
            if k:
                x = net.add(x, inner, "relu")
            else:
                x = net.act(net.concat(net.avg_pool(x, 3, 2), inner), "relu")
    return net.classified(net.mean(x))


_GHOST = (
    (3, 16, 16, 0, 1),
    (3, 48, 24, 0, 2),
    (3, 72, 24, 0, 1),
    (5, 72, 40, 1, 2),
    (5, 120, 40, 1, 1),
    (3, 240, 80, 0, 2),
    (3, 200, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 184, 80, 0, 1),
    (3, 480, 112, 1, 1),
    (3, 672, 112, 1, 1),
    (5, 672, 160, 1, 2),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 1, 1),
    (5, 960, 160, 0, 1),
    (5, 960, 160, 1, 1),
)


def ghostnet(scale: float = 1.0, size: int = 224) -> Graph:
    """Returns GhostNet. Source: Han et al., arXiv:1911.11907, table 7."""
    net = Net("ghostnet", size)

    def ghost(x: Value, filters: int, act: Act) -> Value:
        half = net.conv(x, math.ceil(filters / 2), act=act)
        return net.concat(half, net.depthwise(half, 3, 1, act))

    x = net.conv(net.image, divisible(16 * scale, 4), 3, 2)
    for kernel, expanded, filters, squeeze, stride in _GHOST:
        width, out = divisible(expanded * scale, 4), divisible(filters * scale, 4)
        inner = ghost(x, width, "relu")
        if stride == 2:
            inner = net.depthwise(inner, kernel, 2, "none")
        if squeeze:
            inner = net.squeeze_excite(inner, width // 4)
        inner = ghost(inner, out, "none")
        if stride != 1 or net.channels(x) != out:
            x = net.conv(net.depthwise(x, kernel, stride, "none"), out, act="none")
        x = net.add(inner, x)
    x = net.conv(x, divisible(960 * scale, 4))
    return net.classified(net.dense(net.mean(x), 1280, "relu"))


def esnet(scale: float = 1.0, size: int = 224) -> Graph:
    """Returns ESNet. Source: Yu et al. (PP-PicoDet), arXiv:2111.00902, section 2.1."""
    net = Net("esnet", size)

    def stage(filters: int) -> int:
        return divisible(filters * scale)

    x = net.max_pool(net.conv(net.image, 24, 3, 2, "hswish"))
    for filters, repeats in ((116, 3), (232, 7), (464, 3)):
        half = stage(filters) // 2
        side = net.conv(net.depthwise(x, 3, 2, "none"), half, act="hswish")
        main = net.depthwise(net.conv(x, half, act="hswish"), 3, 2, "none")
        main = net.conv(net.squeeze_excite(main, half // 4), half, act="hswish")
        x = net.depthwise(net.concat(side, main), 3, 1, "hswish")
        x = net.conv(x, stage(filters), act="hswish")
        for _ in range(repeats - 1):
            kept, main = net.halves(x)
            first = net.conv(main, half, act="hswish")
            second = net.depthwise(first, 3, 1, "none")
            main = net.squeeze_excite(net.concat(first, second), half // 2)
            x = net.shuffle(net.concat(kept, net.conv(main, half, act="hswish")))
    x = net.mean(net.conv(x, 1024, act="hswish"))
    return net.classified(net.act(net.dense(x, 1280), "hswish"))


_MNAS = (
    (3, 3, 24, 3, 2),
    (5, 3, 40, 3, 2),
    (5, 6, 80, 3, 2),
    (3, 6, 96, 2, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def mnasnet(size: int = 224) -> Graph:
    """Returns MnasNet-B1, as widely shipped. Source: Tan et al., arXiv:1807.11626, figure 7."""
    net = Net("mnasnet", size)
    x = net.separable(net.conv(net.image, 32, 3, 2), 16)
    for kernel, expand, filters, repeats, stride in _MNAS:
        for k in range(repeats):
            width = net.channels(x) * expand
            x = _inverted(net, x, kernel, width, filters, stride if k == 0 else 1, "relu")
    return net.classified(net.mean(net.conv(x, 1280)))


_PROXYLESS = (
    *((5, 48, 32, 2), (3, 96, 32, 1)),
    *((7, 96, 40, 2), (3, 120, 40, 1), (5, 120, 40, 1), (5, 120, 40, 1)),
    *((7, 240, 80, 2), (5, 240, 80, 1), (5, 240, 80, 1), (5, 240, 80, 1)),
    *((5, 480, 96, 1), (5, 288, 96, 1), (5, 288, 96, 1), (5, 288, 96, 1)),
    *((7, 576, 192, 2), (7, 1152, 192, 1), (7, 576, 192, 1), (7, 576, 192, 1)),
    (7, 1152, 320, 1),
)


def proxylessnas(size: int = 224) -> Graph:
    """Returns ProxylessNAS (mobile). Source: Cai et al., arXiv:1812.00332, figure 5."""
    net = Net("proxylessnasnet", size)
    x = net.conv(net.image, 32, 3, 2)
    x = net.conv(net.depthwise(x), 32, act="none")
    for kernel, expanded, filters, stride in _PROXYLESS:
        x = _inverted(net, x, kernel, expanded, filters, stride, "relu")
    return net.classified(net.mean(net.conv(x, 1280)))


_EFFICIENT = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def efficientnet_b0(size: int = 224) -> Graph:
    """Returns EfficientNet-B0. Source: Tan and Le, arXiv:1905.11946, table 1."""
    net = Net("efficientnet_b0", size)
    x = net.conv(net.image, 32, 3, 2, "swish")
    for kernel, expand, filters, repeats, stride in _EFFICIENT:
        for k in range(repeats):
            before = net.channels(x)
            step = stride if k == 0 else 1
            x = _inverted(net, x, kernel, before * expand, filters, step, "swish", before // 4)
    return net.classified(net.mean(net.conv(x, 1280, act="swish")))


def regnety_400m(size: int = 224) -> Graph:
    """Returns RegNetY-400MF. Source: Radosavovic et al., arXiv:2003.13678, figure 17."""
    net = Net("regnety_400m", size)
    x = net.conv(net.image, 32, 3, 2)
    for filters, repeats in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for k in range(repeats):
            stride, before = (2 if k == 0 else 1), net.channels(x)
            inner = net.conv(net.conv(x, filters), filters, 3, stride, groups=filters // 8)
            inner = net.conv(net.squeeze_excite(inner, before // 4), filters, act="none")
            x = net.add(x if k else net.conv(x, filters, 1, stride, "none"), inner, "relu")
    return net.classified(net.mean(x))


def mobilenet_ssd(size: int = 300) -> Graph:
    """Returns MobileNet-SSD, 21 classes. Source: Liu et al., arXiv:1512.02325, on MobileNet."""
    net = Net("mobilenet_ssd", size)
    wide, x = _mobilenet_v1_features(net)
    maps = [wide, x]
    for squeezed, filters in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = net.conv(net.conv(x, squeezed), filters, 3, 2)
        maps.append(x)
    return net.done(*_ssd_heads(net, maps, (3, 6, 6, 6, 6, 6), 1))


def _ssd_heads(net: Net, maps: list[Value], boxes: tuple[int, ...], kernel: int) -> list[Value]:
    places, classes = [], []
    for x, count in zip(maps, boxes, strict=True):
        places.append(net.flatten(net.conv(x, count * 4, kernel, act="none")))
        classes.append(net.flatten(net.conv(x, count * 21, kernel, act="none")))
    return [net.concat(*places), net.concat(*classes)]


def mobilenet_yolo(size: int = 416) -> Graph:
    """Returns MobileNet with two YOLOv2 heads, 20 classes."""
    net = Net("mobilenet_yolo", size)
    _, x = _mobilenet_v1_features(net)
    coarse = net.conv(net.conv(x, 256), 1024, 3)
    x = net.upsample(net.conv(coarse, 256, act="none"))
    x = net.conv(net.conv(net.conv(x, 1024, 3), 256), 1024, 3)
    return net.done(net.conv(coarse, 125, act="none"), net.conv(x, 125, act="none"))


def mobilenet_v2_yolov3(size: int = 352) -> Graph:
    """Returns MobileNetV2 with two separable YOLOv3 heads, 20 classes."""
    net = Net("mobilenetv2_yolov3", size)
    wide, x = _mobilenet_v2_features(net)
    coarse = net.separable(x, 576)
    fine = net.separable(net.conv(wide, 576), 576)
    fine = net.separable(net.add(net.upsample(coarse), fine), 576)
    return net.done(net.conv(coarse, 75, act="none"), net.conv(fine, 75, act="none"))
