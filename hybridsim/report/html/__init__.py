"""One self-contained HTML file of records: figures, tables, an explorer; it needs no network."""
