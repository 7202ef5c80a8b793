"""One function per number, each behind the contract of `contract.py`."""
