"""Quizzes are fair; editions of the course differ in their answers; slides work."""

import re

import build_course
import nbformat
import pytest
from build_course import LABS, make_edition

QUIZZES = {path.stem: build_course.read_quiz(path) for path in build_course.PAGES}
QUESTIONS = [question for _, quiz in QUIZZES.values() for question in quiz]


def test_questions_have_three_options_and_are_exported_to_moodle():
    labs = [path.stem for path in LABS if "exercises" not in path.stem]
    assert {len(QUIZZES[lab][1]) for lab in labs} == {3}
    assert {tuple(question.options) for question in QUESTIONS} == {("a", "b", "c")}
    text = build_course.format_gift(*QUIZZES["03_segment"])
    assert (text.count("\n  ="), text.count("\n  ~"), text.count("####")) == (3, 6, 3)
    assert "nearly optimal for cross-entropy" in text


@pytest.mark.parametrize("lab", LABS, ids=lambda path: path.stem)
def test_only_the_instructor_edition_has_answers(lab):
    student, instructor = (
        "\n".join(cell.source for cell in make_edition(nbformat.read(lab, 4), e).cells)
        for e in (False, True)
    )
    is_exercises = lab.stem == "07_exercises"
    assert student.count("# your code\n") == 29 * is_exercises
    pattern = r"^\*\*Solution \d+\.\*\*" if is_exercises else r"^> \*\*Answer\*\*"
    count = 29 if is_exercises else 3
    assert len(re.findall(pattern, instructor, re.MULTILINE)) == count
    assert not re.findall(pattern, student, re.MULTILINE)
    assert not re.search(r":::|\{(page|term|cite:p)\}|^\(\w+\)=", student + instructor)


@pytest.mark.browser
def test_slides_open_without_a_network(chromium, tmp_path):
    cells = [nbformat.v4.new_markdown_cell(f"# Slide {n}") for n in (1, 2)]
    for cell in cells:
        cell.metadata.slideshow = {"slide_type": "slide"}
    page = tmp_path / "slides.html"
    notebook = nbformat.v4.new_notebook(cells=cells)
    page.write_text(build_course.render_slides(notebook))
    with chromium(1280) as browser:
        browser.get(page.as_uri())
        assert browser.execute_script("return Reveal.getTotalSlides()") == 2
        assert browser.find_element("tag name", "h1").is_displayed()
        assert not browser.get_log("browser")
        urls = re.findall(r'(?:src|href)="(?!data:)([^"$]+)', page.read_text())
        assert urls == []
