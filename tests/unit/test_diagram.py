from __future__ import annotations

import re
from pathlib import Path

import pytest

from queuectld.domain.diagram import block, mermaid
from queuectld.domain.transitions import NEXT

ROOT = Path(__file__).parents[2]


def test_every_move_is_an_arrow():
    arrows = re.findall(r"^    (\w+) --> (\w+): ", mermaid(), re.MULTILINE)

    assert sorted(arrows) == sorted((was, to) for was, moves in NEXT.items() for to in moves.values())


@pytest.mark.parametrize("document", ["README.md"])
def test_documents_show_the_diagram_as_it_is(document):
    text = (ROOT / document).read_text()

    shown = re.search(r"<!-- states -->\n(.*?)\n<!-- /states -->", text, re.DOTALL)

    assert shown, f"{document} needs `python -m queuectld.domain.diagram` between <!-- states --> and <!-- /states -->"
    assert shown[1].strip() == block()
