"""Files that people and tools exchange: clusters and plans. Checked where the bytes come in."""
