"""The performance claims of the thesis as tests on estimates.

Source: Haapamäki, Facial landmark detection on mobile devices, University of Oulu, 2020. The values
of its latency charts are not in its text, so the claims bind ratios and orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import studies
from benchmarks.latency_bench import (
    DESKTOP,
    DSP,
    GPU,
    GUESSED,
    NETS,
    PFLD,
    PHONES,
    Bench,
    Claim,
    verdict,
)
from lmopt.errors import BackendError
from lmopt.target.catalog import load_target


def latency_claims() -> Iterator[Claim]:
    """Yields every claim on speed and size, judged."""
    bench = Bench()
    for judge in (
        *(_threads, _desktop_threads, _knee, _cause, _pfld_first, _tenth, _within_15),
        *(_dsp_like_cpu, _dan1_slow, _dan2_slow, _dan1_not_real_time, _dan1_like_pfld),
        *(_dan1_beats_pfld, _gpu_gain, _gpu_not_fastest, _hrnet_slowest, _hrnet_quantizes),
        *(_hrnet_20, _dsp_like_gpu, _dan2_on_dsp, _small_gain, _dsp_pays, _light_nets),
        *(_gpu_peaks, _sizes, _phone_gpu),
    ):
        yield judge(bench)


def _caution(*targets: str) -> str:
    named = [name for name in targets if name in GUESSED]
    return f"{' and '.join(named)}: numbers are guesses" if named else ""


def _each(make: Callable[[str], str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {make(name)}" for name in names)


def _by_time(bench: Bench, target: str) -> list[str]:
    return sorted(NETS, key=lambda net: bench.ms(net, target))


def _best_count(bench: Bench, net: str, target: str, most: int) -> int:
    return min(range(1, most + 1), key=lambda n: bench.ms(net, target, threads=n))


def _threads(bench: Bench) -> Claim:
    best = {(p, n): _best_count(bench, n, p, 8) for p in PHONES for n in NETS}
    worse = all(bench.ms(n, p, threads=8) > bench.ms(n, p, threads=4) for p in PHONES for n in NETS)
    shown = "; ".join(f"{p}: {_each(lambda n, p=p: str(best[p, n]), NETS)}" for p in PHONES)
    return Claim(
        1,
        "1094-1096",
        "On both phones the best thread count is four; more are slower",
        verdict(set(best.values()) == {4} and worse),
        f"fastest of 1 to 8 threads: {shown}; 8 slower than 4 everywhere: {worse}",
        "beyond four threads nothing was fitted: equal parts wait for the slowest core by the "
        "model's form",
    )


def _desktop_threads(bench: Bench) -> Claim:
    ratios = {
        n: bench.ms(n, DESKTOP, threads=16)
        / min(bench.ms(n, DESKTOP, threads=k) for k in range(1, 17))
        for n in NETS
    }
    return Claim(
        2,
        "1095-1096",
        "The desktop CPU stays flat after its top",
        verdict(max(ratios.values()) <= 1.1),
        f"16 threads over the best: {_each(lambda n: f'{ratios[n]:.2f}', NETS)}",
        _caution(DESKTOP),
    )


def _knee(bench: Bench) -> Claim:
    knees = {}
    for n in NETS:
        times = {k: bench.ms(n, DESKTOP, threads=k) for k in range(1, 17)}
        knees[n] = min(k for k, ms in times.items() if ms <= 1.05 * min(times.values()))
    return Claim(
        3,
        "1119-1120",
        "Models stop gaining after five or six threads (of the desktop, it seems)",
        verdict(set(knees.values()) <= {5, 6}),
        f"fewest threads within 5 % of the best: {_each(lambda n: str(knees[n]), NETS)}",
        _caution(DESKTOP),
    )


def _cause(bench: Bench) -> Claim:
    return Claim(
        4,
        "1098-1099",
        "Slower cores are why more threads hurt",
        "not testable",
        "the model has no other cause to offer",
    )


def _pfld_first(bench: Bench) -> Claim:
    orders = [_by_time(bench, p) for p in PHONES]
    shown = "; ".join(
        f"{p}: {_each(lambda n, p=p: f'{bench.ms(n, p):.1f} ms', NETS)}" for p in PHONES
    )
    return Claim(
        5,
        "1112-1115",
        "PFLD 0.25 is the fastest of all on CPUs, PFLD 1.0 follows",
        verdict(all(order[:2] == list(PFLD) for order in orders)),
        shown,
    )


def _tenth(bench: Bench) -> Claim:
    ratios = {p: bench.ms("pfld-1.0", p) / bench.ms("dan1", p) for p in PHONES}
    return Claim(
        6,
        "1127-1129",
        "PFLD 1.0 takes about a tenth of DAN1's time on phone CPUs (0.08 to 0.13)",
        verdict(all(0.08 <= ratio <= 0.13 for ratio in ratios.values())),
        _each(lambda p: f"{ratios[p]:.3f}", PHONES),
    )


def _within_15(bench: Bench) -> Claim:
    times = {(n, p): bench.ms(n, p) for n in PFLD for p in PHONES}
    return Claim(
        7,
        "1129-1131",
        "Both PFLDs take less than 15 ms on both phones",
        verdict(max(times.values()) < 15),
        ", ".join(f"{n} {p} {ms:.1f} ms" for (n, p), ms in times.items()),
    )


def _dsp_like_cpu(bench: Bench) -> Claim:
    ratios = {n: bench.ms(n, "velvet-cpu", "i8") / bench.dsp_ms(n) for n in PFLD}
    return Claim(
        8,
        "1131-1132",
        "Quantized PFLD runs as well on the phone's CPU as on its DSP (within a factor 2)",
        verdict(all(0.5 <= ratio <= 2 for ratio in ratios.values())),
        f"CPU over DSP: {_each(lambda n: f'{ratios[n]:.2f}', PFLD)}",
        _caution(DSP),
    )


def _dan1_slow(bench: Bench) -> Claim:
    ratios = {p: bench.ms("dan1", p) / bench.ms("pfld-1.0", p) for p in PHONES}
    return Claim(
        9,
        "1141-1142",
        "DAN1 is very slow against PFLD on phones (5 times PFLD 1.0 or more)",
        verdict(min(ratios.values()) >= 5),
        _each(lambda p: f"{ratios[p]:.1f}", PHONES),
    )


def _dan2_slow(bench: Bench) -> Claim:
    ratios = {p: bench.ms("dan2", p, "i8") / bench.ms("dan1", p, "i8") for p in PHONES}
    return Claim(
        10,
        "1142-1144",
        "Quantized DAN2 is surprisingly slow on CPUs (far more than twice DAN1: 2.5 or more)",
        verdict(min(ratios.values()) >= 2.5),
        f"DAN2 over DAN1 in int8: {_each(lambda p: f'{ratios[p]:.2f}', PHONES)}",
    )


def _dan1_not_real_time(bench: Bench) -> Claim:
    times = {p: bench.ms("dan1", p, "i8") for p in PHONES}
    return Claim(
        11,
        "1146-1147",
        "Quantized DAN1 runs well on phone CPUs but not in real time (more than 15 ms)",
        verdict(min(times.values()) > 15),
        f"{_each(lambda p: f'{times[p]:.1f} ms', PHONES)}; the text's other bar is 30 ms",
    )


def _dan1_like_pfld(bench: Bench) -> Claim:
    ratio = bench.ms("dan1", GPU) / bench.ms("pfld-1.0", GPU)
    return Claim(
        12,
        "1147-1150",
        "On the desktop GPU DAN1 takes nearly PFLD's time (within a factor 1.5)",
        verdict(1 / 1.5 <= ratio <= 1.5),
        f"DAN1 over PFLD 1.0: {ratio:.2f}",
    )


def _dan1_beats_pfld(bench: Bench) -> Claim:
    times = {n: bench.ms(n, GPU) for n in ("dan1", *PFLD)}
    return Claim(
        13,
        "1166-1167",
        "On the desktop GPU DAN1 beats both PFLDs",
        verdict(times["dan1"] < min(times[n] for n in PFLD)),
        ", ".join(f"{n} {ms:.2f} ms" for n, ms in times.items()),
    )


def _gpu_gain(bench: Bench) -> Claim:
    ratio = bench.ms("dan1", DESKTOP) / bench.ms("dan1", GPU)
    return Claim(
        14,
        "1167-1169",
        "DAN1 is more than four times faster on the desktop's GPU than on its CPU",
        verdict(ratio > 4),
        f"{ratio:.1f}",
        _caution(DESKTOP),
    )


def _gpu_not_fastest(bench: Bench) -> Claim:
    others = {
        n: min(
            *(bench.ms(n, p) for p in (*PHONES, DESKTOP)),
            *(bench.ms(n, p, "i8") for p in PHONES),
            bench.dsp_ms(n),
        )
        for n in PFLD
    }
    return Claim(
        15,
        "1121-1124, 1200-1203",
        "The desktop GPU is not the fastest platform for PFLD",
        verdict(all(others[n] <= bench.ms(n, GPU) for n in PFLD)),
        _each(lambda n: f"best elsewhere {others[n]:.2f}, GPU {bench.ms(n, GPU):.2f} ms", PFLD),
        _caution(DESKTOP),
    )


def _hrnet_slowest(bench: Bench) -> Claim:
    slowest = {p: _by_time(bench, p)[-1] for p in (*PHONES, DESKTOP, GPU)}
    slowest[DSP] = max((n for n in NETS if n != "dan2"), key=bench.dsp_ms)
    phone = min(bench.ms("hrnet-w18", p) for p in PHONES)
    return Claim(
        16,
        "1155-1157",
        "HRNet is the slowest on every platform, and not for real time on phones",
        verdict(set(slowest.values()) == {"hrnet-w18"} and phone > 30),
        f"slowest: {', '.join(f'{p} {n}' for p, n in slowest.items())}; best phone {phone:.0f} ms",
        _caution(DSP, DESKTOP),
    )


def _gain(bench: Bench, net: str, phone: str) -> float:
    return bench.ms(net, phone) / bench.ms(net, phone, "i8")


def _hrnet_quantizes(bench: Bench) -> Claim:
    gains = {p: (_gain(bench, "hrnet-w18", p), _gain(bench, "dan2", p)) for p in PHONES}
    return Claim(
        17,
        "1157-1158",
        "HRNet gains more from quantization than DAN2",
        verdict(all(hrnet > dan2 for hrnet, dan2 in gains.values())),
        _each(lambda p: f"HRNet {gains[p][0]:.2f}, DAN2 {gains[p][1]:.2f}", PHONES),
    )


def _hrnet_20(bench: Bench) -> Claim:
    ms = bench.ms("hrnet-w18", GPU)
    return Claim(
        18,
        "1160-1161",
        "HRNet takes about 20 ms on the desktop GPU (16 to 24)",
        verdict(16 <= ms <= 24),
        f"{ms:.1f} ms",
    )


def _dsp_like_gpu(bench: Bench) -> Claim:
    nets = tuple(n for n in NETS if n != "dan2")
    ratios = {n: bench.dsp_ms(n) / bench.ms(n, GPU) for n in nets}
    return Claim(
        19,
        "26-30, 63-64",
        "For some network the DSP is nearly as fast as the desktop GPU (within 1.3)",
        verdict(min(ratios.values()) <= 1.3),
        f"DSP over GPU: {_each(lambda n: f'{ratios[n]:.2f}', nets)}",
        _caution(DSP),
    )


def _dan2_on_dsp(bench: Bench) -> Claim:
    try:
        found = bench.estimate("dan2", DSP, "u8")
    except BackendError as error:
        return Claim(20, "1107-1109", "DAN2 fails on the DSP", "reproduced", str(error))
    outside = sorted({t.kernel.kind for t in found.kernels if not t.kernel.delegated})
    return Claim(
        20,
        "1107-1109",
        "DAN2 gives wrong answers on the DSP once quantized, and is left out",
        "not testable",
        f"wrong answers are no matter of time; the engine refuses {', '.join(outside)}",
    )


def _small_gain(bench: Bench) -> Claim:
    gains = {(n, p): _gain(bench, n, p) for n in NETS for p in PHONES}
    return Claim(
        21,
        "1195-1196",
        "Quantization gains little on phone CPUs (less than 2.5)",
        verdict(max(gains.values()) < 2.5),
        ", ".join(f"{n} {p} {gain:.2f}" for (n, p), gain in gains.items()),
    )


def _dsp_pays(bench: Bench) -> Claim:
    nets = ("dan1", "hrnet-w18")
    times = {n: (bench.dsp_ms(n), bench.ms(n, "velvet-cpu", "i8")) for n in nets}
    return Claim(
        22,
        "1196-1198",
        "The DSP improves further on the quantized CPU, for DAN1 and HRNet",
        verdict(all(dsp < cpu for dsp, cpu in times.values())),
        _each(lambda n: f"DSP {times[n][0]:.1f}, CPU {times[n][1]:.1f} ms", nets),
        _caution(DSP),
    )


def _light_nets(bench: Bench) -> Claim:
    worst = max(bench.ms(n, p) for n in PFLD for p in PHONES)
    return Claim(
        23,
        "26-27, 1217-1218",
        "Light networks run well on phone CPUs (PFLD within 30 ms)",
        verdict(worst <= 30),
        f"slowest PFLD {worst:.1f} ms",
    )


def _gpu_peaks(bench: Bench) -> Claim:
    peaks = [load_target(p).quantities["peak_f16"].value for p in ("p30-gpu", "velvet-gpu")]
    return Claim(
        24,
        "757-758",
        "The P30's GPU is more powerful than the Velvet's",
        verdict(peaks[0] > peaks[1]),
        f"{peaks[0]:.0f} against {peaks[1]:.0f} GMAC/s in float16",
        "read off data sheets, not estimated",
    )


def _sizes(bench: Bench) -> Claim:
    off = {n: bench.parameters[n] / studies.PARAMETERS[n] - 1 for n in NETS}
    return Claim(
        25,
        "585-586, table 2",
        "Parameters of the five networks (within 1 %)",
        verdict(max(abs(value) for value in off.values()) <= 0.01),
        _each(lambda n: f"{bench.parameters[n]:,} ({100 * off[n]:+.2f} %)", NETS),
        "our networks were built to these counts",
    )


def _phone_gpu(bench: Bench) -> Claim:
    return Claim(
        26,
        "1078",
        "The benchmark tool can use the phones' GPUs",
        "not testable",
        "the text claims nothing of their latency",
    )
