"""`python -m benchmarks.metrics`: everything that measures the metrics."""

from benchmarks import metrics_inception, metrics_statistics


def main(argv: list[str] | None = None) -> None:
    """Run both with their defaults."""
    metrics_statistics.main(argv or [])
    metrics_inception.main(argv or [])


if __name__ == "__main__":
    main()
