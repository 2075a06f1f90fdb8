"""Published corpora whose targets are texts: E2E, WebNLG, DART, WikiSQL, SAMSum. No torch."""
