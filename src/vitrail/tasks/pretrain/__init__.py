"""Pretraining of a BERT on unlabelled text: masked words, and the next sentence."""
