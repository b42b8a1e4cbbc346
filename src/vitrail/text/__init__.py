"""Text to token ids and back; the work is done by the library `tokenizers` (extra `text`)."""
