"""What came out: one file, tables and plots."""
