"""Fine-tuning on sentences and pairs of them: classification and regression."""
