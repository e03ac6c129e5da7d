"""The use case `optimize`: from a detector, faces and a target to a Pareto front of files."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from lmopt.data.dataset import SPLITS
from lmopt.device.adb import is_phone
from lmopt.errors import BackendError, PassError, SearchError, UsageError
from lmopt.exploration.candidate import Candidate, Failure, Trained
from lmopt.exploration.front import Front
from lmopt.exploration.result import Dominated, OptimizeResult
from lmopt.flow import events, storage
from lmopt.flow.candidates import (
    OnDevice,
    OnPhone,
    PhoneHere,
    PhoneThere,
    Timing,
    default_folder,
    is_measured,
    measure_all,
    obtain,
)
from lmopt.flow.card import card_of, measure_on_card
from lmopt.flow.environment import environment
from lmopt.flow.events import Listener, ignore
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal
from lmopt.flow.phone import Cabled, phone_of
from lmopt.flow.pipelines import BASELINE, scaled
from lmopt.flow.request import OptimizeRequest
from lmopt.flow.sources import as_teacher, kind_of_faces, load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.latency import host
from lmopt.latency.cuda import is_cuda
from lmopt.pipeline.manager import Pipeline
from lmopt.target.profile import Target


def optimize(
    request: OptimizeRequest, listen: Listener = ignore, *, there: PhoneThere | None = None
) -> OptimizeResult:
    """Returns the front of validation NME against latency that the pipelines reach.

    Every pipeline is run, emitted, scored on the validation faces and recorded; a rerun with the
    same arguments takes finished candidates from the journal. Then all files are measured on this
    host in one interleaved run, and on a phone or a card in another where one is asked for; the
    baseline and the front see the test faces once.

    Args:
        request: What is wanted.
        listen: Receives progress events.
        there: The phone when it is not on a cable of this machine.

    Raises:
        UsageError: Unknown detector, target or pass, a malformed pipeline, or a device that the
            target is not for.
        InputError: Data, contract or model that cannot be used.
        BackendError: The device is not there, or the float baseline fails.
        SearchError: No candidate meets the constraints.
    """
    cable = None
    if there is not None:
        cable = there.cable
    elif is_phone(request.device):
        cable = phone_of(request)
    for note in () if cable is None else cable.notes:
        listen(events.Noted(note))
    target = target_named(request.target) if cable is None else cable.target
    card = card_of(request.device, target) if is_cuda(request.device) else None
    detector = load(request.detector, contract=request.contract)
    detector.require_weights()
    contract = detector.require_contract()
    pipelines = _pipelines(request, target)
    out = request.out or default_folder(detector, target)
    journal = Journal(out)
    faces = load_faces(request.data, contract, listen)
    for split in SPLITS:
        faces.split(split)
    listen(events.Started(detector.name, target.name, faces.name, len(pipelines)))

    with Workbench(
        detector,
        faces,
        target,
        seed=request.seed,
        teacher=as_teacher(request.teacher),
        cache=journal.cache,
        listen=listen,
        stability="stability" in request.objectives,
    ) as bench:
        for pipeline in pipelines:
            pipeline.check(bench.context())
        made, failures = _make_all(request, bench, journal, pipelines, listen)
        baseline = made.pop(BASELINE, None)
        if baseline is None:
            reason = next(f.reason for f in failures if f.pipeline == BASELINE)
            raise BackendError(f"the float baseline failed: {reason}", where=detector.name)
        forms: tuple[storage.Form, ...] = ()
        if request.compare_storage:
            forms = storage.make_forms(bench, journal, target, request, listen)
        bench.rest()
        listen(events.Activity("measuring every file on this host, interleaved"))
        files = (baseline, *made.values(), *(form.made for form in forms if form.made))
        measured = measure_all(files, target, request)
        found: OnDevice | None = None
        facts: dict[str, object] = {}
        if cable is not None:
            listen(events.Activity(f"measuring every file on {cable.phone}, interleaved"))
            crops = bench.protocol("validation").crops.pixels
            paths = {trained.digest: Path(trained.model) for trained in files}
            place = there or PhoneHere(cable)
            found = phone = place.measure(paths, request.threads, contract, crops)
            facts = _phone_facts(cable, phone)
        elif card is not None:
            listen(events.Activity(f"measuring every SavedModel on {card}, interleaved"))
            found = on_card = measure_on_card(files, request.device, request.seed)
            facts = {"card": card, "doubts": list(on_card.doubts)}
        timing = Timing(target, request, measured, baseline, found)
        base = timing.candidate(baseline)
        candidates = [base]
        for trained in made.values():
            try:
                candidates.append(timing.candidate(trained))
            except BackendError as error:
                failures.append(Failure(trained.pipeline, "failed", str(error)))
        usable, refused = _constrain(candidates, base, request, bench.untaught_nme_percent())
        front = Front.of(usable, lambda c: c.minimised(request.objectives))
        listen(events.Activity("scoring the front on the test faces"))
        tested = {
            c.trained.digest: bench.score(Path(c.trained.model), "test")
            for c in (base, *front.points)
        }

    def with_test(candidate: Candidate) -> Candidate:
        return replace(candidate, nme_percent=tested[candidate.trained.digest].nme_percent)

    test = tested[base.trained.digest]
    return OptimizeResult(
        target=target.name,
        detector=detector.name,
        data={
            "name": faces.name,
            "digest": faces.digest,
            "faces": {split: len(faces.split(split)) for split in SPLITS},
            "normaliser": test.normaliser,
            "crop": test.crop,
            "kind": kind_of_faces(request.data),
        },
        baseline=with_test(base),
        front=tuple(with_test(c) for c in front.points),
        dominated=tuple(Dominated(c, f"dominated by {by.pipeline}") for c, by in front.dominated),
        failures=(*refused, *failures),
        environment={
            **environment(),
            "host": str(host.describe()),
            "seed": request.seed,
            "measured_target": is_measured(target, request),
            "busy": any(m.busy for m in measured.values()),
            **facts,
            "out": str(out.resolve()),
        },
        storage=storage.comparison(target, forms, timing, base) if forms else None,
    )


def _phone_facts(cable: Cabled, phone: OnPhone) -> dict[str, object]:
    """Returns what a report says of the phone and of the state it was in."""
    found = phone.run.measurements.values()
    conditions = [m.conditions for m in found if m.conditions is not None]
    return {
        "phone": cable.phone.to_json(),
        "phone_tool": str(cable.tool),
        "device_notes": [*cable.notes, *phone.compared],
        "phone_conditions": None if not conditions else asdict(conditions[0]),
        "doubts": list(dict.fromkeys(doubt for m in found for doubt in m.doubts)),
    }


def _pipelines(request: OptimizeRequest, target: Target) -> tuple[Pipeline, ...]:
    """Returns the float baseline and what the user or else the target wants tried, each once."""
    own = not request.passes
    wanted = [Pipeline.parse(text) for text in request.passes or target.pipelines]
    if own:
        wanted = [scaled(pipeline, request.effort) for pipeline in wanted]
    wanted = [storage.ends_of(pipeline, target, request, own=own) for pipeline in wanted]
    if not wanted:
        raise UsageError(
            f"target '{target.name}' names no pipelines", hint="give some with --passes"
        )
    return tuple(dict.fromkeys([Pipeline.parse(BASELINE), *wanted]))


def _make_all(
    request: OptimizeRequest,
    bench: Workbench,
    journal: Journal,
    pipelines: tuple[Pipeline, ...],
    listen: Listener,
) -> tuple[dict[str, Trained], list[Failure]]:
    started = time.monotonic()
    made: dict[str, Trained] = {}
    failures: list[Failure] = []
    for position, pipeline in enumerate(pipelines, start=1):
        text = str(pipeline)
        minutes = (time.monotonic() - started) / 60.0
        if request.budget_minutes is not None and minutes > request.budget_minutes and made:
            failures.append(
                Failure(text, "skipped", f"the budget of {request.budget_minutes:g} min was spent")
            )
            listen(events.CandidateFailed(failures[-1]))
            continue
        listen(events.CandidateStarted(position, len(pipelines), text))
        try:
            made[text], resumed = obtain(bench, journal, pipeline)
        except (PassError, BackendError) as error:
            failures.append(Failure(text, "failed", str(error)))
            listen(events.CandidateFailed(failures[-1]))
            continue
        listen(events.CandidateTrained(made[text], resumed))
    return made, failures


def _constrain(
    candidates: list[Candidate],
    baseline: Candidate,
    request: OptimizeRequest,
    mean_shape_nme: float,
) -> tuple[list[Candidate], list[Failure]]:
    """Returns the candidates worth choosing from, and the others with the reason.

    A file no better than the mean shape in every crop, where the baseline is, has unlearned
    everything, however fast it is.
    """
    usable: list[Candidate] = []
    refused: list[Failure] = []
    for candidate in candidates:
        drop = candidate.trained.val_nme_percent - baseline.trained.val_nme_percent
        if baseline.trained.val_nme_percent < mean_shape_nme <= candidate.trained.val_nme_percent:
            reason = (
                f"validation NME {candidate.trained.val_nme_percent:.2f} % is no better than the "
                f"mean shape's {mean_shape_nme:.2f} %: it needs more training"
            )
        elif request.max_nme_drop is not None and drop > request.max_nme_drop:
            reason = f"validation NME rises by {drop:.2f} points, allowed {request.max_nme_drop:g}"
        elif request.max_latency_ms is not None and candidate.latency.ms > request.max_latency_ms:
            reason = (
                f"{candidate.latency.kind} latency {candidate.latency.ms:.2f} ms, "
                f"allowed {request.max_latency_ms:g}"
            )
        else:
            usable.append(candidate)
            continue
        refused.append(Failure(candidate.pipeline, "failed", reason))
    if not usable:
        closest = "; ".join(f"{f.pipeline}: {f.reason}" for f in refused[:3])
        raise SearchError(
            f"none of {len(candidates)} candidates meets the limits ({closest})",
            hint="loosen the limits, or try other pipelines",
        )
    return usable, refused
