"""Faults of the data, found before training finds them."""

from fnn.data.audit.findings import Finding, Findings
from fnn.data.audit.limits import Limits
from fnn.data.audit.run import audit

__all__ = ["Finding", "Findings", "Limits", "audit"]
