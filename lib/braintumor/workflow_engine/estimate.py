"""What a run would train, and about how long, judged by the records of earlier ones. Nothing is computed or written."""

import heapq
import json
import math
from statistics import mean

from braintumor.core.files import ROOT
from braintumor.core.parameters import notebook_parameters
from braintumor.data.prepared import count_slices, find_prepared
from braintumor.workflow_engine.execution import (
    STUDIES,
    checked,
    is_trained,
    leakage_jobs,
    original_is_trained,
    run_name,
    study_parameters,
    trainings,
)
from braintumor.workflow_engine.sweeps import combinations

COSTLY = ("network", "filters", "precision", "tasks", "task")  # what makes seconds of another training no measure


def records():
    """The run.json dicts of all trainings under results/, each with its `path` below the project; in order of paths.

    A network for both tasks leaves one of its two.
    """
    found = []
    for path in sorted((ROOT / "results").rglob("run.json")):
        record = json.loads(path.read_text())
        if stands_for_a_training(record):
            found.append(record | {"path": str(path.relative_to(ROOT))})
    return found


def stands_for_a_training(record):
    """Whether a run.json dict is a training's, and of the two that a network for both tasks leaves, the first."""
    given = record["parameters"]
    return "epochs" in record and given.get("task") == given.get("tasks", [given.get("task")])[0]


def judges(notebook, parameters, known):
    """Those of the `known` records that tell best how long a notebook trains with `parameters` (a dict): a list.

    They are of the same notebook with the same network; of those, the ones whose slices have most nearly as many
    pixels; and of those, the ones of most epochs, since the first takes longer. Empty if none is of such a network.
    """
    alike = [
        record
        for record in known
        if record["notebook"] == notebook
        and all(record["parameters"].get(name) == parameters[name] for name in COSTLY if name in parameters)
    ]

    def fit(record):
        return -abs(math.log(pixels(record["parameters"]) / pixels(parameters))), record["epochs"]

    best = max(map(fit, alike), default=None)
    return [record for record in alike if fit(record) == best]


def side(parameters):
    """Pixels a side of a slice as the network sees it."""
    return parameters.get("crop_to") or parameters["image_size"]


def pixels(parameters):
    """Pixels of a slice as the network sees it."""
    return side(parameters) ** 2


def seconds(parameters, slices, judged_by):
    """Seconds of a training on a data set of so many `slices`: the mean of records', by epoch, slice and pixel."""
    rates = [one["seconds"] / (one["epochs"] * one["data"]["slices"] * pixels(one["parameters"])) for one in judged_by]
    return mean(rates) * parameters["epochs"] * slices * pixels(parameters)


def wall(durations, cores):
    """How long jobs of `durations` take on so many cores, one job a core, the longest first."""
    free = [0.0] * cores
    for duration in sorted(durations, reverse=True):
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def dry_run(profile_path, data, cores):
    """What `execution.run` would train, line by line, and an estimate of hours: text.

    Raises ParameterError and DatasetError as `execution.run` does for profiles, parameters and folders.
    """
    profile, wanted = checked(profile_path, data)
    slices, prepared = count_slices(profile["data"]), [find_prepared(profile["data"], *one) for one in wanted]
    profile["name"] = run_name(profile_path, prepared[0].about) if all(prepared) else ""
    known, lines, times, unknown = records(), [], [], 0
    for folder, run in combinations(profile).items():
        for name, notebook, parts, trained in _trainings(run, all(prepared)):
            judged_by = [judges(notebook, part, known) for part in parts]
            if trained:
                said = "trained already"
            elif not all(judged_by):
                unknown += 1
                said = "to train; no earlier run of such a network to judge by"
            else:
                times.append(sum(seconds(part, slices, those) for part, those in zip(parts, judged_by, strict=True)))
                first, *others = judged_by[0]
                more = f" and {len(others)} like it" if others else ""
                said = f"to train, about {times[-1] / 60:.1f} min by {first['path']}{more} ({first['processor']})"
            lines.append(f"{f'{folder}/{name}' if folder else name:44} {said}")
    if not all(prepared):
        lines.append("The data are not prepared yet, so what is trained already cannot be told: all is listed.")
    lines.append(
        f"Estimate for {len(times)} pages that train, on {slices:,} slices, by epoch, slice and pixel from the records "
        f"named: {sum(times) / 3600:.2f} core hours, {wall(times, cores) / 3600:.2f} hours on {cores} cores. "
        "Starting a notebook, testing, and pages that only read tables and draw are not counted."
    )
    if unknown:
        lines.append(f"Not in it: {unknown} pages without an earlier run to judge by.")
    return "\n".join(lines)


def _trainings(profile, look):
    """What a run trains: (page, notebook, what decides the seconds of each training behind it, whether it is trained).

    The last is False where `look` is, as looking takes prepared data; of 06 and 07 it is told by their files alone.
    """
    for page, notebook, given in trainings(profile):
        yield page, notebook, [given], look and is_trained(notebook, given)
    for section, notebook in STUDIES.items():
        if section in profile:
            given = notebook_parameters(notebook, study_parameters(profile, section))
            classify = {"task": "classify"} | {name: given[name] for name in ("image_size", "epochs")}
            segment = classify | {"task": "segment", "filters": given["filters"], "epochs": given["segment_epochs"]}
            if section == "original":  # its single network and the ensemble's three, and two U-Nets
                yield notebook, notebook, [classify] * 4 + [segment] * 2, look and original_is_trained(profile)
                continue
            segment |= {"image_size": given["segment_image_size"]}
            for job, (folder, _) in leakage_jobs(profile).items():
                part = classify if job.startswith("classify") else segment
                yield f"parts/{notebook}-{job}", notebook, [part], look and (folder / "run.json").exists()
