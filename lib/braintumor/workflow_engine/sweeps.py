"""Sweeps: a profile that lists values of parameters stands for one run a combination of them."""

from itertools import product

from braintumor.core.parameters import notebook_parameters
from braintumor.data.splits import FOLDS, PROTOCOLS
from braintumor.training.provenance import SHOW_ONLY

TASKS = {"classify": "02_classify", "segment": "03_segment", "both": "08_both"}  # sections that train folds one by one
FIXED = {*SHOW_ONLY, "fold", "tasks", "scored"}  # what changes no result, or which slices are answered


def combinations(profile):
    """The runs that a profile stands for: {folder below the profile's own: profile of one run}.

    A profile without a sweep is one run, in the folder "". With one, each combination of values is a run whose
    sections hold them, wherever the section's notebook has such a parameter; its folder, such as
    "image_size-64+seed-2", is also the end of its name, if the profile has one. The last parameter changes first.
    """
    if "sweep" not in profile:
        return {"": profile}
    runs, known = {}, _known(profile)
    for values in product(*profile["sweep"].values()):
        chosen = dict(zip(profile["sweep"], values, strict=True))
        folder = "+".join(f"{name}-{value}" for name, value in chosen.items())  # a comma would part wildcards
        run = {name: value for name, value in profile.items() if name != "sweep"}
        run |= {task: run[task] | {name: chosen[name] for name in chosen if name in known[task]} for task in known}
        runs[folder] = run | ({"name": f"{profile['name']}/{folder}"} if "name" in profile else {})
    return runs


def sweep_faults(profile):
    """What is wrong with a profile's `sweep`: a list of sentences. Types are checked with each run's parameters."""
    sweep, known = profile["sweep"], _known(profile)
    if not known or {"classify", "both"} <= set(known) or set(profile) & {"leakage", "original", "trials"}:
        return ["a sweep is of classify and segment, or of both alone; give other sections a profile of their own"]
    if not isinstance(sweep, dict) or not sweep:
        return [f"sweep is {sweep!r}; expected names of parameters, with a list of values for each"]
    found = []
    for name, values in sweep.items():
        where = [task for task in known if name in known[task]]
        if not where:
            names = ", ".join(sorted({name for names in known.values() for name in names} - FIXED))
            found.append(f"sweep, {name}: no notebook of {' and '.join(known)} has such a parameter; they have {names}")
        elif name in FIXED:
            found.append(f"sweep, {name}: cannot be swept; it changes no result, or which slices are answered")
        elif twice := [task for task in where if name in profile[task]]:
            found.append(f"sweep, {name}: {twice[0]} gives a value as well; remove that one")
        elif not isinstance(values, list) or not values or len(set(map(repr, values))) < len(values):
            found.append(f"sweep, {name} is {values!r}; expected a list of at least one value, none twice")
        elif len(kinds := {type(value) for value in values}) > 1 and kinds != {int, float}:
            kinds = " and ".join(sorted(kind.__name__ for kind in kinds))
            found.append(f"sweep, {name} is {values!r}, which mixes {kinds}; expected values of one type")
    drawn = profile["protocol"] != PROTOCOLS[0] and "seed" in sweep  # then the seed deals the slices out to folds
    partial = any(sorted(profile[task].get("folds", profile["folds"])) != list(FOLDS) for task in known)
    if partial and ("protocol" in sweep or drawn):
        found.append("sweep: its runs would be tested on different slices; expected folds [1, 2, 3, 4, 5]")
    return found


def _known(profile):
    """The parameters of the notebooks of a profile's sections: {section: their names}."""
    return {task: set(notebook_parameters(notebook, {})) for task, notebook in TASKS.items() if task in profile}
