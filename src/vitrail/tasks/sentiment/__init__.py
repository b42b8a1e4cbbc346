"""Classification of texts, such as sentences by their sentiment."""
