#!/usr/bin/env python3
"""disk.py: a whole disk, from a root filesystem, our binary, GRUB and a directory for /oem. No loop device, no mount, and the same bytes for the same input.

    BIOS boot | ESP COS_GRUB | COS_OEM | COS_RECOVERY /cOS/recovery.img | COS_STATE /cOS/{active,passive}.img | COS_PERSISTENT

The tools that write file systems and boot loaders are those of the Debian tree that the image itself is made from, whatever the machine has.
"""
import argparse, hashlib, io, os, shutil, struct, subprocess, sys, tarfile, tempfile, time, uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
EPOCH = os.environ["SOURCE_DATE_EPOCH"]
MIB = 1 << 20
TYPES = {"bios": "21686148-6449-6E6F-744E-656564454649", "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
COMMON = "memdisk tar part_gpt ext2 normal search search_label loopback linux configfile loadenv echo test true serial terminal minicmd ls cat help reboot halt sleep".split()


def guid(label):
    """Kairos' rule: the GUID of a partition follows from its label, so that every node's are known."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, label))


class Steps:
    """Says how long each step took."""

    def __init__(self):
        self.last = time.monotonic()

    def done(self, what):
        now = time.monotonic()
        print(f"image: {now - self.last:5.1f} s  {what}", file=sys.stderr)
        self.last = now


class Tools:
    """Programs of the Debian tree, run with its own libraries and without entering it."""

    def __init__(self, root):
        self.root = root

    def run(self, program, *args, **more):
        env = {**os.environ, "MKE2FS_CONFIG": f"{self.root}/etc/mke2fs.conf", "E2FSPROGS_FAKE_TIME": EPOCH, "MKE2FS_SYNC": "0"}
        library = f"{self.root}/usr/lib/x86_64-linux-gnu"
        subprocess.run([f"{library}/ld-linux-x86-64.so.2", "--library-path", library, f"{self.root}/usr/{program}", *map(str, args)],
                       env=env, check=True, stdout=subprocess.DEVNULL, **more)

    def ext4(self, path, label, size, tree=None, offset=0, features=(), usage=()):
        extended = ["nodiscard", "assume_storage_prezeroed=1", f"hash_seed={guid(label)}", *([f"offset={offset}"] if offset else [])]
        # What GRUB 2.06 could not read either stays out of every file system that GRUB looks at.
        off = ["^metadata_csum_seed", "^orphan_file", *features]
        self.run("sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", 4096, "-L", label, "-U", guid(label), "-O", ",".join(off), "-E", ",".join(extended), *usage,
                 *(["-d", tree] if tree else []), path, f"{size // 1024}k")


def copy_over(source, target):
    """Copies a tree over another, replacing files by new ones: the old ones are hard links into the cache."""
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir() and not path.is_symlink():
            to.mkdir(exist_ok=True)
        else:
            to.unlink(missing_ok=True)
            shutil.copy2(path, to, follow_symlinks=False)


def make_tree(work, args):
    """The tree of the system image: the cached root filesystem by hard links, the overlay, our binary, the initramfs."""
    tree = work / "tree"
    subprocess.run(["cp", "-al", args.rootfs, tree], check=True)
    copy_over(args.overlay, tree)
    for place in ("oem", "usr/local", "run", "proc", "sys", "dev", "tmp", "system/oem", "opt/cni/bin"):
        (tree / place).mkdir(parents=True, exist_ok=True)
    for plugin in (tree / "usr/lib/cni").iterdir():
        link = tree / "opt/cni/bin" / plugin.name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/lib/cni/{plugin.name}")
    # The menu is part of the image, as in Kairos: a state reset puts the image's own on the state partition.
    shutil.copy(args.grub / "grub.cfg", tree / "etc/cos/grub.cfg")
    binary = tree / "usr/bin/rekindle"
    shutil.copy(args.binary, binary)
    binary.chmod(0o755)
    for name in ("kubeadm", "grub2-editenv"):
        (tree / "usr/bin" / name).symlink_to("rekindle")
    subprocess.run(["chroot", tree, "systemctl", "--quiet", "preset-all"], check=True, stderr=subprocess.DEVNULL)
    modules = next((tree / "usr/lib/modules").iterdir())
    subprocess.run([HERE / "initrd.py", binary, modules, tree / "boot/initrd"], check=True)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir() or path.lstat().st_mtime > int(EPOCH):
            os.utime(path, (int(EPOCH), int(EPOCH)), follow_symlinks=False)
    return tree


def image_size(tree):
    """Bytes of a file system that holds the tree with little to spare, and its number of inodes."""
    files, blocks = set(), 0
    for path in tree.rglob("*"):
        status = path.lstat()
        if status.st_ino not in files:
            files.add(status.st_ino)
            blocks += -(-status.st_size // 4096) + 1 if not path.is_symlink() else 0
    inodes = len(files) + 256
    size = int(blocks * 4096 * 1.01) + inodes * 256 + 12 * MIB
    return -(-size // MIB) * MIB, inodes


def make_images(tools, tree, work):
    """active, passive and recovery: one content, three labels. No journal and no checksums: they are read-only, and vouched for by their digest."""
    size, inodes = image_size(tree)
    first = work / "active.img"
    with open(first, "wb") as file:
        file.truncate(size)
    tools.ext4(first, "COS_ACTIVE", size, tree, features=("^has_journal", "^metadata_csum", "^64bit", "^resize_inode"), usage=("-m", 0, "-N", inodes, "-i", 65536))
    for name, label in (("passive", "COS_PASSIVE"), ("recovery", "COS_SYSTEM")):
        subprocess.run(["cp", "--sparse=auto", "--reflink=auto", first, work / f"{name}.img"], check=True)
        tools.run("sbin/tune2fs", "-L", label, work / f"{name}.img")
    return size


def place(work, partition, files):
    """A directory that becomes a partition: {path in it: file to move or text}."""
    root = work / partition
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            os.rename(source, path) if source.parent == work else shutil.copy(source, path)
        else:
            path.write_bytes(source)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (int(EPOCH), int(EPOCH)))
    return root


def grub_environment(options):
    text = "# GRUB Environment Block\n" + "".join(f"{key}={value}\n" for key, value in options.items())
    return text.ljust(1024, "#").encode()


def grub_image(tools, args, work, target, extra):
    """GRUB's core with all it needs built in, and the first configuration on a disk in memory: a configuration given with -c could hold no conditions."""
    out, memory = work / f"{target}.core", work / "memory.tar"
    with tarfile.open(memory, "w") as tar:
        info = tarfile.TarInfo("grub.cfg")
        text = (args.grub / "early.cfg").read_bytes()
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    tools.run("bin/grub-mkimage", "-O", target, "-d", f"{args.debian}/usr/lib/grub/{target}", "-m", memory, "-p", "(memdisk)/", "-o", out, *COMMON, *extra)
    return out


def make_esp(work, core, path, size):
    """The ESP: GRUB at the removable medium's path, which firmware finds without a boot variable."""
    with open(path, "wb") as file:
        file.truncate(size)
    os.utime(core, (int(EPOCH), int(EPOCH)))
    subprocess.run(["mkfs.vfat", "-F", "32", "-n", "COS_GRUB", "-i", guid("COS_GRUB")[:8], "--invariant", path], check=True, stdout=subprocess.DEVNULL)
    for step in (["mmd", "::EFI", "::EFI/boot"], ["mcopy", "-m", core, "::EFI/boot/bootx64.efi"]):
        subprocess.run([step[0], "-i", path, *step[1:]], check=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})


def partition(out, size, parts):
    """Writes the table; parts are (name, label, MiB), the last one takes the rest. Returns {name: (offset, length)}."""
    table, start, places = [f"label: gpt\nlabel-id: {guid('KAIROS_DISK')}\nfirst-lba: 34"], 1, {}
    for name, label, length in parts:
        length = length or size // MIB - start - 1
        table.append(f"start={start * 2048}, size={length * 2048}, type={TYPES.get(name, LINUX)}, uuid={guid(label)}, name={name}")
        places[name] = (start * MIB, length * MIB)
        start += length
    if places["persistent"][1] < 512 * MIB:
        sys.exit(f"disk.py: {size // MIB} MiB leave {places['persistent'][1] // MIB} MiB for COS_PERSISTENT; 512 are the least: give a larger --size")
    with open(out, "wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "-q", out], input="\n".join(table), text=True, check=True)
    return places


def write_at(out, source, offset):
    subprocess.run(["dd", f"if={source}", f"of={out}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse", "status=none"], check=True)


def install_bios_grub(args, core_path, out, offset):
    """What grub-bios-setup does, without a block device: the boot sector knows where the core begins, the core's first sector where the rest is."""
    boot = bytearray(Path(f"{args.debian}/usr/lib/grub/i386-pc/boot.img").read_bytes())
    core = bytearray(core_path.read_bytes())
    core += b"\0" * (-len(core) % 512)
    if len(core) > MIB:
        sys.exit(f"disk.py: GRUB's core has {len(core)} bytes, more than the boot partition of 1 MiB")
    sector = offset // 512
    struct.pack_into("<Q", boot, 0x5C, sector)
    boot[0x66:0x68] = b"\x90\x90"  # a jump over the drive check becomes nothing, as for a hard disk
    struct.pack_into("<QHH", core, 0x1F4, sector + 1, len(core) // 512 - 1, 0x820)
    with open(out, "r+b") as disk:
        disk.write(boot[:440])
        disk.seek(offset)
        disk.write(core)


def build(args, work):
    steps, tools = Steps(), Tools(args.debian)
    tree = make_tree(work, args)
    steps.done("tree with initramfs of %.1f MiB" % ((tree / "boot/initrd").stat().st_size / MIB))
    size = make_images(tools, tree, work)
    steps.done(f"system images of {size // MIB} MiB")
    with open(work / "recovery.img", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
    menu = args.grub / "grub.cfg"
    state = place(work, "state", {"cOS/active.img": work / "active.img", "cOS/passive.img": work / "passive.img", "grub2/grub.cfg": menu})
    recovery = place(work, "recovery", {"cOS/recovery.img": work / "recovery.img", "cOS/recovery.img.sha256": f"{digest}  recovery.img\n".encode(), "grub2/grub.cfg": menu})
    oem = place(work, "oem", {**{str(p.relative_to(args.oem)): p for p in sorted(args.oem.rglob("*")) if p.is_file()},
                              "grubenv": grub_environment({"extra_cmdline": args.cmdline} if args.cmdline else {})})
    steps.done("digest of the recovery image")
    room = lambda count: -(-int(size * count * 1.1) // MIB) + 64   # an upgrade or a reset writes its new image beside the old ones
    part = work / "disk.img"
    places = partition(part, args.size, [("bios", "bios", 1), ("efi", "COS_GRUB", 64), ("oem", "COS_OEM", 64), ("recovery", "COS_RECOVERY", room(1)),
                                         ("state", "COS_STATE", room(3)), ("persistent", "COS_PERSISTENT", None)])
    for name, label, source in (("oem", "COS_OEM", oem), ("recovery", "COS_RECOVERY", recovery), ("state", "COS_STATE", state), ("persistent", "COS_PERSISTENT", None)):
        tools.ext4(part, label, places[name][1], source, offset=places[name][0], usage=("-m", 0))
    steps.done("partitions")
    make_esp(work, grub_image(tools, args, work, "x86_64-efi", ["fat", "all_video", "efi_gop"]), work / "esp", places["efi"][1])
    write_at(part, work / "esp", places["efi"][0])
    install_bios_grub(args, grub_image(tools, args, work, "i386-pc", ["biosdisk"]), part, places["bios"][0])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(part, args.out)
    steps.done(f"GRUB for both firmwares; {args.out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("rootfs", "debian", "overlay", "grub", "oem", "binary", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8192, help="MiB (default %(default)s)", metavar="MIB")
    parser.add_argument("--cmdline", default="", help="kernel arguments for grubenv's extra_cmdline")
    args = parser.parse_args()
    args.size *= MIB
    # Beside the cached tree: hard links need one file system.
    with tempfile.TemporaryDirectory(prefix="disk.", dir=args.rootfs.parent.parent) as work:
        build(args, Path(work))


if __name__ == "__main__":
    main()
