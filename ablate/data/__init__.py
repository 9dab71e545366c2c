"""Training data: rows of a file or data set, rendered by a template, as tokens with a mask of what is learnt."""
