"""The arithmetic of BLEU, ROUGE-L and CIDEr: rewards and evaluation both use it."""
