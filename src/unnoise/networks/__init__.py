"""The networks: torch only, nothing else of ours."""
