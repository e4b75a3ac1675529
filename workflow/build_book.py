"""Snakemake script: build the book from its prose and the executed notebooks.

The source of the book is a copy of the project's pages in which each notebook is the
executed one. Chapters without a page in this run are left out of the table of contents.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from book_figures import save_figures
from build_course import make_edition

SOURCE, OUTPUT = Path("_build/source"), Path("_build/html")
EXERCISES = Path("notebooks/labs/07_exercises.ipynb")  # offered without solutions


def keep_existing(chapters):
    """Drop chapters without a source file; their sections move up."""
    kept = []
    for chapter in chapters:
        sections = keep_existing(chapter.pop("sections", []))
        exists = any(
            (SOURCE / f"{chapter['file']}{s}").exists() for s in (".md", ".ipynb")
        )
        if exists:
            kept.append(chapter | ({"sections": sections} if sections else {}))
        else:
            kept += sections
    return kept


def assemble_source(pages):
    """Copy prose, configuration and executed notebooks to SOURCE."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree("book", SOURCE / "book")
    for name in ("_config.yml", "CONTRIBUTING.md"):
        shutil.copy(name, SOURCE)
    save_figures(SOURCE / "book" / "figures")
    for page, executed in pages.items():
        target = SOURCE / "notebooks" / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(executed, target)
    toc = yaml.safe_load(Path("_toc.yml").read_text())
    for part in toc["parts"]:
        part["chapters"] = keep_existing(part["chapters"])
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (SOURCE / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))


def build():
    """Build SOURCE into OUTPUT; warnings are errors, and then an old book stays."""
    command = ["jupyter-book", "build", SOURCE, "-W", "-n", "--keep-going", "-q"]
    html = SOURCE / "_build" / "html"
    if subprocess.run(command).returncode or not (html / "index.html").exists():
        sys.exit("The book was not built: its warnings are above.")
    nbformat.write(make_edition(nbformat.read(EXERCISES, 4), False), html / EXERCISES)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    html.rename(OUTPUT)


snakemake = globals()["snakemake"]  # provided by Snakemake
assemble_source(snakemake.params["pages"])
build()
