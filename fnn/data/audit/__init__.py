"""Data audit: faults of a data set, found before training."""

from fnn.data.audit.checks import audit
from fnn.data.audit.findings import Finding, Findings, Limits

__all__ = ["Finding", "Findings", "Limits", "audit"]
