#!/usr/bin/env python3
"""initrd.py INIT MODULES OUT: the initramfs, which is our binary as /init and the few kernel modules it needs to find the disks.

MODULES is a /usr/lib/modules/VERSION. Modules travel decompressed (the initramfs as a whole is compressed, and /init then needs no xz) with the lines of
modules.dep, modules.softdep and modules.alias that speak of them, as depmod wrote them. The archive is written here, byte for byte the same for the same input.
"""
import lzma, os, subprocess, sys

# What a system disk can hang on, and what is mounted from it. What the kernel has built in (NVMe, virtio-pci, ext4) is not missed.
WANTED = """virtio_blk virtio_scsi virtio_mmio ahci ata_piix ata_generic sd_mod nvme xen-blkfront hv_storvsc hv_vmbus vmw_pvscsi mptspi
            loop overlay vfat nls_cp437 nls_ascii nls_iso8859-1 squashfs""".split()


def lines(path):
    with open(path) as file:
        return [line.rstrip("\n") for line in file if not line.startswith("#")]


def name_of(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def closure(root):
    """The wanted modules and all they depend on, as {path: [paths]} in the order of modules.dep."""
    depends = {}
    for line in lines(f"{root}/modules.dep"):
        path, _, rest = line.partition(":")
        depends[path] = rest.split()
    by_name = {name_of(path): path for path in depends}
    soft = {}
    for line in lines(f"{root}/modules.softdep"):
        _, module, *names = line.split()
        soft.setdefault(module, []).extend(by_name[n.replace("-", "_")] for n in names if n.replace("-", "_") in by_name)
    todo, chosen = [by_name[n.replace("-", "_")] for n in WANTED if n.replace("-", "_") in by_name], set()
    while todo:
        path = todo.pop()
        if path not in chosen:
            chosen.add(path)
            todo += depends[path] + soft.get(name_of(path), [])
    return {path: depends[path] for path in depends if path in chosen}


class Archive:
    """A newc cpio with every time, owner and inode number fixed."""

    def __init__(self):
        self.bytes, self.inode, self.seen = bytearray(), 0, set()

    def add(self, name, mode, data=b""):
        parent = os.path.dirname(name)
        if parent and parent not in self.seen:
            self.add(parent, 0o40755)
        self.seen.add(name)
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        self.bytes += b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
        self.bytes += b"\0" * (-len(self.bytes) % 4) + data
        self.bytes += b"\0" * (-len(self.bytes) % 4)

    def finish(self):
        self.inode = -1
        self.add("TRAILER!!!", 0)
        return bytes(self.bytes)


def plain(path):
    with open(path, "rb") as file:
        data = file.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def build(init, root):
    archive = Archive()
    for name in ("dev", "proc", "sys", "run", "sysroot"):
        archive.add(name, 0o40755)
    archive.add("init", 0o100755, plain(init))
    home = f"lib/modules/{os.path.basename(root)}"
    chosen = closure(root)
    bare = lambda path: path.removesuffix(".xz")
    for path in sorted(chosen):
        archive.add(f"{home}/{bare(path)}", 0o100644, plain(f"{root}/{path}"))
    names = {name_of(path) for path in chosen}
    mine = lambda file, field: "".join(f"{line}\n" for line in lines(f"{root}/{file}") if line.split()[field].replace("-", "_") in names).encode()
    archive.add(f"{home}/modules.dep", 0o100644, "".join(f"{bare(p)}: {' '.join(map(bare, d))}".rstrip() + "\n" for p, d in chosen.items()).encode())
    archive.add(f"{home}/modules.alias", 0o100644, mine("modules.alias", 2))
    archive.add(f"{home}/modules.softdep", 0o100644, mine("modules.softdep", 1))
    archive.add(f"{home}/modules.builtin", 0o100644, plain(f"{root}/modules.builtin"))
    return archive.finish()


def main():
    init, root, out = sys.argv[1:]
    packed = subprocess.run(["zstd", "-q", "-19", "-T2", "-c"], input=build(init, root.rstrip("/")), stdout=subprocess.PIPE, check=True).stdout
    with open(out, "wb") as file:
        file.write(packed)


if __name__ == "__main__":
    main()
