"""Many trainings of one recipe with other values: what is searched, the study that chooses, processes, results."""
