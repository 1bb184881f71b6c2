"""DeepSeek sparse attention: an indexer picks the tokens that MLA attends to."""
