"""Faults of the data, found before training finds them."""

from fnn.data.audit.findings import Finding as Finding
from fnn.data.audit.findings import Findings as Findings
from fnn.data.audit.limits import Limits as Limits
from fnn.data.audit.run import audit as audit

__all__ = ["Finding", "Findings", "Limits", "audit"]
