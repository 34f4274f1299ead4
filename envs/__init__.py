"""Captioning as gymnasium environments."""

if __name__ != "rlcap.envs":
    raise ImportError(f"import rlcap.envs, not {__name__}: the bare name would make a second copy of every class")

from gymnasium import register

register(
    "rlcap/Caption-v0",
    entry_point="rlcap.envs.caption:CaptionEnv",
    vector_entry_point="rlcap.envs.caption_vector:CaptionVectorEnv",
)
register("rlcap/Glimpse-v0", entry_point="rlcap.envs.glimpse:GlimpseEnv")
register("rlcap/Adversarial-v0", entry_point="rlcap.envs.adversarial:AdversarialEnv")
