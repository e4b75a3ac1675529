"""A profile as jobs: which notebook runs with which parameters, and what it makes."""

import re
from itertools import product
from pathlib import Path

from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT
from braintumor.core.parameters import notebook_parameters
from braintumor.data.prepared import cache_dir, fingerprint_data, resolve_data
from braintumor.data.preprocessing import PERCENTILES
from braintumor.data.splits import FOLDS, PROTOCOLS

SECTIONS = {  # section of a profile: its notebook, and its results below the run's
    "classify": ("labs/02_classify", "single/classify"),
    "segment": ("labs/03_segment", "single/segment"),
    "joint": ("labs/04_joint", "joint"),
    "original": ("labs/08_original", "original"),
}
PUBLISHED = "results/published/full"


class Profile:
    """The jobs of a validated profile: config/NAME.yaml with `profile` and `data`.

    `run` is the folder of its results; `variants` maps the folder of each variant (the
    run itself, if there are none) to the parameters that it changes.
    """

    def __init__(self, config):
        self.config, self.data = config, config["data"]
        if self.data != "phantom":
            self.data = str(resolve_data(self.data))
        folder = re.sub(r"[^\w.-]+", "-", Path(self.data).name)
        self.run = f"results/{config['profile']}-{folder}"
        self.variants = {
            f"{self.run}/{name}".rstrip("/"): changes
            for name, changes in list_variants(config).items()
        }
        self.run_pattern = "|".join(map(re.escape, self.variants))
        self.folder = "joint" if "joint" in config else "single"
        self.fingerprint = fingerprint_data(self.data)
        jobs = [self.parameters(*job) for job in self.trainings()]
        changed = {name for changes in self.variants.values() for name in changes}
        if unknown := changed.difference(*jobs):
            raise ParameterError(
                f"variants or sweep: got {', '.join(sorted(unknown))}, expected "
                "parameters of the notebooks that the profile runs. Correct the name."
            )

    def trainings(self, *sections):
        """List (section, folder of the variant, fold) of the jobs that train folds."""
        return [
            (section, variant, fold)
            for variant in self.variants
            for section in sections or ("classify", "segment", "joint")
            if section in self.config
            for fold in self.config[section].get("folds", self.config["folds"])
        ]

    def parameters(self, section, variant, fold=None):
        """Return all parameters of a job's notebook, checked by its declaration."""
        notebook, folder = SECTIONS[section]
        values = {"data": self.data, "seed": self.config["seed"], "threads": 1}
        values["results"] = f"{variant}/{folder}"
        if section != "original":
            values |= {"protocol": self.config["protocol"], "fold": fold}
        values |= {k: v for k, v in self.config[section].items() if k != "folds"}
        known, changes = notebook_parameters(notebook, {}), self.variants.get(variant)
        values |= {k: v for k, v in (changes or {}).items() if k in known}
        return notebook_parameters(notebook, values)

    def prepared(self, section, variant, fold=None):
        """Return prepared.json of the data that a job reads, as a path below ROOT."""
        job = self.parameters(section, variant, fold)
        minmax = section == "original" or job.get("scaling") == "minmax"
        return self.prepared_file(
            job["image_size"], (0, 100) if minmax else PERCENTILES
        )

    def prepared_file(self, image_size, percentiles=PERCENTILES):
        """Return prepared.json of the profile's data, as a path below ROOT."""
        folder = cache_dir(self.data, image_size, percentiles)
        return str((folder / "prepared.json").relative_to(ROOT))

    def tasks(self, variant):
        """Return the tasks that the networks of a variant learn."""
        jobs = [job for job in self.trainings("joint") if job[1] == variant]
        both = ("classify", "segment")
        return tuple(self.parameters(*jobs[0])["tasks"]) if jobs else both

    @property
    def joint_tasks(self):
        """Map the tasks that joint networks learn to the variants that learn them."""
        found = {}
        for variant in self.variants if "joint" in self.config else ():
            found.setdefault(self.tasks(variant), []).append(variant)
        return found

    def records(self, variant):
        """List run.json of each fold of a variant that `evaluate` reads."""
        sections = ("joint",) if self.folder == "joint" else ("classify", "segment")
        return [
            f"{variant}/{self.folder}/{task}/fold-{fold}/run.json"
            for section, folder, fold in self.trainings(*sections)
            if folder == variant
            for task in (self.tasks(variant) if section == "joint" else [section])
        ]

    @property
    def evaluated(self):
        """List the variants of both tasks: only these have a page of scores."""
        if not self.trainings():
            return []
        return [folder for folder in self.variants if len(self.tasks(folder)) == 2]

    def evaluation(self, variant):
        """Return the parameters of the page of scores of a variant."""
        others = [f"{v}/{self.folder}" for v in self.evaluated if v != variant]
        shared = {"run": f"{variant}/{self.folder}", "data": self.data}
        return shared | {"others": others, "save_scores": True}

    @property
    def targets(self):
        """List what a run is to leave, beside its pages."""
        single = [
            f"{folder}/{SECTIONS[section][1]}/fold-{fold}/run.json"
            for section, folder, fold in self.trainings("classify", "segment")
        ]
        scores = [f"{folder}/{self.folder}/scores.json" for folder in self.evaluated]
        records = [path for folder in self.variants for path in self.records(folder)]
        audit = audit_tables(self.run) if "audit" in self.config else []
        return single + scores + records + audit

    @property
    def pages(self):
        """Map each page of the book to the executed notebook that it shows."""
        pages = [("labs/01_explore", f"{self.run}/pages/labs/01_explore")]
        for section in ("classify", "segment", "joint"):
            for _, folder, fold in self.trainings(section)[:1]:
                notebook = SECTIONS[section][0]
                pages += [(notebook, f"{folder}/pages/{notebook}-fold-{fold}")]
        if "original" in self.config:
            pages += [("labs/08_original", f"{self.run}/pages/labs/08_original")]
        for folder in self.evaluated[:1]:
            pages += [("labs/05_evaluate", f"{folder}/pages/labs/05_evaluate")]
        pages += [(page, f"{self.run}/pages/{page}") for page in self.reports]
        return {page: f"{path}.ipynb" for page, path in pages}

    @property
    def reports(self):
        """Map each page that only reads tables to its notebook and its parameters."""
        reports = {
            f"report/{path.stem}": (f"report/{path.stem}", {})
            for path in sorted((ROOT / "notebooks" / "report").glob("*.ipynb"))
        }
        reports |= {
            f"labs/{n}": (f"labs/{n}", {}) for n in ("00_metrics", "07_exercises")
        }
        reports["report/scores"] = ("labs/05_evaluate", {"run": PUBLISHED})
        data = "" if self.data == "phantom" else self.data
        reports["report/failures"][1].update(data=data, remarks="book/remarks.csv")
        if self.evaluated:
            run = f"{self.evaluated[0]}/{self.folder}"
            reports["report/edition"][1].update(runs=[run])
            reports["labs/06_predict"] = (
                "labs/06_predict",
                {"run": run, "data": self.data},
            )
        return reports

    def report_inputs(self, page):
        """List what a page reads of this run, beside published tables."""
        if page not in ("report/edition", "labs/06_predict") or not self.evaluated:
            return []
        return self.records(self.evaluated[0])


def audit_tables(run):
    """List the tables that the audit of leakage makes."""
    return [f"{run}/audit/{p}-{fold}.csv" for p in PROTOCOLS for fold in FOLDS]


def list_variants(config):
    """Map the name of each variant ("" without variants) to what it changes."""
    if "sweep" not in config:
        return config.get("variants", {"": {}})
    values = product(*config["sweep"].values())
    changes = [dict(zip(config["sweep"], chosen, strict=True)) for chosen in values]
    return {"+".join(f"{k}-{v}" for k, v in c.items()): c for c in changes}
