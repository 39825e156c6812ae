"""Fine-tuning on sentences in which every word has a tag, such as for named entities."""
