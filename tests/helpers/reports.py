"""Reports of stores made by hand."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from helpers.handmade_runs import PROVENANCE, jobs, write_run, write_status

from analysis.render.report import page
from analysis.report.build import report
from analysis.report.data import Report

HARM = "</script><script>window.harmed=1</script><img src=x onerror=window.harmed=1>"


class Made(NamedTuple):
    """A report with its page."""

    store: Path
    report: Report
    page: str

    @property
    def data(self) -> Any:
        """What the page's JSON holds."""
        return data_of(self.page)

    @property
    def text(self) -> str:
        """What a reader sees, without the script, the style and the JSON."""
        body = re.sub(r"<(script|style).*?</\1>", "", self.page, flags=re.DOTALL)
        return re.sub(r"<[^>]*>", " ", body)


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def make(store: Path, command: str = "python -m analysis report --out report.html") -> Made:
    found = report(str(store), "smoke", command)
    return Made(store, found, page(found))


def hostile_store(store: Path) -> Path:
    """Writes table 6 at scale smoke: what records say means harm, and one run failed."""
    first, *rest = jobs()
    write_status(store, first, "failed", HARM)
    for each in rest:
        provenance = {**PROVENANCE, "device_class": HARM}
        write_run(store, each, [(0.5, 0.5), (0.7, 0.7)], provenance=provenance, flags={HARM: True})
    return store
