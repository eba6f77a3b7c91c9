"""What `aedr` exits with."""

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG_CALL"]

OK, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130
