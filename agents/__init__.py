"""The trainers: one file each, read from top to bottom."""

if __name__ != "rlcap.agents":
    raise ImportError(f"import rlcap.agents, not {__name__}: the bare name would make a second copy of every class")

TRAINERS = {
    "cross_entropy": "rlcap.agents.cross_entropy:CrossEntropy",
    "hard_attention": "rlcap.agents.hard_attention:VariationalBound",
    "contrastive": "rlcap.agents.contrastive:InfoNCE",
    "adversarial": "rlcap.agents.adversarial:Adversarial",
    "scst": "rlcap.agents.scst:SCST",
    "ppo": "rlcap.agents.ppo:PPO",
    "mixer": "rlcap.agents.mixer:Mixer",
    "minimum_risk": "rlcap.agents.minimum_risk:MinimumRisk",
}
