"""A report in other forms than a page: what is asked for is there, and says the same."""

from typing import Any

import pytest
from support.report_study import ONE_TABLE, bench

from ablate.core.errors import AblateError
from ablate.report.formats import formats_named
from ablate.report.write import write_report


def test_a_report_is_written_in_the_formats_that_are_asked_for_until_others_are(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)

    def pages(**asked: Any) -> set[str]:
        return {path.name for path in write_report(study.plan(), **asked).glob("report.*")}

    assert pages() == {"report.html", "report.md"}
    assert pages(formats=("md",)) == pages() == {"report.md"}  # a run later writes what was asked for
    study.commit(study.plan().cells[0])
    assert pages() == {"report.md"}
    assert pages(formats=("md", "html")) == {"report.html", "report.md"}


def test_an_unknown_format_names_the_possible_ones():
    with pytest.raises(AblateError, match=r"has no format 'htm'\. Did you mean 'html'\? Possible: "):
        formats_named("md,htm")
    assert formats_named("md, html,md") == ("html", "md")
