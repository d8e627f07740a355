"""The handles of budgets: who has one may spend, and can give it away.

A handle is made from the budget's id with a secret of the store, so that it need not be kept to be given again; what is
kept is its hash.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

PREFIX = "bh_"
SECRET_BYTES = 32


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def new_id() -> str:
    """A public id: it tells which budget is meant, and opens nothing."""
    return f"b_{secrets.token_hex(6)}"


def handle_of(secret: bytes, identifier: str) -> str:
    digest = hmac.digest(secret, identifier.encode(), "sha256")
    return PREFIX + urlsafe_b64encode(digest[:24]).decode()


def hash_of(handle: str) -> str:
    return hashlib.sha256(handle.encode()).hexdigest()[:40]
