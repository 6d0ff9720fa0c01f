"""What every client of a remote model shares: keys, addresses, the sorting of failures, limits, retries and costs.

Imports nothing of `audit` but types, errors and resources; the SDKs are imported inside the functions that need them.
"""
