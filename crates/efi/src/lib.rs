//! What firmware reads: UKI, ESP, ISO and boot variables, composed from extents.
