"""Finished audits side by side: what can be compared, the table, the tests, the front, and the forms of output."""
