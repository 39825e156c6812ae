"""Text to token ids: WordPiece and byte-level BPE, their files and their vocabularies."""
