"""What figures are called and how they are shown, whatever kind of evaluation they come from."""

from rlcap.evaluation import Evaluation
from rlcap.metrics import LOWER_IS_BETTER
from rlcap.report.reading import Scored
from rlcap.retrieval import RANKS, RETRIEVED
from rlcap.text_evaluation import TextEvaluation

RAW = {*TextEvaluation.as_they_are, *RANKS}  # figures that are not shown x100
LOWER = LOWER_IS_BETTER | {*RANKS}


def name_of(key: str, text: bool = False) -> str:
    """Of a figure, for people; `text`: of drawn sentences."""
    names = TextEvaluation.names if text else {**RETRIEVED, **RANKS, **Evaluation.names}
    return names.get(key, key)


def is_text(scored: Scored) -> bool:
    return bool(scored.captions) and not scored.of_images


def shown(key: str, value: float) -> float:
    """Metrics and shares x100, as papers print them."""
    return value if key in RAW else 100 * value
