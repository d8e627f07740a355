"""What llmd costs, beside the floor of each cost measured in the same run: `python -m tests.bench --help`."""
