"""The use case `search`: candidates proposed, raced and trained until the front stands still."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lmopt.cost.estimate import TargetCost
from lmopt.data.dataset import SPLITS
from lmopt.device.adb import is_phone
from lmopt.errors import PassError, SearchError, UsageError
from lmopt.exploration.result import SearchResult
from lmopt.exploration.space import SearchSpace, load_space, lowest
from lmopt.exploration.study import Study, studies_in
from lmopt.flow import events
from lmopt.flow.candidates import HOST, OnPhone, PhoneHere, PhoneThere, default_folder, obtain
from lmopt.flow.cluster import Cluster
from lmopt.flow.crew import Alone, Crew, Scored
from lmopt.flow.events import Listener, ignore
from lmopt.flow.exploring import Explorer
from lmopt.flow.gauging import Gauge, is_measured_here
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal, key_of
from lmopt.flow.optimization import optimize
from lmopt.flow.phone import phone_of
from lmopt.flow.pipelines import BASELINE, of_form
from lmopt.flow.request import SearchRequest
from lmopt.flow.sources import as_teacher, load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.pipeline.catalog import installed
from lmopt.pipeline.manager import Pipeline
from lmopt.target.profile import Target

SMALLER = (
    ("resize-input{size=64..96:16}", "insert-pool"),
    ("drop-block{count=1..4}",),
    ("prune{amount=0.1..0.9:0.05}", "prune{amount=0.1..0.9:0.05,by=latency}"),
)
"""Stages of alternatives that make a detector smaller, with the numbers that are worth trying."""
RECOVERY = "finetune{learning-rate=1e-3,distill=0.5}"
FURTHER = "prune{amount=0.3}"
LAST = "debias"
"""What every candidate gains by when its weights are final: it costs nothing at run time."""


def search(request: SearchRequest, listen: Listener = ignore) -> SearchResult:
    """Returns the best front of validation NME against latency that the budget buys.

    Every answer is recorded before the next question: the same command again goes on where a
    killed one was, and a second process with the same folder adds to the same study.

    Args:
        request: What is wanted.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector, target or pass, or a malformed pipeline.
        InputError: Data, contract, space, study or model that cannot be used.
        SearchError: No candidate meets the constraints.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        cluster = None
        if request.cluster is not None:
            cluster = stack.enter_context(Cluster(request.cluster, listen))
        phone = _phone(request, cluster)
        target = target_named(request.target) if phone is None else phone.cable.target
        detector = load(request.detector, contract=request.contract)
        detector.require_weights()
        contract = detector.require_contract()
        space = space_of(request, target)
        folder = default_folder(detector, target)
        out = request.out or folder.with_name(f"{folder.name}-search")
        url = request.study or f"sqlite:///{(out / 'study.db').resolve()}"
        name = f"{detector.name} for {target.name}"
        _check_place(request, out, url, name)
        journal = Journal(out)
        faces = load_faces(request.data, contract, listen)
        counts = ", ".join(f"{len(faces.split(split))} {split}" for split in SPLITS)
        listen(events.Noted(f"searching {name} on {faces.name} ({counts} faces)"))
        teacher = as_teacher(request.teacher)
        bench = stack.enter_context(
            Workbench(
                detector,
                faces,
                target,
                seed=request.seed,
                teacher=teacher,
                cache=journal.cache,
                listen=listen,
                stability="stability" in request.objectives,
            )
        )

        def fit(wanted: SearchSpace) -> SearchSpace:
            if request.space is not None:
                return wanted
            listen(events.Activity(f"trying what {detector.name} takes of the target's space"))
            return fitted(wanted, bench, listen)

        study = Study(
            url,
            name,
            space,
            _identity(request, bench, target, space, phone),
            seed=request.seed,
            sampler=request.sampler,
            more=len(request.objectives),
            fit=fit,
        )
        known = study.findings().values()
        if known:
            trainings = sum(len(rows) - 1 for rows in known)
            listen(events.Noted(f"going on from {len(known)} candidates, {trainings} trainings"))
        listen(events.Noted(f"{study.space.size:,} candidates are possible"))
        crew: Crew = Alone(bench, journal)
        if cluster is not None:
            crew = cluster.crew(bench, journal, request.data)
        explorer = explorer_of(request, study, bench, journal, crew, phone, listen)
        stopped = explorer.run(lambda: (time.monotonic() - started) / 60.0)
        listen(events.Noted(f"stopped: {stopped}"))
        finals, volumes, tried = explorer.finals(), explorer.volumes(), study.tried()
        bench.rest()
        try:
            optimized = optimize(request.final(finals, out), listen, there=phone)
        except SearchError as error:
            reasons = [f"#{t.asked.number}: {t.failure}" for t in tried if t.failure]
            why = "; ".join(reasons[:5]) or error.what
            raise SearchError(
                f"none of {len(tried)} candidates can be shipped ({why})",
                hint="loosen the limits, or run the same command again: it goes on",
            ) from error
    told = {"search": f"{len(tried)} candidates; {stopped}", **optimized.environment}
    return SearchResult(replace(optimized, environment=told), study.space, volumes, tried, stopped)


def explorer_of(
    request: SearchRequest,
    study: Study,
    bench: Workbench,
    journal: Journal,
    crew: Crew,
    phone: PhoneThere | None = None,
    listen: Listener = ignore,
) -> Explorer:
    """Returns the loop of a search, its baseline made.

    Raises:
        BackendError: The baseline cannot be made.
    """
    assert bench.target is not None
    baseline, _ = obtain(bench, journal, Pipeline.parse(BASELINE))
    errors = bench.score(Path(baseline.model), "validation").per_face

    def on_phone(files: Mapping[str, Path]) -> OnPhone:
        assert phone is not None
        crops = bench.protocol("validation").crops.pixels
        return phone.measure(files, request.threads, bench.detector.require_contract(), crops)

    gauge = Gauge(request, bench.target, baseline, None if phone is None else on_phone)
    return Explorer(request, study, crew, gauge, Scored(baseline, errors), listen)


def _check_place(request: SearchRequest, out: Path, url: str, name: str) -> None:
    """Raises UsageError where another search lives, or none that `--resume` could mean."""
    own = request.study is None
    names = () if own and not (out / "study.db").is_file() else studies_in(url)
    if own and names and name not in names:
        raise UsageError(
            f"{out} holds the search '{names[0]}'; this one is '{name}'",
            where="--out",
            hint="choose another --out",
        )
    if request.resume and name not in names:
        raise UsageError(
            f"no study '{name}' to resume in {out if own else url}",
            where="--resume",
            hint="without --resume one is begun",
        )


def _phone(request: SearchRequest, cluster: Cluster | None) -> PhoneThere | None:
    """Returns the phone to measure on: of a node of the cluster, else on a cable of this one."""
    if not is_phone(request.device):
        return None
    found = None if cluster is None else cluster.phone(request)
    return found or PhoneHere(phone_of(request))


def _identity(
    request: SearchRequest,
    bench: Workbench,
    target: Target,
    space: SearchSpace,
    phone: PhoneThere | None,
) -> dict[str, str]:
    """Returns everything that findings depend on, long values as digests."""
    if phone is not None:
        times = str(phone.cable.phone)
    else:
        times = "measured" if is_measured_here(request, target) else TargetCost(target).digest
    return {
        "detector": bench.detector.graph.digest(),
        "contract": key_of({"contract": repr(bench.detector.contract)}),
        "data": "" if bench.faces is None else bench.faces.digest,
        "target": key_of({"name": target.name, "forms": repr(target.forms)}),
        "source of latencies": times,
        "space": key_of({"space": space.to_toml()}),
        "seed": str(request.seed),
        "teacher": "" if bench.teacher is None else bench.teacher.graph.digest(),
        "objective": ", ".join(request.objectives),
    }


def space_of(request: SearchRequest, target: Target) -> SearchSpace:
    """Returns the space that the user names, or what is worth trying on the target.

    Raises:
        InputError: The space cannot be used.
    """
    return load_space(request.space) if request.space else space_for(target)


def space_for(target: Target) -> SearchSpace:
    """Returns what is worth trying on a target.

    Every installed pass that makes detectors smaller, and what the target prefers for storage and
    float32, as far as they are legal there; on this host, where each file is measured, int8 first.
    """
    installed_ones = installed().targets
    last = ((LAST,),) if LAST in installed_ones else ()
    stored = (*(("int8",) if target.name == HOST else ()), target.preferred, "float32")
    forms = [form for form in dict.fromkeys(stored) if target.rule(form).legal]
    endings = (str(of_form(form)).removeprefix(BASELINE).lstrip(",") for form in forms)
    return SearchSpace(
        before=tuple(
            ("", *(text for text in texts if text.partition("{")[0] in installed_ones))
            for texts in SMALLER
        ),
        after=(*last, tuple(endings)),
        recovery=RECOVERY,
        further=FURTHER if FURTHER.partition("{")[0] in installed_ones else "",
    )


def fitted(space: SearchSpace, bench: Workbench, listen: Listener = ignore) -> SearchSpace:
    """Returns the space without what this detector does not take at all.

    That is, alternatives before the recovery, and stages behind it that leave no choice.
    """

    def fits(text: str) -> bool:
        try:
            bench.run(Pipeline.parse(lowest(f"{space.begin},{text}" if text else space.begin)))
        except PassError as error:
            hint = f" ({error.hint})" if error.hint else ""
            listen(events.Noted(f"left out: {text}: {error.what}{hint}"))
            return False
        return True

    before = (tuple(text for text in stage if fits(text)) for stage in space.before)
    further = space.further if fits(space.further) else ""
    kept = tuple(stage for stage in before if stage and stage != ("",))
    after = tuple(stage for stage in space.after if len(stage) > 1 or fits(stage[0]))
    return replace(space, before=kept, after=after, further=further)
