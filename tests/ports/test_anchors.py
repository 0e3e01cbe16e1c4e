"""What keeps and signs the account's roots, and its fakes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fakes.anchors import FakeSigner, MemoryAnchors
from noria.adapters.anchors import Ed25519Signer, FolderAnchors, new_key
from noria.domain.anchor import Anchor
from noria.domain.errors import InvalidProject, StorageCorrupted

ROOT = Anchor(id="000001", at=datetime(2026, 3, 2, tzinfo=UTC), first=1, last=3, root="ab" * 32, head="cd" * 32)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return FolderAnchors(tmp_path / "roots") if request.param == "folder" else MemoryAnchors()


@pytest.fixture(params=["ed25519", "fake"])
def signer(request):
    return Ed25519Signer(new_key()[0]) if request.param == "ed25519" else FakeSigner()


def test_what_is_kept_is_read_back_in_order(store):
    later = replace(ROOT, id="000002", first=4, last=9, previous=ROOT.digest)
    store.keep(later)
    store.keep(ROOT)
    assert list(store.kept()) == [ROOT, later]


def test_nothing_is_kept_at_first(store):
    assert list(store.kept()) == []


def test_the_same_root_may_be_kept_twice_and_no_other_in_its_place(store):
    store.keep(ROOT)
    store.keep(ROOT)
    with pytest.raises(StorageCorrupted):
        store.keep(replace(ROOT, root="ef" * 32))
    assert list(store.kept()) == [ROOT]


def test_a_signature_is_sound_for_the_root_that_was_signed_and_for_no_other(signer):
    signed = signer.sign(ROOT)
    assert signed.key
    assert signer.sound(signed)
    assert signed.digest == ROOT.digest
    for altered in (replace(signed, last=4), replace(signed, root="ef" * 32), replace(signed, signature="")):
        assert not signer.sound(altered)
    assert not signer.sound(ROOT)


def test_without_a_key_nothing_is_signed():
    assert Ed25519Signer().sign(ROOT) == ROOT


def test_another_key_is_another_signature():
    signed, other = Ed25519Signer(new_key()[0]).sign(ROOT), Ed25519Signer(new_key()[0]).sign(ROOT)
    assert not Ed25519Signer().sound(replace(signed, key=other.key))


def test_a_key_that_is_none_is_said_to_be_none():
    with pytest.raises(InvalidProject, match="audit key"):
        Ed25519Signer("not a key")


def test_a_file_that_was_cut_is_named(tmp_path):
    store = FolderAnchors(tmp_path)
    store.keep(ROOT)
    path = tmp_path / "000001.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageCorrupted):
        store.kept()
