"""Networks of dense convolutions: residual, inception, squeezed, dense and high-resolution."""

from __future__ import annotations

from benchmarks.published.net import Act, Net
from lmopt.ir.graph import Graph, Value


def squeezenet(version: str = "1.1", size: int = 224) -> Graph:
    """Returns SqueezeNet. Source: Iandola et al., arXiv:1602.07360, and its 1.1 release."""
    net = Net(f"squeezenet_{version}", size)
    x = _squeezenet_features(net, version)[-1]
    x = net.conv(x, 1000)
    return net.done(net.mean(x))


def _squeezenet_features(net: Net, version: str) -> list[Value]:
    def fire(x: Value, squeezed: int, expanded: int) -> Value:
        x = net.conv(x, squeezed)
        return net.concat(net.conv(x, expanded), net.conv(x, expanded, 3))

    old = version == "1.0"
    x = net.conv(net.image, 96 if old else 64, 7 if old else 3, 2, padding="valid")
    pools, maps = {1: True, 4 if old else 3: True, 8 if old else 5: True}, []
    if pools.get(1):
        x = net.max_pool(x, padding="valid")
    widths = (64, 64, 128, 128, 192, 192, 256, 256)
    squeezes = (16, 16, 32, 32, 48, 48, 64, 64)
    for k, (squeezed, expanded) in enumerate(zip(squeezes, widths, strict=True), start=2):
        x = fire(x, squeezed, expanded)
        if k in pools:
            maps.append(x)
            x = net.max_pool(x, padding="valid")
    return [*maps, x]


def squeezenet_ssd(size: int = 300) -> Graph:
    """Returns SqueezeNet 1.1 with the extra layers and 3x3 heads of SSD, 21 classes."""
    net = Net("squeezenet_ssd", size)
    features = _squeezenet_features(net, "1.1")
    maps, x = [features[-2], features[-1]], features[-1]
    for squeezed, filters in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = net.conv(net.conv(x, squeezed), filters, 3, 2)
        maps.append(x)
    ends: list[list[Value]] = [[], []]
    for x, count in zip(maps, (4, 6, 6, 6, 4, 4), strict=True):
        for end, width in zip(ends, (4, 21), strict=True):
            end.append(net.flatten(net.conv(x, count * width, 3, act="none")))
    return net.done(*(net.concat(*end) for end in ends))


def alexnet(size: int = 227) -> Graph:
    """Returns AlexNet. Source: Krizhevsky et al., NIPS 2012 (normalization left out)."""
    net = Net("alexnet", size)
    x = net.max_pool(net.conv(net.image, 96, 11, 4, padding="valid"), padding="valid")
    x = net.max_pool(net.conv(x, 256, 5, groups=2), padding="valid")
    x = net.conv(net.conv(x, 384, 3), 384, 3, groups=2)
    x = net.max_pool(net.conv(x, 256, 3, groups=2), padding="valid")
    x = net.dense(net.flatten(x), 4096, "relu")
    return net.classified(net.dense(x, 4096, "relu"))


def vgg16(size: int = 224) -> Graph:
    """Returns VGG-16. Source: Simonyan and Zisserman, arXiv:1409.1556, table 1."""
    net = Net("vgg16", size)
    x = net.image
    for filters, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            x = net.conv(x, filters, 3)
        x = net.max_pool(x, 2, 2)
    x = net.dense(net.flatten(x), 4096, "relu")
    return net.classified(net.dense(x, 4096, "relu"))


_RESNET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}


def resnet(layers: int, variant: str = "", size: int = 224) -> Graph:
    """Returns a residual network.

    Args:
        layers: 18 to 200.
        variant: `` for stride in the 3x3, `v2` for activations in front, `vc` for a deep stem,
            `vd` for pooled shortcuts too.
        size: Of the picture.

    Source: He et al., arXiv:1512.03385 and 1603.05027; He et al., arXiv:1812.01187, figure 2.
    """
    net = Net(f"resnet{layers}{variant}", size)
    if variant in ("vc", "vd"):
        x = net.conv(net.conv(net.conv(net.image, 32, 3, 2), 32, 3), 64, 3)
    else:
        x = net.conv(net.image, 64, 7, 2)
    x = net.max_pool(x)
    deep = layers >= 50
    for stage, repeats in enumerate(_RESNET[layers]):
        width = 64 * 2**stage
        for k in range(repeats):
            stride = 2 if k == 0 and stage > 0 else 1
            start = net.act(x, "relu") if variant == "v2" else x
            if deep:
                inner = net.conv(net.conv(start, width), width, 3, stride)
                inner = net.conv(inner, 4 * width, act="none")
            else:
                inner = net.conv(net.conv(start, width, 3, stride), width, 3, act="none")
            out = net.channels(inner)
            if net.channels(x) != out:
                x, step = start, stride
                if variant == "vd" and stride == 2:
                    x, step = net.avg_pool(x, 2, 2), 1
                x = net.conv(x, out, 1, step, "none")
            x = net.add(x, inner, "none" if variant == "v2" else "relu")
    return net.classified(net.mean(net.act(x, "relu") if variant == "v2" else x))


def googlenet(size: int = 224) -> Graph:
    """Returns GoogLeNet. Source: Szegedy et al., arXiv:1409.4842, table 1."""
    net = Net("googlenet", size)
    x = net.max_pool(net.conv(net.image, 64, 7, 2))
    x = net.max_pool(net.conv(net.conv(x, 64), 192, 3))
    plan = (
        *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
        *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
        *((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    )
    for k, (one, three_in, three, five_in, five, pooled) in enumerate(plan):
        x = net.concat(
            net.conv(x, one),
            net.conv(net.conv(x, three_in), three, 3),
            net.conv(net.conv(x, five_in), five, 5),
            net.conv(net.max_pool(x, 3, 1), pooled),
        )
        if k in (1, 6):
            x = net.max_pool(x)
    return net.classified(net.mean(x))


def _chain(net: Net, x: Value, *layers: tuple[int, int | tuple[int, int]]) -> Value:
    for filters, kernel in layers:
        x = net.conv(x, filters, kernel)
    return x


def inception_v3(size: int = 299) -> Graph:
    """Returns Inception v3. Source: Szegedy et al., arXiv:1512.00567, table 1."""
    net = Net("inception_v3", size)
    x = net.conv(net.image, 32, 3, 2, padding="valid")
    x = net.max_pool(net.conv(net.conv(x, 32, 3, padding="valid"), 64, 3), padding="valid")
    x = net.conv(net.conv(x, 80), 192, 3, padding="valid")
    x = net.max_pool(x, padding="valid")
    for pooled in (32, 64, 64):
        x = net.concat(
            net.conv(x, 64),
            _chain(net, x, (48, 1), (64, 5)),
            _chain(net, x, (64, 1), (96, 3), (96, 3)),
            net.conv(net.avg_pool(x), pooled),
        )
    tower = _chain(net, x, (64, 1), (96, 3))
    x = net.concat(
        net.conv(x, 384, 3, 2, padding="valid"),
        net.conv(tower, 96, 3, 2, padding="valid"),
        net.max_pool(x, padding="valid"),
    )
    for c in (128, 160, 160, 192):
        x = net.concat(
            net.conv(x, 192),
            _chain(net, x, (c, 1), (c, (1, 7)), (192, (7, 1))),
            _chain(net, x, (c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))),
            net.conv(net.avg_pool(x), 192),
        )
    short, tall = net.conv(x, 192), _chain(net, x, (192, 1), (192, (1, 7)), (192, (7, 1)))
    x = net.concat(
        net.conv(short, 320, 3, 2, padding="valid"),
        net.conv(tall, 192, 3, 2, padding="valid"),
        net.max_pool(x, padding="valid"),
    )
    for _ in range(2):
        short, tall = net.conv(x, 384), _chain(net, x, (448, 1), (384, 3))
        x = net.concat(
            net.conv(x, 320),
            *(net.conv(side, 384, k) for side in (short, tall) for k in ((1, 3), (3, 1))),
            net.conv(net.avg_pool(x), 192),
        )
    return net.classified(net.mean(x))


def _stem_v4(net: Net) -> Value:
    x = net.conv(net.image, 32, 3, 2, padding="valid")
    x = net.conv(net.conv(x, 32, 3, padding="valid"), 64, 3)
    x = net.concat(net.max_pool(x, padding="valid"), net.conv(x, 96, 3, 2, padding="valid"))
    tall = _chain(net, x, (64, 1), (64, (7, 1)), (64, (1, 7)))
    short = net.conv(net.conv(x, 64), 96, 3, padding="valid")
    x = net.concat(short, net.conv(tall, 96, 3, padding="valid"))
    return net.concat(net.conv(x, 192, 3, 2, padding="valid"), net.max_pool(x, padding="valid"))


def inception_v4(size: int = 299) -> Graph:
    """Returns Inception v4. Source: Szegedy et al., arXiv:1602.07261, figures 3 to 9."""
    net = Net("inception_v4", size)
    x = _stem_v4(net)
    for _ in range(4):
        x = net.concat(
            net.conv(net.avg_pool(x), 96),
            net.conv(x, 96),
            _chain(net, x, (64, 1), (96, 3)),
            _chain(net, x, (64, 1), (96, 3), (96, 3)),
        )
    tower = _chain(net, x, (192, 1), (224, 3))
    x = net.concat(
        net.max_pool(x, padding="valid"),
        net.conv(x, 384, 3, 2, padding="valid"),
        net.conv(tower, 256, 3, 2, padding="valid"),
    )
    for _ in range(7):
        x = net.concat(
            net.conv(net.avg_pool(x), 128),
            net.conv(x, 384),
            _chain(net, x, (192, 1), (224, (1, 7)), (256, (7, 1))),
            _chain(net, x, (192, 1), (192, (1, 7)), (224, (7, 1)), (224, (1, 7)), (256, (7, 1))),
        )
    tall = _chain(net, x, (256, 1), (256, (1, 7)), (320, (7, 1)))
    x = net.concat(
        net.max_pool(x, padding="valid"),
        net.conv(net.conv(x, 192), 192, 3, 2, padding="valid"),
        net.conv(tall, 320, 3, 2, padding="valid"),
    )
    for _ in range(3):
        short = net.conv(x, 384)
        tall = _chain(net, x, (384, 1), (448, (1, 3)), (512, (3, 1)))
        x = net.concat(
            net.conv(net.avg_pool(x), 256),
            net.conv(x, 256),
            *(net.conv(side, 256, k) for side in (short, tall) for k in ((1, 3), (3, 1))),
        )
    return net.classified(net.mean(x))


def inception_resnet_v2(size: int = 299) -> Graph:
    """Returns Inception-ResNet v2. Source: Szegedy et al., arXiv:1602.07261; slim's release."""
    net = Net("inception_resnet_v2", size)
    x = net.conv(net.image, 32, 3, 2, padding="valid")
    x = net.max_pool(net.conv(net.conv(x, 32, 3, padding="valid"), 64, 3), padding="valid")
    x = net.max_pool(net.conv(net.conv(x, 80), 192, 3, padding="valid"), padding="valid")
    x = net.concat(
        net.conv(x, 96),
        _chain(net, x, (48, 1), (64, 5)),
        _chain(net, x, (64, 1), (96, 3), (96, 3)),
        net.conv(net.avg_pool(x), 64),
    )

    def residual(x: Value, *sides: Value) -> Value:
        return net.add(x, net.conv(net.concat(*sides), net.channels(x), act="none"), "relu")

    for _ in range(10):
        side = _chain(net, x, (32, 1), (48, 3), (64, 3))
        x = residual(x, net.conv(x, 32), _chain(net, x, (32, 1), (32, 3)), side)
    tower = _chain(net, x, (256, 1), (256, 3))
    x = net.concat(
        net.conv(x, 384, 3, 2, padding="valid"),
        net.conv(tower, 384, 3, 2, padding="valid"),
        net.max_pool(x, padding="valid"),
    )
    for _ in range(20):
        x = residual(x, net.conv(x, 192), _chain(net, x, (128, 1), (160, (1, 7)), (192, (7, 1))))
    towers = [
        net.conv(net.conv(x, 256), 384, 3, 2, padding="valid"),
        net.conv(net.conv(x, 256), 288, 3, 2, padding="valid"),
        net.conv(_chain(net, x, (256, 1), (288, 3)), 320, 3, 2, padding="valid"),
    ]
    x = net.concat(*towers, net.max_pool(x, padding="valid"))
    for _ in range(10):
        x = residual(x, net.conv(x, 192), _chain(net, x, (192, 1), (224, (1, 3)), (256, (3, 1))))
    return net.classified(net.mean(net.conv(x, 1536)))


def densenet_121(size: int = 224) -> Graph:
    """Returns DenseNet-121. Source: Huang et al., arXiv:1608.06993, table 1."""
    net = Net("densenet_121", size)
    x = net.max_pool(net.conv(net.image, 64, 7, 2))
    for stage, repeats in enumerate((6, 12, 24, 16)):
        for _ in range(repeats):
            x = net.concat(x, net.conv(net.conv(net.act(x, "relu"), 128), 32, 3, act="none"))
        if stage < 3:
            x = net.avg_pool(net.conv(net.act(x, "relu"), net.channels(x) // 2, act="none"), 2, 2)
    return net.classified(net.mean(net.act(x, "relu")))


def xception(layers: int, size: int = 299) -> Graph:
    """Returns Xception with 41, 65 or 71 layers. Source: Chen et al., arXiv:1802.02611."""
    net = Net(f"xception{layers}", size)

    def block(x: Value, widths: tuple[int, int, int], stride: int, skip: bool) -> Value:
        inner = x
        for k, width in enumerate(widths):
            inner = net.conv(
                net.depthwise(net.act(inner, "relu"), 3, stride if k == 2 else 1, "none"),
                width,
                act="none",
            )
        if skip:
            return net.add(net.conv(x, widths[-1], 1, stride, "none"), inner)
        return net.add(x, inner)

    x = net.conv(net.conv(net.image, 32, 3, 2), 64, 3)
    entry = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)] if layers == 71 else []
    for width, stride in entry or [(128, 2), (256, 2), (728, 2)]:
        x = block(x, (width, width, width), stride, True)
    for _ in range(8 if layers == 41 else 16):
        x = block(x, (728, 728, 728), 1, False)
    x = block(x, (728, 1024, 1024), 2, True)
    for width in (1536, 1536, 2048):
        x = net.separable(x, width)
    return net.classified(net.mean(x))


def hrnet(width: int, size: int = 224) -> Graph:
    """Returns an HRNet for classes. Source: Wang et al., arXiv:1908.07919, figures 2 and 6."""
    net = Net(f"hrnet_w{width}", size)

    def bottleneck(x: Value, filters: int) -> Value:
        inner = net.conv(net.conv(net.conv(x, filters), filters, 3), 4 * filters, act="none")
        if net.channels(x) != 4 * filters:
            x = net.conv(x, 4 * filters, act="none")
        return net.add(x, inner, "relu")

    x = net.conv(net.conv(net.image, 64, 3, 2), 64, 3, 2)
    for _ in range(4):
        x = bottleneck(x, 64)
    maps = [net.conv(x, width, 3), net.conv(x, 2 * width, 3, 2)]
    for stage, modules in enumerate((1, 4, 3)):
        if stage:
            maps.append(net.conv(maps[-1], width * 2 ** (stage + 1), 3, 2))
        for _ in range(modules):
            maps = _exchange(net, [_basics(net, x) for x in maps])
    maps = [bottleneck(x, filters) for x, filters in zip(maps, (32, 64, 128, 256), strict=True)]
    x = maps[0]
    for finer in maps[1:]:
        x = net.add(net.conv(x, net.channels(finer), 3, 2), finer)
    return net.classified(net.mean(net.conv(x, 2048)))


def _basics(net: Net, x: Value) -> Value:
    for _ in range(4):
        inner = net.conv(net.conv(x, net.channels(x), 3), net.channels(x), 3, act="none")
        x = net.add(x, inner, "relu")
    return x


def _exchange(net: Net, maps: list[Value]) -> list[Value]:
    results = []
    for to, there in enumerate(maps):
        total = there
        for since, x in enumerate(maps):
            if since > to:
                x = net.upsample(net.conv(x, net.channels(there), act="none"), 2 ** (since - to))
            for k in range(to - since):
                last = k == to - since - 1
                filters = net.channels(there) if last else net.channels(x)
                act: Act = "none" if last else "relu"
                x = net.conv(x, filters, 3, 2, act)
            if since != to:
                total = net.add(total, x)
        results.append(net.act(total, "relu"))
    return results


def yolov4_tiny(size: int = 416) -> Graph:
    """Returns YOLOv4-tiny, 80 classes. Source: Wang et al., arXiv:2011.08036."""
    net = Net("yolov4-tiny", size)
    x = net.conv(net.conv(net.image, 32, 3, 2, "leaky"), 64, 3, 2, "leaky")
    for filters in (64, 128, 256):
        x = net.conv(x, filters, 3, act="leaky")
        part = net.conv(net.halves(x)[1], filters // 2, 3, act="leaky")
        more = net.conv(part, filters // 2, 3, act="leaky")
        fine = net.conv(net.concat(more, part), filters, act="leaky")
        x = net.max_pool(net.concat(x, fine), 2, 2)
    x = net.conv(net.conv(x, 512, 3, act="leaky"), 256, act="leaky")
    coarse = net.conv(net.conv(x, 512, 3, act="leaky"), 255, act="none")
    up = net.upsample(net.conv(x, 128, act="leaky"))
    fine = net.conv(net.concat(up, fine), 256, 3, act="leaky")
    return net.done(coarse, net.conv(fine, 255, act="none"))
