"""Block-sparse grouped-query attention: an indexer picks blocks of keys."""
