"""Fine-tuning on sentences and sentence pairs: classification and regression."""
