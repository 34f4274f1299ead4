"""How words are chosen: the one word loop, samplers, constraints, beam search."""
