"""Build the course: notebooks for students and instructors, slides, and a quiz file.

`make course` writes _build/course/: student/ without answers, instructor/ with them,
slides.html, and quiz.gift for Moodle. All of it opens without a network.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from nbconvert import SlidesExporter

from braintumor.core.files import ROOT

OUTPUT, COURSE = ROOT / "_build" / "course", Path(__file__).parent / "course"
LABS = sorted(ROOT.glob("notebooks/labs/0[0-7]_*.ipynb"))
PAGES = [*sorted(ROOT.glob("notebooks/*/*.ipynb")), *sorted(ROOT.glob("book/*.md"))]
ANSWER = re.compile(r"\n*:::\{dropdown\} Answer\n\*\*(\w)\.\*\* (.*?)\n:::", re.DOTALL)
EXPECTED = re.compile(r"\n\n\*\*Expected:\*\* .*")
OPTION = re.compile(r"^- \*\*(\w)\*\* (.+)$", re.MULTILINE)
DIRECTIVE = re.compile(r":::\{\w+\} *(.*?)\n(?::class:.*?\n)?(.*?)\n:::", re.DOTALL)
MYST = {  # what only MyST renders, and what stands for it in JupyterLab
    r"^\([\w-]+\)=\n+": "",
    r" *\{cite:[pt]\}`[^`]+`": "",
    r"\{\w+\}`([^`<]+?)(?: <[^`]+>)?`": r"*\1*",
    r"\[([^\]]+)\]\((?!http)[^)]+\)": r"*\1*",
}


@dataclass
class Question:
    """A question of a quiz; `answer` is a key of `options`."""

    text: str
    options: dict[str, str]
    answer: str
    reason: str


def read_quiz(path):
    """Return the title of a page and its list of Questions."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, 4).cells
        text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    title = re.search(r"^# (.+)$|\Z", text, re.MULTILINE)[1] or path.stem
    quiz = re.search(r"^## Quiz\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    questions = re.split(r"^\*\*\d+\.\*\* ", quiz[1] if quiz else "", flags=re.M)[1:]
    return title, [_parse_question(question) for question in questions]


def _parse_question(text):
    answer, reason = ANSWER.search(text).groups()
    options = dict(OPTION.findall(text))
    return Question(text[: text.index("\n\n")], options, answer, reason)


def format_gift(title, questions):
    """Format the Questions of a page in Moodle's GIFT format."""
    lines = [f"$CATEGORY: Brain tumors on MRI slices/{title}"]
    for number, question in enumerate(questions, 1):
        name = _escape_gift(f"{title}, question {number}")
        lines.append(f"\n::{name}::[markdown]{_escape_gift(question.text)} {{")
        for key, option in question.options.items():
            sign = "=" if key == question.answer else "~"
            lines.append(f"  {sign}{_escape_gift(option)}")
        lines.append(f"  ####{_escape_gift(question.reason)}\n}}")
    return "\n".join(lines)


def _escape_gift(text):
    return re.sub(r"([~=#{}:\\])", r"\\\1", " ".join(to_plain_markdown(text).split()))


def to_plain_markdown(text):
    """Replace MyST's roles and directives by what JupyterLab renders."""
    for pattern, replacement in MYST.items():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)

    def quote(match):
        lines = [f"**{match[1]}**", "", *match[2].splitlines()]
        return "\n".join(f"> {line}".rstrip() for line in lines)

    return DIRECTIVE.sub(quote, text)


def make_edition(notebook, with_answers):
    """Make the instructor's (`with_answers`) or the students' notebook of a lab."""
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.pop("tags", [])
        if "parameters" in tags:
            cell.metadata.tags = ["parameters"]  # for papermill
        if "hide-input" in tags:
            cell.metadata.jupyter = {"source_hidden": True}
        if not with_answers and "solution" in tags:
            if cell.cell_type == "markdown":
                continue
            cell.source = "# your code\n"
        if not with_answers:
            cell.source = ANSWER.sub("", cell.source)
        if cell.cell_type == "markdown":
            cell.source = to_plain_markdown(cell.source)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def build_notebooks():
    """Write both editions of labs and sheets, and run the instructor's exercises."""
    sheets = (COURSE / "sheets.md").read_text()
    for name, with_answers in (("student", False), ("instructor", True)):
        (OUTPUT / name).mkdir(parents=True, exist_ok=True)
        text = sheets if with_answers else EXPECTED.sub("", sheets)
        (OUTPUT / name / "sheets.md").write_text(text)
        for lab in LABS:
            notebook = make_edition(nbformat.read(lab, 4), with_answers)
            nbformat.write(notebook, OUTPUT / name / lab.name)
    execute(OUTPUT / "instructor" / LABS[-1].name)


def execute(source, output=None):
    """Run a notebook in the project's folder."""
    paths = str(source), str(output or source)
    papermill.execute_notebook(*paths, cwd=str(ROOT), progress_bar=False)


def build_slides():
    """Run the notebook of the slides and write it as one page."""
    with TemporaryDirectory() as folder:
        executed = Path(folder) / "slides.ipynb"
        execute(ROOT / "notebooks" / "course" / "slides.ipynb", executed)
        notebook = nbformat.read(executed, 4)
    (OUTPUT / "slides.html").write_text(render_slides(notebook))


def render_slides(notebook):
    """Render an executed notebook as slides, with reveal.js in the page itself."""
    script, *styles = (
        (COURSE / "reveal.js" / name).read_text()
        for name in ("reveal.js", "reveal.css", "white.css")
    )
    exporter = SlidesExporter(
        template_file=str(COURSE / "slides.html.j2"),
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    resources = {"script": script, "style": "\n".join(styles)}
    return exporter.from_notebook_node(notebook, resources)[0]


def build_quiz():
    """Write the questions of all pages as quiz.gift."""
    quizzes = [read_quiz(path) for path in PAGES]
    texts = [format_gift(*quiz) for quiz in quizzes if quiz[1]]
    (OUTPUT / "quiz.gift").write_text("\n\n".join(texts) + "\n")


def main():
    build_notebooks()
    build_quiz()
    build_slides()
    print(f"The course is ready: {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
