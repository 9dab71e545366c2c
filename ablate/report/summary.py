"""What a study comes to, for the end of a run and for programs: each ablation's answer, its rows, what to ship."""

from typing import Any

from ablate.report.findings_text import headline
from ablate.report.front_text import ship_text
from ablate.report.metric_names import metric_name
from ablate.results.collect import AblationResult, Results
from ablate.results.row_records import row_records
from ablate.results.shipping import Shipping, shipping_of


def summary_record(results: Results) -> dict[str, Any]:
    """-> for results.json: rows by the primary metric alone."""
    return {
        "ship": [_shipping(*pair) for pair in zip(shipping_of(results), ship_text(results), strict=True)],
        "ablations": [_ablation(results, ablation) for ablation in results.ablations],
    }


def _ablation(results: Results, ablation: AblationResult) -> dict[str, Any]:
    primary = ablation.primary
    return {
        "name": ablation.name,
        "title": ablation.title,
        "question": ablation.spec.question or "",
        "answer": headline(results, ablation),
        "metric": metric_name(primary, ablation.columns) if primary else "",
        "rows": [record._asdict() for record in row_records(results, ablation, [primary] if primary else [])],
    }


def _shipping(shipping: Shipping, text: str) -> dict[str, Any]:
    best, cheapest = shipping.best.row, shipping.cheapest.row
    return {
        "text": text,
        "pair": best.setting.pair,
        "metric": str(shipping.metric),
        "best": f"{best.ablation}/{best.name}",
        "equals": [f"{row.row.ablation}/{row.row.name}" for row in shipping.equals],
        "cheapest": f"{cheapest.ablation}/{cheapest.name}",
        "cell": shipping.cell.cell.name,
    }
