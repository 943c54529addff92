"""Docstrings as prose: nothing they say is lost, and as Markdown they say the same."""

from __future__ import annotations

import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nearfar.markdown import inline, prose, table
from nearfar.prose import blocks, plain, read


def shapes(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(block.kind, block.lines) for block in blocks(textwrap.dedent(text))]


def test_paragraphs_are_reflowed_and_lists_have_a_line_for_each_item():
    text = """
        One
        paragraph.

        - first item,
          which goes on
        - second

        * third, after an empty line
        1. numbered
    """
    assert shapes(text) == [
        ("paragraph", ("One paragraph.",)),
        ("list", ("- first item, which goes on", "- second", "* third, after an empty line", "1. numbered")),
    ]


def test_formulas_are_blocks_of_their_own_wherever_they_start():
    text = r"""
        .. math:: a = b

        .. math::
            :label: named

            c = d

            e = f
    """
    assert shapes(text) == [("math", ("a = b",)), ("math", ("c = d",)), ("math", ("e = f",))]


def test_what_reflowing_would_spoil_is_kept_as_it_stands():
    text = """
        As in::

            loss = a
              + b

            loss.backward()

        >>> 1 + 1
        2

        Args:
            margin: How far.
            scale: How much.

        ====  ====
        name  what
        ====  ====
    """
    assert shapes(text) == [
        ("paragraph", ("As in:",)),
        ("verbatim", ("loss = a", "  + b", "", "loss.backward()")),
        ("verbatim", (">>> 1 + 1", "2")),
        ("verbatim", ("Args:", "    margin: How far.", "    scale: How much.")),
        ("verbatim", ("====  ====", "name  what", "====  ====")),
    ]


def test_other_directives_are_told_by_their_name():
    assert shapes(".. note:: Not\n    so fast.") == [("paragraph", ("Note: Not so fast.",))]
    assert shapes(".. code-block:: python\n\n    x = 1") == [("verbatim", ("x = 1",))]


WORDS = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=5).map(" ".join)
LINES = st.builds(str.__add__, st.sampled_from(["", "    ", "- ", "  - ", "1. "]), WORDS)
TEXTS = st.lists(st.one_of(LINES, st.just("")), max_size=12).map("\n".join)


@given(TEXTS)
def test_no_word_of_any_text_is_lost_or_moved(text):
    found = " ".join(block.text for block in blocks(text))
    assert re.findall(r"[a-z]+", found) == re.findall(r"[a-z]+", text)


def test_sections_are_told_apart_and_parameters_left_to_the_signature():
    said = read(
        """Short.

        Longer.

        Parameters
        ----------
        margin : float
            How far.

        Raises
        ------
        ArgumentError
            Too far.
        ValueError
            Too
            near.

        Notes
        -----
        A note.

        - of two things
        - in a list

        Attributes
        ----------
        weight : Tensor
            One row a class.

        References
        ----------
        Somebody (2020).
        """
    )
    assert said.opening == "Short.\n\nLonger."
    assert said.raises == (("ArgumentError", "Too far."), ("ValueError", "Too near."))
    assert {s.title: [b.kind for b in s.blocks] for s in said.sections} == {
        "Notes": ["paragraph", "list"],
        "Attributes": ["list"],
        "References": ["paragraph"],
    }
    assert said.sections[1].blocks[0].lines == ("- ``weight``: One row a class.",)


def test_the_first_paragraph_is_left_out_where_it_is_the_summary_and_nowhere_else():
    said = read("A loss.\n\nOf two terms.")
    assert [block.text for block in said.after("A loss")] == ["Of two terms."]
    assert [block.text for block in said.after("A triplet loss.")] == ["A loss.", "Of two terms."]


# ---- within a line


@pytest.mark.parametrize(
    ("written", "terminal", "markdown"),
    [
        ("``a_b`` or `c`", "`a_b` or `c`", "``a_b`` or ``c``"),
        (":math:`x_i^2`", "x_i^2", "{math}`x_i^2`"),
        (":class:`~nearfar.nn.Loss` of :mod:`nearfar.nn`", "`Loss` of `nearfar.nn`", "``Loss`` of ``nearfar.nn``"),
        (":class:`the loss <nearfar.nn.Loss>`", "`the loss`", "``the loss``"),
        ("see https://a.org/b_c.", "see https://a.org/b_c.", "see <https://a.org/b_c>."),
        ("`page <https://a.org>`_", "page (https://a.org)", "[page](<https://a.org>)"),
        ("the *sum* of a * b", "the *sum* of a * b", r"the *sum* of a \* b"),
        ("x_{i} in [0, 1)", "x_{i} in [0, 1)", r"x\_\{i\} in \[0, 1)"),
    ],
)
def test_roles_code_and_links_are_shown_as_each_place_shows_them(written, terminal, markdown):
    assert plain(written) == terminal
    assert inline(written) == markdown


@given(st.text(alphabet="ab 1.-+*_#>[]<>{}()$~\\|%=!&;:'\"", min_size=1).map(lambda text: " ".join(text.split())))
def test_plain_text_means_nothing_to_markdown(text):
    def words(tokens):
        return "".join(words(token.children) if token.children else token.content for token in tokens)

    tokens = MarkdownIt("commonmark").parse(inline(text))
    assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close"}
    if "*" not in text:  # emphasis is what both languages mean by stars
        assert words(tokens) == text


def test_a_block_of_code_may_hold_fences():
    *_, token = MarkdownIt("commonmark").parse(prose(blocks("Like::\n\n    ```\n    inner\n    ```")))
    assert (token.type, token.content) == ("fence", "```\ninner\n```\n")


def test_a_table_keeps_bars_in_their_cells_and_leaves_out_empty_columns():
    rendered = (
        MarkdownIt("commonmark").enable("table").render(table(("A", "B", "C"), [("a|b", "", "c"), ("d", "", "")]))
    )
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", rendered) == ["A", "C", "a|b", "c", "d", ""]
    assert table(("A",), []) == ""
