"""Hostile input across modules: damaged files by the hundred, names and parameters that would be code, and what the
code itself must not do. Hostile files of one kind are with the tests of their module.
"""

import ast
import csv
import json
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image
from test_images import GRAY, NAMES
from test_images import MASK as WIDE_MASK

from braintumor import cli
from braintumor.core.files import ROOT
from braintumor.data.prepared import check, find_slices, read_slice
from braintumor.workflow_engine import execution

# Damaged files. `make fuzz` tries many more.


def python(*arguments):
    """A process of its own: the tests' has threads that one forked from it would lack."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_damaged_files_of_all_kinds_are_read_or_refused():
    done = python("tests/fuzz.py", "--share", "0.01", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.strip().splitlines()]
    assert lines[0][:5] == ["kind", "inputs", "read", "refused", "findings"] and len(lines) == 11
    for kind, inputs, read, refused, findings, *_ in lines[1:]:
        assert int(inputs) == (100 if kind == "mat" else 20) and int(findings) == 0
        assert int(read) > 0 and int(refused) > 0 and int(read) + int(refused) == int(inputs)


FAULTY = """
import json, os, sys, time
import numpy as np
sys.path.insert(0, "tests")
import fuzz
from braintumor.core.errors import DatasetError

def reader(*_):
    number = next(calls)
    if number == 1:
        os.abort()
    if number == 2:
        time.sleep(60)
    if number == 3:
        raise KeyError("no such field")
    if number == 4:
        raise DatasetError("something is wrong")
    if number == 5:
        try:
            bytearray(3 << 30)
        except MemoryError as error:
            raise DatasetError(f"{_[1] / _[2]}: cannot be read") from error
    if number == 6:
        return [fuzz.images.Image("a", np.full((20, 20), np.nan))]
    if number == 7:
        return [np.array([1, 6])]
    return []

fuzz.Inputs.warm_up = lambda self: None
fuzz.read_all, fuzz.SECONDS, fuzz.BATCH = reader, 2, 1
answers = []
for number in range(9):
    calls = iter([number])
    answers += [said for said, _ in fuzz.answers([("npy", 0)], 1)]
print(json.dumps(answers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_each_way_to_fail_is_a_finding():
    done = python("-c", FAULTY)
    said = json.loads(done.stdout)
    words = ["read", "crash: SIGABRT", "hang", "KeyError: 'no such field'", "message: does not name the file"]
    words += ["memory: ", "promises: finite", "promises: folds", "read"]
    assert [answer for answer, expected in zip(said, words, strict=True) if not answer.startswith(expected)] == []


# Names.


@pytest.fixture(scope="module", params=NAMES, ids=range(len(NAMES)))
def pairs(request, tmp_path_factory):
    """A folder of PNG pairs in which all is called by one of NAMES, and that name."""
    name = request.param
    folder = tmp_path_factory.mktemp("names") / name
    folder.mkdir()
    Image.fromarray(GRAY).save(folder / f"{name}.png", format="PNG")
    Image.fromarray(WIDE_MASK[:20]).save(folder / f"{name}-mask.png", format="PNG")
    with (folder / "slices.csv").open("w", newline="", errors="surrogateescape") as file:
        rows = ("image", "mask", "label", "patient"), (f"{name}.png", f"{name}-mask.png", "glioma", "P 1")
        csv.writer(file).writerows(rows)
    return folder, name


def test_folder_of_any_name_is_checked_and_read(pairs, capsys):
    folder, name = pairs
    report, readable = check(folder, progress=False), name.isprintable()
    if readable:
        assert report["found"]["glioma"] == 1 and not report["faults"]
        one = read_slice(find_slices(folder)[0])
        assert np.array_equal(one.image[:20], GRAY)
    else:  # slices.csv is text of printable lines
        assert len(report["faults"]) == 1 and "slices.csv" in report["faults"][0][1]
    assert cli.main(["data", "check", str(folder)]) == (0 if readable else 1)
    assert len(capsys.readouterr().out.splitlines()) == len(report["faults"]) + 1


def test_run_of_a_folder_of_any_name_has_a_plain_name_of_its_own():
    names = [execution.run_name("config/quick.yaml", {"kind": "folder", "source": f"/data/{name}"}) for name in NAMES]
    assert names == [
        "quick-two-words",
        "quick-it-s-so-",
        "quick-a-b-31m",
        "quick-größe-脑",
        "quick--touch-x-y-fold-s",
        "quick--n",
        "quick--",
    ]


# Parameters.

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
CODE = [
    *NAMES[:5],
    "'; import os; os.mkdir('trapped') #",
    '"; import os; os.mkdir("trapped") #',
    '\\"\nimport os\nos.mkdir("trapped")\n"',
    '"""\nimport os\nos.mkdir("trapped")\n"""',
    "{{ x }} %(x)s ${x} `x` \\",
]


def test_parameter_that_would_be_code_arrives_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    cells = [f"p{n}: str = ''" for n in range(len(CODE))]
    shown = "import json\nprint(json.dumps([" + ", ".join(f"p{n}" for n in range(len(CODE))) + "]))"
    notebook.cells = [nbformat.v4.new_code_cell("\n".join(cells), metadata={"tags": ["parameters"]})]
    notebook.cells += [
        nbformat.v4.new_code_cell(
            "from braintumor.core.parameters import check_parameters\n_ = check_parameters(globals())"
        ),
        nbformat.v4.new_code_cell(shown),
    ]
    folder = tmp_path / NAMES[3] / NAMES[1]
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / "it's.ipynb")
    given = {f"p{n}": text for n, text in enumerate(CODE)}
    monkeypatch.setattr(execution, "ROOT", tmp_path)
    execution.execute_apart(
        str(folder / "it's.ipynb"), str(folder / "page.ipynb"), str(folder / "partial.ipynb"), given
    )
    page = nbformat.read(folder / "page.ipynb", 4)
    assert json.loads(page.cells[-1].outputs[0].text) == CODE
    assert not list(tmp_path.rglob("trapped")) and not (ROOT / "trapped").exists()


# What the code must not do: build a command for a shell, unpickle, or load what could run.

FORBIDDEN = {
    "eval",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pd.read_pickle",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "keras.config.enable_unsafe_deserialization",
}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SETTINGS = {"shell": True, "allow_pickle": True, "safe_mode": False, "weights_only": False}


def breaches(source):
    """What of FORBIDDEN, UNPICKLING and SETTINGS a piece of Python does, and `exec` and `torch.load` as they come."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [module for module in modules if module.split(".")[0] in UNPICKLING]
        if isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {one.arg: one.value for one in node.keywords}
            found += [name] if name in FORBIDDEN | {"exec"} else []
            found += [name] if name == "torch.load" and "weights_only" not in given else []
            values = {key: value for key, value in given.items() if key in SETTINGS}
            found += [
                f"{name}({key}=)"
                for key, value in values.items()
                if not (isinstance(value, ast.Constant) and value.value is not SETTINGS[key])
            ]
            if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
                found.append(f"{name}(text)")
    return found


def sources():
    """All Python of the project but its tests: (path, source)."""
    for path in sorted([*ROOT.glob("lib/**/*.py"), *ROOT.glob("workflow/*.py")]):
        yield path, path.read_text()
    for path in sorted(ROOT.glob("*/*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and not cell.source.startswith("%%"):
                lines = cell.source.splitlines()
                yield path, "\n".join(line for line in lines if not line.startswith("%"))


@pytest.mark.parametrize(
    "source, found",
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("os.system(name)", ["os.system"]),
        ("subprocess.run(f'ls {name}')", ["subprocess.run(text)"]),
        ("subprocess.run(command, shell=True)", ["subprocess.run(shell=)"]),
        ("subprocess.run(command, shell=quick)", ["subprocess.run(shell=)"]),
        ("np.load(path, allow_pickle=True)", ["np.load(allow_pickle=)"]),
        ("keras.models.load_model(path, safe_mode=False)", ["keras.models.load_model(safe_mode=)"]),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("subprocess.run(['ls', name]); np.load(path, allow_pickle=False); yaml.safe_load(text)", []),
    ],
)
def test_breaches_are_found(source, found):
    assert breaches(source) == found


def test_no_shell_is_given_a_name_and_nothing_unpickles():
    looked_at = list(sources())
    assert len({path for path, _ in looked_at}) > 30
    found = [(path.relative_to(ROOT).as_posix(), what) for path, source in looked_at for what in breaches(source)]
    # the parameters cell of a notebook of this project, to know its defaults
    assert found == [("lib/braintumor/core/parameters.py", "exec")]
    snakefile = (ROOT / "workflow/Snakefile").read_text()
    assert "run:" in snakefile and "shell" not in snakefile and "script:" not in snakefile
