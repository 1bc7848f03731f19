"""How good a model is: scores, groups, confidence, mistakes, and the report that shows them."""
