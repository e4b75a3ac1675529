"""Snakemake script: execute a notebook with papermill and keep it as a page.

The partial notebook grows cell by cell in pages/partial/ and is kept if the job fails;
the page is there only once every cell has run.
"""

import logging
import re
import shutil
import sys
from io import TextIOBase
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config


class PrefixedStream(TextIOBase):
    """Print each line behind a name, so that the lines of parallel jobs differ."""

    def __init__(self, name):
        self.name = name

    def write(self, text):
        for line in text.splitlines():
            print(f"{self.name} | {line}", flush=True)
        return len(text)


def execute(notebook, page, parameters):
    """Execute `notebook` with `parameters`; exit with the failed cell's traceback."""
    partial = Path(page).parents[1] / "partial" / Path(page).name
    partial.parent.mkdir(exist_ok=True)
    # papermill warns of parameters annotated with Literal; the notebook checks its own
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # after Ctrl-C asyncio prints the traceback of the dead kernel's client
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with TemporaryDirectory() as sockets:
            # two kernels that start at the same time can pick the same free TCP port
            manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            papermill.execute_notebook(
                notebook,
                str(partial),
                parameters,
                progress_bar=False,
                stdout_file=PrefixedStream(Path(page).stem),
                extra_arguments=["--log-level=CRITICAL"],
                config=Config(KernelManager=manager),
            )
    except PapermillExecutionError as error:
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        sys.exit(
            f"{notebook} failed in cell {error.cell_index + 1} with {parameters}\n"
            f"{traceback}\n{error.ename}: {error.evalue}\nPartial notebook: {partial}"
        )
    except DeadKernelError:
        sys.exit(
            f"{notebook}: the kernel died, often for lack of memory. Partial notebook: "
            f"{partial}. The same command goes on after the last whole epoch."
        )
    except KeyboardInterrupt:
        sys.exit(f"{notebook}: interrupted. The same command goes on from here.")
    shutil.copyfile(partial, page)


def format_report(page):
    """Fold the code of a page of the report; remove parameters and parts of a lab."""
    notebook = nbformat.read(page, 4)
    removed, cells = {"parameters", "injected-parameters", "lab-only"}, []
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if cell.cell_type == "code" and not any("remove" in tag for tag in tags):
            tags.append("hide-input")
        cells += [cell] * removed.isdisjoint(tags)
    notebook.cells = cells
    nbformat.write(notebook, page)


def remove_checkpoints(outputs):
    """Remove the hidden folders of finished trainings."""
    for folder in {Path(path).parent for path in outputs}:
        shutil.rmtree(folder.with_name(f".{folder.name}"), ignore_errors=True)


snakemake = globals()["snakemake"]  # provided by Snakemake
execute(snakemake.input[0], snakemake.output[0], snakemake.params["parameters"])
if "report" in Path(snakemake.output[0]).parts:
    format_report(snakemake.output[0])
remove_checkpoints(snakemake.output)
