"""What a limit on a merged adapter's rank costs."""
