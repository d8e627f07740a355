"""Handles: who has one may spend; they are made again from the store's secret, and only their hashes are kept."""

from llmd.handles import PREFIX, SECRET_BYTES, handle_of, hash_of, new_id, new_secret


def test_a_handle_is_made_again_from_the_same_secret_and_id() -> None:
    secret = new_secret()
    assert handle_of(secret, "b_1") == handle_of(secret, "b_1")
    assert handle_of(secret, "b_1") != handle_of(secret, "b_2")
    assert handle_of(secret, "b_1") != handle_of(new_secret(), "b_1")


def test_a_handle_is_known_by_how_it_begins_and_is_nothing_that_a_shell_or_an_address_would_change() -> None:
    handle = handle_of(new_secret(), "b_1")
    assert handle.startswith(PREFIX)
    assert handle.removeprefix(PREFIX).replace("-", "").replace("_", "").isalnum()
    assert len(handle.removeprefix(PREFIX)) * 6 >= 128, "nobody guesses it"


def test_neither_the_id_nor_the_hash_tells_the_handle() -> None:
    identifier = new_id()
    handle = handle_of(new_secret(), identifier)
    assert identifier not in handle
    assert handle.removeprefix(PREFIX) not in hash_of(handle)
    assert hash_of(handle) != hash_of(handle[:-1])


def test_secrets_and_ids_are_new_each_time() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(new_secret()) == SECRET_BYTES
    assert len({new_id() for _ in range(1000)}) == 1000
