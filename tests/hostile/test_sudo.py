"""Under sudo, recordings belong to the user who called it, who may put anything into the folder they are written to."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pprofpy.errors import OutputError, ProfileFormatError
from pprofpy.formats import files, folder, spool
from pprofpy.formats.files import read_recording, save, save_recording
from pprofpy.formats.recording import write
from pprofpy.formats.spool import Spool
from pprofpy.model.recording import Recording
from tests.conftest import BURN_AND_REST, PROGRAMS, wait_until
from tests.stacks import profile_of
from tests.users import US, Users, other_users

AS_CALLER = (f"--reuid={US}", f"--regid={US}", "--clear-groups")
STATE = Path(".local/state/pprofpy")
NAME = "cpu-shop-1.pb.gz"
SECRET, OWN = (write(Recording("cpu", profile_of({f"main > {name}": 3}))) for name in ("secret", "own"))

SWAP = """
import os, sys
place, private = sys.argv[1:]
print("ready", flush=True)
while True:
    os.rename(place, place + ".kept")
    os.symlink(private, place)
    os.unlink(place)
    os.rename(place + ".kept", place)
"""


SWAP_FILES = """
import os, sys
place, private = sys.argv[1:]
print("ready", flush=True)
while True:
    for name in os.listdir(place):
        if not name.endswith(".part"):
            continue
        try:
            os.rename(place + "/" + name, place + "/kept")
            os.symlink(private, place + "/" + name)
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    yield from other_users()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That of the user who has called us by sudo, as the list of users says; the environment says something else."""
    if os.geteuid() != 0:
        pytest.skip("needs root: what root writes for another user is what is tested")
    place = Path(tempfile.mkdtemp(prefix="pprofpy-home-"))
    place.chmod(0o755)
    own = place / "home"
    own.mkdir()
    os.chown(own, US, US)
    known = pwd.struct_passwd(("caller", "x", US, US, "", str(own), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: known if uid == US else pytest.fail(f"asked for user {uid}"))
    monkeypatch.setenv("SUDO_UID", str(US))
    for name in ("HOME", "PPROFPY_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(place / "elsewhere"))
    monkeypatch.setattr(files, "_LAST_RESORTS", (place / "missing",))
    yield own
    shutil.rmtree(place)


@pytest.fixture
def private(home: Path) -> Path:
    """A folder that only root can enter, with a recording of root's."""
    folder = home.parent / "private"
    folder.mkdir(mode=0o700)
    (folder / NAME).write_bytes(SECRET)
    (folder / NAME).chmod(0o600)
    return folder


def own_folder(home: Path) -> Path:
    """The caller's profile folder, made by that one."""
    place = home
    for part in STATE.parts:
        place /= part
        place.mkdir()
        os.chown(place, US, US)
    return place


def owner_and_mode(path: Path) -> tuple[int, int]:
    facts = path.lstat()
    return facts.st_uid, stat.S_IMODE(facts.st_mode)


# -- the whole command -------------------------------------------------------------------------------------------------


@pytest.fixture
def caller(users: Users) -> Iterator[Path]:
    """The home of a real user, as the namespace's list of users has it."""
    home = users.folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, US, US)
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if f":x:{US}:" not in line]
    listed = users.folder / "passwd"
    listed.write_text("\n".join([*others, f"caller:x:{US}:{US}::{home}:/bin/sh", ""]))
    subprocess.run(users.inside("mount", "--bind", str(listed), "/etc/passwd"), check=True)
    yield home
    subprocess.run(users.inside("umount", "/etc/passwd"), check=True)
    shutil.rmtree(home)


def sudo(users: Users, *words: str) -> tuple[list[str], dict[str, str]]:
    """A command as sudo would run it, and its variables; those that name folders lead elsewhere."""
    elsewhere = str(users.folder / "elsewhere")
    variables = {"SUDO_UID": str(US), "HOME": elsewhere, "PPROFPY_DIR": elsewhere, "XDG_STATE_HOME": elsewhere}
    return users.inside(sys.executable, "-m", "pprofpy", *words), variables


def later(users: Users, home: Path, *words: str) -> str:
    """What a later command of the user's prints."""
    command = users.inside("setpriv", *AS_CALLER, sys.executable, "-m", "pprofpy", *words)
    done = users.run(command, {"HOME": str(home), "PPROFPY_DIR": "", "XDG_STATE_HOME": ""})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_later_commands_of_the_user_find_what_sudo_recorded(users: Users, caller: Path) -> None:
    pid = users.start(US, *BURN_AND_REST)
    command, variables = sudo(users, "cpu", "--engine", "py-spy", "--pid", str(pid), "-d", "1")

    done = users.run(command, variables)

    assert done.returncode == 0, done.stderr
    (saved,) = (caller / STATE).iterdir()
    assert f"saved: {saved}\n" in done.stderr
    assert owner_and_mode(saved) == (US, 0o600)
    assert {owner_and_mode(caller / part) for part in (".local", ".local/state", STATE)} == {(US, 0o700)}
    assert re.search(r" cpu .*burn|burn.* cpu ", later(users, caller, "list-recordings"))
    assert "flat%" in later(users, caller, "top")
    assert not (users.folder / "elsewhere").exists()


def test_what_a_kill_leaves_is_the_users_too(users: Users, caller: Path) -> None:
    pid = users.start(US, str(PROGRAMS / "show.py"))
    command, variables = sudo(
        users, "heap", "--engine", "tracemalloc", "--pid", str(pid), "-d", "600", "--window", "200ms"
    )
    with subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE) as process:
        wait_until(lambda: any(one.stat().st_size > 200 for one in caller.glob(f"{STATE}/*")), "a window is saved")
        process.send_signal(signal.SIGKILL)

    (left,) = (caller / STATE).iterdir()
    assert left.suffix == spool.SUFFIX
    assert owner_and_mode(left) == (US, 0o600)
    assert "cut short" in later(users, caller, "list-recordings")
    assert "cut short" in later(users, caller, "show")


def test_a_named_file_is_the_users_where_the_user_may_write(home: Path, private: Path) -> None:
    save(OWN, home / "own.pb.gz")
    save(OWN, private / "own.pb.gz")

    assert owner_and_mode(home / "own.pb.gz") == (US, 0o600)
    assert owner_and_mode(private / "own.pb.gz") == (0, 0o600)


# -- hostile folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [STATE, STATE.parent, STATE.parent.parent], ids=str)
def test_a_link_leads_only_where_the_user_could_go(part: Path, home: Path, private: Path) -> None:
    (home / part).parent.mkdir(parents=True, exist_ok=True)
    (home / part).symlink_to(private)
    for path in (home, *home.rglob("*")):
        os.chown(path, US, US, follow_symlinks=False)
    before = sorted(private.rglob("*"))
    resort = home.parent / "missing"
    resort.mkdir(mode=0o777)
    resort.chmod(0o1777)

    saved = save_recording(OWN, NAME)

    assert sorted(private.rglob("*")) == before
    assert saved.parent.parent == resort
    assert owner_and_mode(saved) == (US, 0o600)
    assert owner_and_mode(saved.parent) == (US, 0o700)
    assert folder.recordings() == []


def test_links_in_the_folder_show_nothing_of_roots(home: Path, private: Path) -> None:
    place = own_folder(home)
    (place / NAME).symlink_to(private / NAME)
    os.link(private / NAME, place / "cpu-hard-1.pb.gz")

    with pytest.raises(ProfileFormatError, match="Permission denied"):
        read_recording(str(place / NAME))
    with pytest.raises(ProfileFormatError, match="Permission denied"):
        read_recording(str(place / "cpu-hard-1.pb.gz"))
    folder.remove(folder.recordings())
    assert (private / NAME).read_bytes() == SECRET


def test_a_name_that_is_taken_by_a_link_is_not_written_through(home: Path, private: Path) -> None:
    place = own_folder(home)
    (place / NAME).symlink_to(private / "new")

    saved = save_recording(OWN, NAME)

    assert saved.name == "cpu-shop-1-2.pb.gz"
    assert sorted(path.name for path in private.iterdir()) == [NAME]


def test_a_folder_that_is_exchanged_all_the_time_leads_nowhere_else(home: Path, private: Path) -> None:
    place = own_folder(home)
    resort = home.parent / "missing"
    resort.mkdir()
    resort.chmod(0o1777)
    words = ["setpriv", *AS_CALLER, "/usr/bin/python3", "-c", SWAP]
    swapping = subprocess.Popen([*words, str(place), str(private)], stdout=subprocess.PIPE)
    try:
        assert swapping.stdout
        if swapping.stdout.readline() != b"ready\n":
            pytest.skip("another user cannot run /usr/bin/python3")
        for number in range(100):
            save_recording(OWN, f"cpu-{number}.pb.gz")
            with suppress(OSError), files.in_profile_folder(create=True) as opened:
                Spool(opened, f"{number}.spool").close()
            folder.recordings()
    finally:
        swapping.kill()
        with swapping:
            swapping.wait()

    made = [path for where in (home, resort) for path in where.rglob("*") if path.suffix in (".gz", ".spool")]
    assert len(made) > 100
    assert {owner_and_mode(path) for path in made} == {(US, 0o600)}
    assert sorted(path.name for path in private.iterdir()) == [NAME]


@pytest.mark.parametrize("is_sudo", [True, False], ids=["sudo", "root"])
def test_files_that_are_exchanged_before_they_get_their_name_lead_nowhere_else(
    is_sudo: bool, home: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of `-o` belongs to another user, who puts a link to root's file in place of each temporary one."""
    if not is_sudo:
        monkeypatch.delenv("SUDO_UID")
    words = ["setpriv", *AS_CALLER, "/usr/bin/python3", "-c", SWAP_FILES]
    swapping = subprocess.Popen([*words, str(home), str(private / NAME)], stdout=subprocess.PIPE)
    exchanged = 0
    try:
        assert swapping.stdout
        if swapping.stdout.readline() != b"ready\n":
            pytest.skip("another user cannot run /usr/bin/python3")
        for number in range(2_000):
            with suppress(OutputError):
                save(OWN, home / f"{number}.pb.gz", force=True)
            exchanged += (home / f"{number}.pb.gz").is_symlink()
            if exchanged > 20:
                break
    finally:
        swapping.kill()
        with swapping:
            swapping.wait()

    assert exchanged, "the attacker was never fast enough: nothing was tried"
    assert (private / NAME).read_bytes() == SECRET
    assert owner_and_mode(private / NAME) == (0, 0o600)
    assert sorted(path.name for path in private.iterdir()) == [NAME]


def test_nobody_is_asked_for_without_sudo_and_for_no_such_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for said in (str(US), "", "-1", "4294967295", "99999999999", "٣", "0x1"):
        monkeypatch.setenv("SUDO_UID", said)
        assert files.profile_folder() == home.parent / "elsewhere"
