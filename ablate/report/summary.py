"""What a study comes to, for the end of a run and for programs: each ablation's answer, its rows, what to ship."""

from typing import Any

from ablate.report.findings_text import answers
from ablate.report.metric_names import metric_name
from ablate.results.collect import AblationResult, Results
from ablate.results.row_records import row_records
from ablate.results.shipping import Shipping, shipping_of


def summary_record(results: Results) -> dict[str, Any]:
    """-> for results.json: rows by the primary metric alone."""
    return {
        "ship": [_shipping(shipping) for shipping in shipping_of(results)],
        "ablations": [_ablation(results, ablation) for ablation in results.ablations],
    }


def _ablation(results: Results, ablation: AblationResult) -> dict[str, Any]:
    primary = ablation.primary
    return {
        "name": ablation.name,
        "title": ablation.title,
        "question": ablation.spec.question or "",
        "answer": next(iter(answers(results, ablation)), ""),
        "metric": metric_name(primary, ablation.columns) if primary else "",
        "rows": [record._asdict() for record in row_records(results, ablation, [primary] if primary else [])],
    }


def _shipping(shipping: Shipping) -> dict[str, Any]:
    best, cheapest = shipping.best.row, shipping.cheapest.row
    return {
        "pair": best.setting.pair,
        "metric": str(shipping.metric),
        "best": f"{best.ablation}/{best.name}",
        "equals": [f"{row.row.ablation}/{row.row.name}" for row in shipping.equals],
        "cheapest": f"{cheapest.ablation}/{cheapest.name}",
        "label": cheapest.label,
        "cell": shipping.cell.cell.name,
    }
