"""The simulator: engines and replica groups in virtual time. Pure."""
