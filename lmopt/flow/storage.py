"""The use case `storage`: what a detector costs in each form that a target can be given."""

from __future__ import annotations

from dataclasses import dataclass

from lmopt.device.adb import is_phone
from lmopt.errors import BackendError, PassError, UsageError
from lmopt.exploration.candidate import Candidate, Trained
from lmopt.exploration.storage import StorageComparison, StorageRow
from lmopt.flow import events
from lmopt.flow.candidates import Timing, default_folder, measure_all, obtain
from lmopt.flow.events import Listener, ignore
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal
from lmopt.flow.pipelines import of_form, with_ends
from lmopt.flow.request import OptimizeRequest
from lmopt.flow.sources import load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.latency.cuda import is_cuda
from lmopt.pipeline.manager import Pipeline
from lmopt.quant.assign import check_quantizable
from lmopt.target.profile import FORMS, StorageForm, Target


def compare_storage(request: OptimizeRequest, listen: Listener = ignore) -> StorageComparison:
    """Returns what a detector costs in each storage form, nothing else changed.

    Files, scores and times come about as in `optimize`, whose folder and journal it shares.

    Args:
        request: Names detector, target and faces; what it says of pipelines and limits is not used.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector or target, or a phone or a card.
        InputError: Data, contract or model that cannot be used.
        PassError: The detector is quantized already, or the float file cannot be made.
        BackendError: The float file fails, or measuring does.
    """
    if is_phone(request.device) or is_cuda(request.device):
        raise UsageError(
            "storage forms alone are not measured on a phone or a card",
            where="--device",
            hint=f"lmopt optimize --device {request.device} measures them with its candidates",
        )
    target = target_named(request.target)
    detector = load(request.detector, contract=request.contract)
    detector.require_weights()
    check_quantizable(folded(detector.graph))
    journal = Journal(request.out or default_folder(detector, target))
    faces = load_faces(request.data, detector.require_contract(), listen)
    for split in ("train", "validation"):
        faces.split(split)
    with Workbench(
        detector, faces, target, seed=request.seed, cache=journal.cache, listen=listen
    ) as bench:
        baseline, _ = obtain(bench, journal, of_form("float32"))
        made = make_forms(bench, journal, target, request, listen, slow=True)
        bench.rest()
        listen(events.Activity("measuring every form on this host, interleaved"))
        measured = measure_all((baseline, *(f.made for f in made if f.made)), target, request)
    timing = Timing(target, request, measured, baseline)
    return comparison(target, made, timing, timing.candidate(baseline))


@dataclass(frozen=True)
class Form:
    """A form before it is timed: the file, or why there is none."""

    form: StorageForm
    pipeline: Pipeline
    made: Trained | None
    reason: str = ""


def ends_of(
    pipeline: Pipeline, target: Target, request: OptimizeRequest, *, own: bool = True
) -> Pipeline:
    """Returns a pipeline with the ends that the user asks for, or else those the target prefers.

    Args:
        pipeline: As it is written.
        target: Prefers ends, or does not.
        request: What the user asks for.
        own: Whether the pipeline is the target's; one of the user's keeps the ends it names.
    """
    if own and target.ends is not None:
        pipeline = with_ends(pipeline, target.ends.input, target.ends.output)
    return with_ends(pipeline, request.input, request.output)


def make_forms(
    bench: Workbench,
    journal: Journal,
    target: Target,
    request: OptimizeRequest,
    listen: Listener = ignore,
    *,
    slow: bool = False,
) -> tuple[Form, ...]:
    """Returns the detector in every form, the target's preferred order first, illegal ones last.

    Legal forms that the target's engine leaves to others are made where `slow` ones are wanted.
    """
    return tuple(
        _make_form(form, bench, journal, target, request, listen)
        if slow or target.runs(form) or not target.rule(form).legal
        else Form(form, ends_of(of_form(form), target, request), None, _SLOW)
        for form in _ordered(target)
    )


_SLOW = "not made: the engine does not compute in it (lmopt storage makes it all the same)"


def _ordered(target: Target) -> list[StorageForm]:
    places = {storage: place for place, storage in enumerate(target.storage)}
    last = len(places)
    return sorted(FORMS, key=lambda f: (not target.rule(f).legal, places.get(FORMS[f], last)))


def _make_form(
    form: StorageForm,
    bench: Workbench,
    journal: Journal,
    target: Target,
    request: OptimizeRequest,
    listen: Listener,
) -> Form:
    pipeline = ends_of(of_form(form), target, request)
    rule = target.rule(form)
    if not rule.legal:
        return Form(form, pipeline, None, f"not legal: {rule.reason}")
    listen(events.Activity(f"storage {form}: {pipeline}"))
    try:
        made, _ = obtain(bench, journal, pipeline)
    except (PassError, BackendError) as error:
        return Form(form, pipeline, None, str(error))
    return Form(form, pipeline, made)


def comparison(
    target: Target, forms: tuple[Form, ...], timing: Timing, baseline: Candidate
) -> StorageComparison:
    """Returns the forms with their latencies."""

    def row(found: Form) -> StorageRow:
        rule, reason, candidate = target.rule(found.form), found.reason, None
        if found.made is not None:
            try:
                candidate = timing.candidate(found.made)
            except BackendError as error:
                reason = str(error)
        return StorageRow(found.form, rule, str(found.pipeline), candidate, reason)

    return StorageComparison(
        target.name,
        "" if target.runtime is None else str(target.runtime),
        target.preferred,
        baseline,
        tuple(row(found) for found in forms),
    )
