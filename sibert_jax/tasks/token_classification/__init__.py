"""Fine-tuning on sentences of which every word has a tag, such as named entities."""
