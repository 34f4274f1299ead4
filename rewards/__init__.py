"""Sequence-level rewards: one file each."""

if __name__ != "rlcap.rewards":
    raise ImportError(f"import rlcap.rewards, not {__name__}: the bare name would make a second copy of every class")

REWARDS = {
    "cider_d": "rlcap.rewards.cider:CiderD",
    "cider": "rlcap.rewards.cider:Cider",
    "rouge_l": "rlcap.rewards.rouge:RougeL",
    "bleu_1": "rlcap.rewards.bleu:Bleu1",
    "bleu_2": "rlcap.rewards.bleu:Bleu2",
    "bleu_3": "rlcap.rewards.bleu:Bleu3",
    "bleu_4": "rlcap.rewards.bleu:Bleu4",
    "smooth_bleu": "rlcap.rewards.bleu:SmoothBleu",
    "rouge_l_single": "rlcap.rewards.rouge:RougeLSingle",
    "meteor": "rlcap.rewards.java_metrics:Meteor",
    "spice": "rlcap.rewards.java_metrics:Spice",
    "distinct": "rlcap.rewards.diversity:Distinct",
    "self_bleu": "rlcap.rewards.diversity:SelfBleu",
    "self_cider": "rlcap.rewards.diversity:SelfCider",
    "repetition": "rlcap.rewards.health:Repetition",
    "bad_ending": "rlcap.rewards.health:BadEnding",
    "length": "rlcap.rewards.health:Length",
    "learned": "rlcap.rewards.learned:Learned",
}
