"""What a comparison amounts to in words: the same sentences in a terminal and in a browser."""

from api.results import Compared, MixtureRow

TITLES = {"averaged": "DoReMi", "reference": "baseline", "uniform": "uniform", "hardest": "hardest", "easiest": "easiest"}


def sentences(compared: Compared) -> list[str]:
    """What the table says, without more than it says."""
    said = []
    baseline = next((row for row in compared.rows if row.mixture == compared.baseline), None)
    if baseline is None:
        return ["There is no baseline (mixture `reference`) to compare with."]
    for row in compared.rows:
        if row is not baseline:
            said.append(_against(row, baseline))
    lowest = min(row.evaluation.average for row in compared.rows)
    best = [TITLES.get(row.mixture, row.mixture) for row in compared.rows if row.evaluation.average == lowest]
    said.append(f"Lowest average: {' and '.join(best)} ({lowest:.4f}).")
    return said


def _against(row: MixtureRow, baseline: MixtureRow) -> str:
    name = TITLES.get(row.mixture, row.mixture)
    number = len(row.evaluation.losses)
    difference = row.evaluation.average - baseline.evaluation.average
    verdict = "as good as it" if difference == 0 else f"{abs(difference):.4f} nats {'better' if difference < 0 else 'worse'} than it"
    reached = (
        f"it reached the baseline's last average at step {row.steps_to_baseline:,}"
        if row.steps_to_baseline is not None
        else "it never reached the baseline's last average"
    )
    lost = f"; worse on {', '.join(row.worse)}" if row.worse else ""
    return f"{name}: better than the baseline on {len(row.better)} of {number} domains{lost}. On average {verdict}; {reached}."
