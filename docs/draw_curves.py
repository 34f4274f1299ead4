"""The pictures of curves.md: `python docs/draw_curves.py RUN OUT.png TITLE` draws a run's metrics.jsonl."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {
    "reward": {"reward/total": "drawn", "reward/greedy": "greedy"},
    "validation": {"eval/val/cider_d": "CIDEr-D", "eval/val/bleu_4": "BLEU-4", "eval/val/rouge_l": "ROUGE-L"},
    "captions": {
        "health/val/bad_ending": "end in the middle",
        "health/val/repetition": "word pairs again",
        "health/val/vocabulary_use": "vocabulary used",
    },
    "words a caption": {"health/val/length": "validation", "caption/length": "drawn"},
}
DETAILED = ("reward/", "caption/")  # logged far more often than evaluated: drawn as a running mean
SMOOTH = 0.8


def main(run: str, target: str, title: str) -> None:
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    warnings = sorted({line["update"] for line in lines for tag in line if tag.startswith("warning/")})
    figure, panels = plt.subplots(1, len(PANELS), figsize=(13, 2.7), layout="constrained")
    for panel, (name, curves) in zip(panels, PANELS.items(), strict=True):
        for tag, label in curves.items():
            points = [(line["update"], line[tag]) for line in lines if tag in line]
            if points:
                updates, values = zip(*points, strict=True)
                panel.plot(updates, smoothed(values) if tag.startswith(DETAILED) else values, label=label)
        for update in warnings:
            panel.axvline(update, color="tab:red", linestyle=":", linewidth=1)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("update", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.set_ylim(min(0, panel.get_ylim()[0]), 1.3 * panel.get_ylim()[1])
        panel.legend(fontsize=7, ncols=2, loc="upper center")
    figure.suptitle(f"{title} (dotted: a warning)" if warnings else title, fontsize=11, fontweight="bold")
    figure.savefig(target, dpi=80)


def smoothed(values: tuple[float, ...]) -> list[float]:
    found: list[float] = []
    for value in values:
        found.append(value if not found else SMOOTH * found[-1] + (1 - SMOOTH) * value)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
