"""A run: which notebook runs with which parameters, what is up to date, and the book that shows it."""

import io
import json
import logging
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from braintumor.core.errors import BusyError, FullDiskError, ParameterError, in_short
from braintumor.core.files import ROOT, atomic, room_for
from braintumor.core.parameters import notebook_parameters
from braintumor.core.processes import alone
from braintumor.data.prepared import PERCENTILES, open_data
from braintumor.data.splits import FOLDS, PROTOCOLS
from braintumor.training.provenance import run_digest
from braintumor.workflow_engine.sweeps import TASKS, combinations, sweep_faults

ALONE = {"classify", "segment"}  # those of one task
FOLD_KEYS = {"protocol", "folds"}  # what such a profile gives beside them
STUDIES = {"leakage": "06_leakage", "original": "07_original"}  # sections with one notebook each
SECTIONS = {*TASKS, *STUDIES, "trials"}
LARGEST_PROFILE = 10_000  # values
EXPLORE_SIZE = 128  # pixels a side in 01_explore, as in its parameters cell
ORIGINAL_PARTS = 6  # networks that 07_original trains: one, three of the ensemble, two U-Nets
# profiles whose results on the 8-bit copy of the dataset are committed, in results/PROFILE
PUBLISHED = ("leakage", "full", "full-family", "trials")
GRACE = 10  # seconds that a command has to end in its own way at Ctrl-C


def read_profile(path):
    """Read a profile (config/NAME.yaml): a seed, and what to run with it.

    That is one or more of SECTIONS with parameters of its notebook. "classify" and "segment" come together; these and
    "both" need protocol and folds, and each may have other folds; "trials" gives name to parameters of 08_both; "sweep"
    lists values of parameters (see `sweeps`).
    Raises ParameterError naming the file and each key that is missing, unknown, or out of range.
    """
    path = Path(path)
    try:
        profile = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in (ROOT / "config").glob("*.yaml")))
        raise ParameterError(f"{path}: no such profile; there are {known}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also of a date that does not exist
        raise ParameterError(f"{path}: is not YAML of plain values ({in_short(error)})") from None
    if _values(profile) > LARGEST_PROFILE:
        raise ParameterError(f"{path}: stands for over {LARGEST_PROFILE:,} values; expected some dozens")
    found = set(profile) if isinstance(profile, dict) else set()
    needed = {"seed"}
    if found & ALONE or not found & SECTIONS:  # one of them alone would have no page of scores
        needed |= ALONE
    if (found | needed) & set(TASKS):
        needed |= FOLD_KEYS
    missing, unknown = sorted(needed - found), sorted(found - needed - SECTIONS - {"sweep"}, key=str)
    if missing or unknown:
        raise ParameterError(
            f"{path}: missing {missing}, unknown {unknown}; expected seed and a section: classify and "
            f"segment, or both, with protocol and folds; or one of {', '.join((*STUDIES, 'trials'))}; or such together"
        )
    faults = []
    if profile.get("protocol", PROTOCOLS[0]) not in PROTOCOLS:
        faults.append(f"protocol is {profile['protocol']!r}; expected one of {', '.join(PROTOCOLS)}")
    for section in ("", *sorted(found & set(TASKS))):
        given = profile if not section else profile[section] if isinstance(profile[section], dict) else {}
        folds = given.get("folds", list(FOLDS))
        known = isinstance(folds, list) and folds and all(type(fold) is int and fold in FOLDS for fold in folds)
        if not known or len(set(folds)) < len(folds):
            where = f"{section}, " if section else ""
            faults.append(f"{where}folds is {folds!r}; expected a list of different numbers from 1 to 5")
    if type(profile["seed"]) is not int:
        faults.append(f"seed is {profile['seed']!r}; expected a whole number")
    sections = {name: profile[name] for name in sorted(found & {*TASKS, *STUDIES})}
    if isinstance(trials := profile.get("trials", {}), dict):
        sections |= {f"trials, {name}": given for name, given in trials.items()}
        faults += [
            f"trials, {name!r}: expected a name of letters, digits, _ and -, as of a folder"
            for name in trials
            if not re.fullmatch(r"[\w-]+", str(name))
        ]
    else:
        faults.append(f"trials is {trials!r}; expected names, with parameters for each")
    swept = profile["sweep"] if isinstance(profile.get("sweep"), dict) else {}
    for section, given in sections.items():
        if not isinstance(given, dict) or "image_size" not in {*given, *swept}:
            faults.append(f"{section} is {given!r}; expected the parameters of its notebook, image_size among them")
    if "sweep" in profile and not faults:
        faults = sweep_faults(profile)
    if faults:
        raise ParameterError("; ".join(f"{path}: {fault}" for fault in faults))
    return profile


def _values(profile):
    """How many values a profile holds, up to LARGEST_PROFILE: those that refer to others can be any number."""
    waiting, count = [profile], 0
    while waiting and count <= LARGEST_PROFILE:
        one = waiting.pop()
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []
        count += 1
    return count


def run_name(profile_path, about):
    """Name of a run: profile and data, such as quick-phantom, quick-figshare, or quick-FOLDER for a reader's own.

    A run of a PUBLISHED profile on the data that it was published for has the profile's name alone; figshare's own
    16-bit files are other data, and get results of their own. In a folder's name what is no letter or digit becomes a
    hyphen: Snakemake puts the run's path, as it is, into commands for a shell, and takes {} for a wildcard.
    """
    if Path(profile_path).stem in PUBLISHED and about["kind"] == "figshare-jpeg" and is_whole(about):
        return Path(profile_path).stem
    folder = re.sub(r"[^\w.-]+", "-", Path(about["source"]).name)
    kind = {"figshare-jpeg": "figshare", "folder": folder}.get(about["kind"], about["kind"])
    return f"{Path(profile_path).stem}-{kind}"


def is_whole(about):
    """Whether data are all slices of the figshare dataset: then pages of the published run can show some."""
    return about["kind"] in ("figshare", "figshare-jpeg") and about["slices"] == 3064


def folds_of(profile, task):
    """The folds that a profile's section for one of TASKS trains: its own, or the profile's."""
    return profile[task].get("folds", profile["folds"]) if task in profile else []


def fold_parameters(profile, task, fold):
    """Parameters of one fold's notebook; `profile` is one from `read_profile` with data and name of the run added.

    A network for both tasks writes the folders of both, so beside networks for each it has a folder of its own.
    """
    shared = {name: profile[name] for name in ("data", "protocol", "seed")}
    place = task if task != "both" or "classify" in profile else ""
    given = {name: value for name, value in profile[task].items() if name != "folds"}
    return shared | {"fold": fold, "threads": 1, "results": f"results/{profile['name']}/{place}".rstrip("/")} | given


def study_parameters(profile, section):
    """Parameters of the notebook of one of STUDIES; `profile` as in `fold_parameters`."""
    results = f"results/{profile['name']}" + ("" if section == "leakage" else f"/{section}")
    shared = {"data": profile["data"], "seed": profile["seed"], "threads": 1, "results": results}
    return shared | profile[section]


def trial_parameters(profile, name):
    """Parameters of notebook 08_both for one of the profile's trials; `profile` as in `fold_parameters`."""
    shared = {"data": profile["data"], "seed": profile["seed"], "threads": 1}
    return shared | {"results": f"results/{profile['name']}/{name}"} | profile["trials"][name]


def leakage_jobs(profile):
    """The folds that 06_leakage trains, one job each: TASK-PROTOCOL-FOLD to (its folder, parameters of the notebook).

    The same notebook, asked for one fold only: so folds run side by side, and its page finds them trained. What such a
    job shows is not kept for reading, so a bootstrap of two draws is enough for it.
    """
    given = study_parameters(profile, "leakage")
    whole, jobs = notebook_parameters(STUDIES["leakage"], given), {}
    for task, folds in (("classify", "folds"), ("segment", "segment_folds")):
        for protocol, fold in product(whole["protocols"], whole[folds] if task in whole["tasks"] else []):
            place = "" if task == "classify" else "segment/"
            jobs[f"{task}-{protocol}-{fold}"] = (
                ROOT / given["results"] / f"{place}{protocol}" / f"fold-{fold}",
                given
                | {"tasks": [task], "protocols": [protocol], "folds": [fold], "segment_folds": [fold], "draws": 2},
            )
    return jobs


def trainings(profile):
    """What a run trains by notebooks 02, 03 and 08: a list of (page, notebook, all parameters of the notebook).

    `profile` as in `fold_parameters`, without a sweep; a page is named by its path below the run's folder of pages.
    """
    jobs = [
        (f"{TASKS[section]}-fold-{fold}", TASKS[section], fold_parameters(profile, section, fold))
        for section in TASKS
        for fold in folds_of(profile, section)
    ]
    both = TASKS["both"]
    jobs += [(f"parts/{both}-{name}", both, trial_parameters(profile, name)) for name in profile.get("trials", {})]
    return [(page, notebook, notebook_parameters(notebook, given)) for page, notebook, given in jobs]


def stale_pages(profile):
    """Pages of the run whose results are gone; of 02, 03 and 08, also those of other parameters, data or code.

    06 and 07 look at that themselves when they run, which Snakemake asks for when parameters, data or code change.
    """
    stale = []
    if "leakage" in profile:
        for job, (folder, _) in leakage_jobs(profile).items():
            page = pages(profile) / "parts" / f"{STUDIES['leakage']}-{job}.ipynb"
            stale += [page] if page.exists() and not (folder / "run.json").exists() else []
    if "original" in profile:
        page = pages(profile) / f"{STUDIES['original']}.ipynb"
        stale += [page] if page.exists() and not original_is_trained(profile) else []
    for page, notebook, given in trainings(profile):
        page = pages(profile) / f"{page}.ipynb"
        if page.exists() and not is_trained(notebook, given):
            stale.append(page)
    return [str(page.relative_to(ROOT)) for page in stale]


def original_is_trained(profile):
    """Whether all that notebook 07 trains in this run is there, of whatever parameters."""
    folder = ROOT / study_parameters(profile, "original")["results"]
    return (folder / "scores.json").exists() and sum(1 for _ in folder.glob("*/run.json")) >= ORIGINAL_PARTS


def is_trained(notebook, given):
    """Whether what notebook 02, 03 or 08 trains with `given`, all its parameters, is there, of these data and code."""
    prepared, parts = open_data(given["data"], given["image_size"]), [given]
    if notebook == TASKS["both"]:  # it keeps a record for each of its tasks
        parts = [given | {"task": task, "results": f"{given['results']}/{task}"} for task in given["tasks"]]
    return all(_is_done(notebook, part, prepared) for part in parts)


def _is_done(notebook, parameters, prepared):
    record = ROOT / parameters["results"] / f"fold-{parameters['fold']}" / "run.json"
    return record.exists() and json.loads(record.read_text())["digest"] == run_digest(notebook, parameters, prepared)


def pages(profile):
    """The folder of a run's executed notebooks."""
    return ROOT / "book" / "runs" / profile["name"]


def checked(profile_path, data):
    """A profile to be run on `data` ("phantom" or a folder): (profile with data, list of what it needs prepared).

    What is prepared is named by the last two arguments of `open_data`. Raises ParameterError for any parameter that a
    notebook would refuse: it must not wait for its notebook's turn to be told.
    """
    data = data if data == "phantom" else str(Path(data).expanduser().resolve())
    profile = read_profile(profile_path) | {"data": data}
    runs = combinations(profile | {"name": ""}).values()
    sizes = {EXPLORE_SIZE, *(given["image_size"] for run in runs for _, _, given in trainings(run))}
    wanted = {(size, PERCENTILES) for size in sizes}
    for section in set(STUDIES) & set(profile):
        parameters = notebook_parameters(STUDIES[section], study_parameters(profile | {"name": ""}, section))
        wanted |= {(value, (0, 100)) for name, value in parameters.items() if name.endswith("image_size")}
    return profile, sorted(wanted)


@alone(ROOT, f"{ROOT}: a run is being made")
def run(profile_path, data, cores, cluster=None):
    """Run a profile's notebooks on `data` ("phantom" or a folder), only what is missing or changed, and build the book.

    Data is prepared first; Snakemake then runs the notebooks by papermill: `cores` at once here, or, given a folder
    with a Snakemake profile, such as profiles/slurm, as jobs of that `cluster`. Returns the built book's index.html.
    Raises ParameterError or DatasetError before anything is computed, BusyError while another run is at work in this
    project, SystemExit if a notebook failed.
    """
    profile, wanted = checked(profile_path, data)
    # prepared here, before two notebooks at once would both do it
    about = [open_data(profile["data"], *one).about for one in wanted][0]
    profile |= {"name": run_name(profile_path, about), "digest": about["digest"], "real": is_whole(about)}
    config = pages(profile) / "run.yaml"
    with atomic(config) as path:
        path.write_text(yaml.safe_dump(profile, sort_keys=False))  # the order of a sweep is that of its runs
    where = ["--profile", cluster] if cluster else ["--cores", cores]
    command = ["-s", ROOT / "workflow" / "Snakefile", "--directory", ROOT, "--configfile", config, *where]
    # in threads: each page has a process of its own already, and would wait for another Snakemake to be imported
    command += ["--force-use-threads"]
    # no lock of Snakemake's: it would stay after kill -9, and `alone` has one
    command += ["--rerun-triggers", "mtime", "params", "--rerun-incomplete", "--quiet", "rules", "--nolock"]
    if stale := [page for one in combinations(profile).values() for page in stale_pages(one)]:
        command += ["--forcerun", *stale]
    if _python("from snakemake.cli import main", "main()", *command):
        raise SystemExit(
            f"The run {profile['name']} stopped, for the reason above; the same command goes on from here."
        )
    return build_book(profile)


def execute_apart(*arguments):
    """`execute`, with its arguments, in a process of its own: in one of Snakemake's threads Ctrl-C would wait for the
    notebook's end. Raises RuntimeError if it did not run to its end.
    """
    imported = "import json, sys; from braintumor.workflow_engine.execution import execute"
    if _python(imported, "execute(*json.loads(sys.argv[1]))", json.dumps(arguments)):
        # not SystemExit: in one of Snakemake's threads that would leave it waiting for ever
        raise RuntimeError(f"{arguments[0]} did not run to its end")


def execute(notebook, page, partial, parameters):
    """Run one notebook by papermill: `partial` grows cell by cell and becomes `page` when all of them have run.

    What the notebook prints is printed here, behind its page's name. If a cell fails, the notebook, the cell and the
    traceback are printed, `partial` is kept for reading, and SystemExit is raised; so it is, with a sentence, at
    Ctrl-C, on a full disk, and when another process trains the same fold.
    """
    # papermill takes a parameter with a Literal type for unknown, but gives it; each notebook checks its own
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with room_for(Path(partial)), TemporaryDirectory() as sockets:
            Path(partial).parent.mkdir(parents=True, exist_ok=True)
            # sockets are files of its own: of free TCP ports, two kernels that start at once can be given the same, and
            # then one of them never answers
            own = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            papermill.execute_notebook(
                *(notebook, partial, parameters),
                cwd=ROOT,
                progress_bar=False,
                stdout_file=_Prefixed(Path(page).stem),
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which would tell of Ctrl-C by a traceback
                config=Config(KernelManager=own),
            )
        with atomic(page) as path:
            shutil.copyfile(partial, path)
    except FullDiskError as error:
        raise SystemExit(f"\n{notebook}: {error}\n") from None
    except DeadKernelError:
        raise SystemExit(
            f"\n{notebook}: its process was ended, often for want of memory or disk; kept: {partial}\n"
        ) from None
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else it tells of the cell that was given up
        raise SystemExit(f"\n{notebook}: stopped; what it had trained is kept\n") from None
    except PapermillExecutionError as error:
        if error.ename in (BusyError.__name__, FullDiskError.__name__):
            raise SystemExit(f"\n{notebook}: {error.evalue}\n") from None
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        raise SystemExit(
            f"\n{notebook} failed in cell {error.cell_index + 1} with {parameters}\n{trace}\n"
            f"{error.ename}: {error.evalue}\nThe partial notebook is kept: {partial}\n"
        ) from None


class _Prefixed(io.TextIOBase):
    """Prints each line behind a name, so that the lines of two notebooks at once can be told apart."""

    def __init__(self, name):
        self.name = name

    def write(self, text):
        for line in text.splitlines():
            print(f"{self.name} | {line}", flush=True)
        return len(text)


def build_book(profile):
    """Build the book with this run's pages; returns _build/html/index.html. Warnings are errors.

    The committed _toc.yml names the pages of quick-phantom: the run's own take their place, and those it lacks are
    left out. The runs of a sweep stand below the page that compares them.
    """
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text().replace("runs/quick-phantom/", f"runs/{profile['name']}/"))
    others = tuple(f"{TASKS[task]}-fold-{fold}" for task in TASKS for fold in set(FOLDS) - set(folds_of(profile, task)))
    for part in toc["parts"]:
        part["chapters"] = _existing(part["chapters"], others)
        for chapter in part["chapters"]:
            if "sweep" in profile and Path(chapter["file"]).name == "04_evaluate":
                chapter |= {"title": "The sweep", "sections": _sweep_sections(profile)}
    table = pages(profile) / "_toc.yml"
    with atomic(table) as path:
        path.write_text(yaml.safe_dump(toc, sort_keys=False))
    # built anew: a second build would keep quiet about warnings, and keep another run's pages
    out, html = ROOT / "_build" / "new", ROOT / "_build" / "html"
    shutil.rmtree(out, ignore_errors=True)
    command = ["build", ROOT, "--toc", table, "--path-output", out, "-W", "-n", "--keep-going", "-q"]
    failed = _python("from jupyter_book.cli.main import main", "main()", *command)
    if failed or not (out / "_build" / "html" / "index.html").exists():
        raise SystemExit("The book was not built: its warnings are above. The one before is kept.")
    shutil.rmtree(html, ignore_errors=True)  # not before the new one is whole
    (out / "_build" / "html").rename(html)
    shutil.rmtree(out)
    return html / "index.html"


def _sweep_sections(profile):
    """The pages of a sweep's runs, each below the scores of its run."""
    sections = []
    for folder, run in combinations(profile).items():
        place = pages(run).relative_to(ROOT).as_posix()
        words = {"classify": "Classify", "segment": "Segment", "both": "Both tasks"}
        folds = [
            {"file": f"{place}/{TASKS[task]}-fold-{fold}", "title": f"{words[task]}: fold {fold}"}
            for task in TASKS
            for fold in folds_of(run, task)
        ]
        title = ", ".join(value.replace("-", " ", 1) for value in folder.split("+"))
        sections.append({"file": f"{place}/04_evaluate", "title": title, "sections": folds})
    return sections


def _python(imported, call, *arguments):
    """Run Python's `call`, after what it needs `imported`, in a process of its own; returns its exit code.

    Ctrl-C, which the process is told too, ends it without a word while it imports; later it may end in its own way.
    """
    quiet = "import signal; told = signal.signal(signal.SIGINT, signal.SIG_DFL)"
    code = f"{quiet}\n{imported}\nsignal.signal(signal.SIGINT, told)\n{call}"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        raise


def _existing(chapters, others=()):
    """Chapters whose file is there and does not end as `others` do; the sections of one left out move up."""
    kept = []
    for chapter in chapters:
        sections = _existing(chapter.pop("sections", []), others)
        if not chapter["file"].endswith(others) and any(
            (ROOT / chapter["file"]).with_suffix(suffix).exists() for suffix in (".md", ".ipynb")
        ):
            kept.append(chapter | ({"sections": sections} if sections else {}))
        else:
            kept += sections
    return kept
