"""Translation: sentence pairs, batches by tokens, beam search, BLEU."""
