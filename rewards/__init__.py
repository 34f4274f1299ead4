"""Sequence-level rewards: one file each."""

if __name__ != "rlcap.rewards":
    raise ImportError(f"import rlcap.rewards, not {__name__}: the bare name would make a second copy of every class")

REWARDS = {
    "cider_d": "rlcap.rewards.cider:CiderD",
    "cider": "rlcap.rewards.cider:Cider",
    "rouge_l": "rlcap.rewards.rouge:RougeL",
}
