#!/usr/bin/env python3
"""grub.py [DISK KERNEL]: what the boot menu decides, in real GRUB from the real disk image (built here if none is given).

Every case states the environment block on COS_OEM and what is damaged, then which image the kernel must be told to boot, with which arguments, and the block
afterwards. The oracles are not ours: the kernel's own report of its command line on the serial console, and GRUB's grub-editenv for the block.
"""
import json, os, re, subprocess, sys, tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from qemu import Failed, Machine, run

ROOT = Path(__file__).resolve().parent.parent.parent
SHOW = "loglevel=6"  # makes the kernel print its command line
ACTIVE, PASSIVE, SYSTEM = "COS_ACTIVE", "COS_PASSIVE", "COS_SYSTEM"
BLOCK = 1024

# name, block before (a dict, or bytes of a damaged one, or None for no file), files lost, label booted, arguments present, arguments absent, block after
CASES = [
    ("an empty block boots the system", {}, [], ACTIVE, [], ["kairos.reset"], {}),
    ("next_entry is for one boot", {"next_entry": "recovery"}, [], SYSTEM, ["cos-img/filename=/cOS/recovery.img"], ["kairos.reset"], {"next_entry": ""}),
    ("a pending reset stays", {"next_entry": "statereset"}, [], SYSTEM, ["kairos.reset"], [], {"next_entry": "statereset"}),
    ("saved_entry is for every boot", {"saved_entry": "fallback"}, [], PASSIVE, ["cos-img/filename=/cOS/passive.img"], [], {"saved_entry": "fallback"}),
    ("next_entry goes before saved_entry", {"saved_entry": "fallback", "next_entry": "cos"}, [], ACTIVE, [], [], {"saved_entry": "fallback", "next_entry": ""}),
    ("an unknown entry boots the system", {"next_entry": "nonsense"}, [], ACTIVE, [], [], {"next_entry": ""}),
    ("extra arguments of the system", {"extra_active_cmdline": "a=1 b=2", "extra_passive_cmdline": "c=3", "extra_recovery_cmdline": "d=4"}, [], ACTIVE, ["a=1", "b=2"], ["c=3", "d=4"], None),
    ("extra arguments of the reset", {"next_entry": "statereset", "extra_active_cmdline": "a=1", "extra_recovery_cmdline": "d=4 e=5"}, [], SYSTEM, ["kairos.reset", "d=4", "e=5"], ["a=1"], None),
    ("a damaged block stops nothing", b"\xffno environment" * 60, [], ACTIVE, [], [], None),
    ("nor does a missing one", None, [], ACTIVE, [], [], None),
    ("a lost system falls back", {}, ["state:/cOS/active.img"], PASSIVE, [], [], None),
    ("where default_fallback says", {"default_fallback": "2 1"}, ["state:/cOS/active.img"], SYSTEM, [], ["kairos.reset"], None),
    ("both systems lost: recovery", {}, ["state:/cOS/active.img", "state:/cOS/passive.img"], SYSTEM, [], ["kairos.reset"], None),
    ("a reset without its image boots the system and stays pending", {"next_entry": "statereset"}, ["recovery:/cOS/recovery.img"], ACTIVE, [], ["kairos.reset"], {"next_entry": "statereset"}),
    ("a lost menu is found beside the recovery image", {}, ["state:/grub2/grub.cfg"], ACTIVE, [], [], None),
]


class Disk:
    """The disk file's partitions, edited with debugfs while no machine runs."""

    def __init__(self, path, work):
        self.path, self.work = path, work
        table = json.loads(run("sfdisk", "--json", path))["partitiontable"]["partitions"]
        self.offsets = {part["name"]: part["start"] * 512 for part in table}

    def debugfs(self, name, *commands):
        script = self.work / "commands"
        script.write_text("\n".join(commands) + "\n")
        return run("debugfs", "-w", "-f", script, f"{self.path}?offset={self.offsets[name]}")

    def write_block(self, block):
        commands = ["rm /grubenv"]
        if block is not None:
            data = block if isinstance(block, bytes) else ("# GRUB Environment Block\n" + "".join(f"{k}={v}\n" for k, v in block.items())).encode()
            (self.work / "grubenv").write_bytes(data[:BLOCK].ljust(BLOCK, b"#"))
            commands.append(f"write {self.work}/grubenv /grubenv")
        self.debugfs("oem", *commands)

    def read_block(self):
        copy = self.work / "read"
        copy.unlink(missing_ok=True)
        self.debugfs("oem", f"dump /grubenv {copy}")
        return dict(line.split("=", 1) for line in run("grub-editenv", copy, "list").splitlines())

    def lose(self, lost):
        """Puts rubbish in a file's place and keeps the file under another name."""
        name, path = lost.split(":")
        rubbish = self.work / "rubbish"
        rubbish.write_bytes(b"rubbish\n" * 4096)
        size = lambda: int(re.search(r"Size: (\d+)", self.debugfs(name, f"stat {path}"))[1])
        before = size()
        self.debugfs(name, f"ln {path} {kept(path)}", f"unlink {path}", f"write {rubbish} {path}")
        if size() == before:
            raise Failed(f"debugfs did not replace {lost}")

    def restore(self, lost):
        name, path = lost.split(":")
        self.debugfs(name, f"rm {path}", f"ln {kept(path)} {path}", f"unlink {kept(path)}")


def kept(path):
    """Each lost file has a name of its own: two may be lost at once."""
    return f"/kept.{Path(path).name}"


def boots(disk, kernel, firmware):
    """The command line of the kernel that this disk boots."""
    with Machine(disk.path, kernel, firmware=firmware, memory=1024, direct=True, cache="writeback", more=["-no-reboot"]) as machine:
        match, _ = machine.wait_console(r"Kernel command line: ([^\r\n]*)[\r\n]", 60)
        return match[1].decode().split()


def check(case, disk, kernel, firmware):
    _, before, lost, label, present, absent, after = case
    if isinstance(before, dict):
        before = {"extra_cmdline": SHOW, **before}
    disk.write_block(before)
    if not isinstance(before, dict):  # no block to ask for the report in: the image's own arguments must
        disk.debugfs("state", "rm /grubcustom", f"write {custom(disk)} /grubcustom")
    for file in lost:
        disk.lose(file)
    try:
        arguments = boots(disk, kernel, firmware)
    finally:
        for file in lost:
            disk.restore(file)
        disk.debugfs("state", "rm /grubcustom")
    wrong = [f"without {a}" for a in [f"root=LABEL={label}", *present] if a not in arguments] + [f"with {a}" for a in absent if a in arguments]
    if after is not None:
        block = disk.read_block()
        wrong += [f"then {key}={block.get(key, '')!r} in the block" for key, value in after.items() if block.get(key, "") != value]
    return wrong and f"booted {', '.join(wrong)}; the kernel had: {' '.join(arguments)}"


def custom(disk):
    path = disk.work / "grubcustom"
    path.write_text(f"set extra_cmdline={SHOW}\n")
    return path


def build(work):
    """The disk as image/build makes it, and the kernel for probing KVM. What the disk boots into does not matter: the kernel's first lines are enough."""
    binary = ["--binary", os.environ["REKINDLE_BIN"]] if "REKINDLE_BIN" in os.environ else []
    subprocess.run([ROOT / "image/build", "--out", work / "disk.img", *binary], check=True)
    return work / "disk.img", Path(run(ROOT / "image/build", "rootfs").strip()) / "boot/vmlinuz"


def main():
    failed, passed = 0, 0
    with tempfile.TemporaryDirectory(prefix="grub.") as name:
        work = Path(name)
        if len(sys.argv) == 3:
            kernel = Path(sys.argv[2])
            run("cp", "--sparse=auto", "--reflink=auto", sys.argv[1], work / "disk.img")
        else:
            _, kernel = build(work)
        disk = Disk(work / "disk.img", work)
        for firmware, cases in (("bios", CASES), ("efi", [CASES[2], CASES[10]])):
            for case in cases:
                try:
                    problem = check(case, disk, kernel, firmware)
                except Failed as failure:
                    problem = str(failure)
                failed, passed = failed + bool(problem), passed + (not problem)
                print(f"{'FAIL' if problem else 'ok  '} {firmware}: {case[0]}{': ' + problem if problem else ''}", flush=True)
    print(f"{passed} passed, {failed} failed", file=sys.stderr)  # one promise a line on the output, which tests/vm/run reads
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
