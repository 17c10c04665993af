"""A machine for the tests: boots a disk image in QEMU, reads what it says, types to it, cuts its power.

The first serial port is the console, for people and for GRUB's menu. The second carries the node's events, one JSON object a line, which are what
tests wait for. The disk itself is never written: every machine works on a thin copy, so that a power cut (which keeps that copy) and a fresh start
differ only in whether the copy is kept. Every wait has a deadline and, when it passes, shows the end of the console. Standard library only.
"""
import functools, json, os, re, shutil, signal, socket, subprocess, tempfile, threading, time
from pathlib import Path

OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")


class Failed(AssertionError):
    """A deadline passed or the machine ended; the message carries the end of its console."""


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def qemu_version():
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", run("qemu-system-x86_64", "--version")).groups()))


@functools.cache
def accelerator(kernel):
    """KVM where it really runs the image's kernel, software emulation elsewhere: some hosts have /dev/kvm, answer, and then hang.

    The kernel is started without a root; under a KVM that works it panics for want of one, and QEMU ends, well within the deadline."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        probe = ["qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "512", "-display", "none", "-nic", "none", "-no-reboot", "-serial", "stdio",
                 "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
        try:
            done = subprocess.run(probe, capture_output=True, timeout=12, stdin=subprocess.DEVNULL)
            if b"Linux version" in done.stdout:
                return ["-accel", "kvm", "-cpu", "host"]
        except subprocess.TimeoutExpired:
            pass  # run() has ended the process it started
    # Before 9.0, cmpxchg16b under multi-threaded emulation corrupts the guest; without the instruction the kernel does not use it.
    return ["-accel", "tcg,thread=multi", "-cpu", "max" if qemu_version() >= (9, 0) else "max,-cx16"]


class Port:
    """One serial port: a thread keeps what it says, line by line with the host's clock, and a log of it stays on disk."""

    def __init__(self, path, changed, log):
        self.path, self.changed, self.log = path, changed, log
        self.text, self.lines, self.socket, self.open = b"", [], None, False

    def arguments(self, name):
        return ["-chardev", f"socket,id={name},path={self.path},server=on,wait=on", "-serial", f"chardev:{name}"]

    def connect(self, deadline):
        self.socket = connect(self.path, deadline)
        self.open = True
        threading.Thread(target=self.read, args=(self.socket,), daemon=True).start()

    def read(self, stream):
        rest = b""
        with open(self.log, "ab") as log:
            while data := receive(stream):
                log.write(data)
                log.flush()
                now = time.monotonic()
                *whole, rest = (rest + data).split(b"\n")
                with self.changed:
                    self.text += data
                    self.lines += [(now, line.decode(errors="replace").strip("\r")) for line in whole]
                    self.changed.notify_all()
        with self.changed:
            self.open = False
            self.changed.notify_all()


def receive(stream):
    try:
        return stream.recv(65536)
    except OSError:
        return b""  # a machine whose power was cut


def connect(path, deadline):
    """QEMU makes its sockets a moment after it starts."""
    waiting = threading.Event()
    while True:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(path))
            return stream
        except OSError as error:
            stream.close()
            if time.monotonic() > deadline:
                raise Failed(f"QEMU did not open {path}: {error}") from error
            waiting.wait(0.02)


class Machine:
    """One virtual machine. `start`, then wait for what it says; `cut` takes its power away; `start` again goes on with the same disk."""

    def __init__(self, disk, kernel, firmware="bios", memory=4096, cpus=2, cache="unsafe", work=None, more=(), direct=False):
        """direct: on the disk file itself, for a test that reads it afterwards; otherwise on a thin copy."""
        self.disk, self.kernel, self.firmware, self.memory, self.cpus, self.cache, self.more = Path(disk), kernel, firmware, memory, cpus, cache, list(more)
        self.work = Path(work or tempfile.mkdtemp(prefix="vm."))
        self.work.mkdir(parents=True, exist_ok=True)
        self.own_work = work is None
        self.changed = threading.Condition()
        self.process, self.monitor, self.started = None, None, None
        self.api_port, self.console, self.port, self.seen = free_port(), None, None, 0
        self.events = []
        self.drive = (self.disk.resolve(), "raw") if direct else (self.work / "disk.qcow2", "qcow2")
        if not direct:
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.disk.resolve(), self.drive[0])
        if firmware == "efi":
            shutil.copy(OVMF[1], self.work / "efi-variables")

    # Starting and ending

    def command(self):
        serial = [*self.console.arguments("console"), *self.port.arguments("events")]
        efi = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF[0]}", "-drive", f"if=pflash,format=raw,file={self.work}/efi-variables"] if self.firmware == "efi" else []
        return ["qemu-system-x86_64", "-machine", "q35", *accelerator(self.kernel), "-smp", str(self.cpus), "-m", str(self.memory), *efi,
                "-drive", f"file={self.drive[0]},if=virtio,format={self.drive[1]},cache={self.cache},discard=unmap",
                "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.api_port}-:6443", "-device", "virtio-net-pci,netdev=net,romfile=",
                "-display", "none", *serial, "-qmp", f"unix:{self.work}/qmp,server=on,wait=off", *self.more]

    def start(self):
        self.console = Port(self.work / "console", self.changed, self.work / "console.log")
        self.port = Port(self.work / "events", self.changed, self.work / "events.log")
        self.seen = 0
        for path in ("console", "events", "qmp"):
            (self.work / path).unlink(missing_ok=True)
        with open(self.work / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started = time.monotonic()
        try:
            for port in (self.console, self.port):
                port.connect(self.started + 10)
            self.monitor = Monitor(connect(self.work / "qmp", self.started + 10))
        except Failed as failure:
            self.cut()
            raise Failed(f"{failure}\n{(self.work / 'qemu.log').read_text()}") from failure
        return self

    def cut(self):
        """Takes the power away: nothing is flushed, nothing is told. Only this machine's own process."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.cut()
        if self.own_work:
            shutil.rmtree(self.work)

    def reset(self):
        """The reset button."""
        self.monitor.do("system_reset")

    def screenshot(self, path):
        self.monitor.do("screendump", filename=str(path))

    # Speaking and listening

    def send_console(self, text):
        self.console.socket.sendall(text.encode())

    def tail(self, lines=40):
        text = self.console.text.decode(errors="replace") if self.console else ""
        return "\n".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()[-lines:])

    def wait(self, found, what, seconds):
        """Waits until found() gives something, and returns it; fails at the deadline or when the machine ends."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                result = found()
                if result is not None:
                    return result
                left = deadline - time.monotonic()
                ended = not self.console.open
                if left <= 0 or ended:
                    raise Failed(f"{'the machine ended' if ended else f'{seconds} s passed'} while waiting for {what}; its console says:\n{self.tail()}")
                self.changed.wait(left)

    def wait_console(self, pattern, seconds, start=0):
        """The first match of a regular expression on the console, from byte `start` of this start's text; returns (match, end)."""
        compiled = re.compile(pattern.encode())

        def found():
            match = compiled.search(self.console.text, start)
            return match and (match, match.end())

        return self.wait(found, f"/{pattern}/ on the console", seconds)

    def wait_for(self, wanted, seconds, what="an event"):
        """The first event, of those not yet passed over, for which wanted(event) is true; `host` in it is the seconds since the machine's start."""

        def found():
            while self.seen < len(self.port.lines):
                at, line = self.port.lines[self.seen]
                self.seen += 1
                event = parse(line)
                if event is not None:
                    event["host"] = round(at - self.started, 3)
                    self.events.append(event)
                    if wanted(event):
                        return event
            return None

        return self.wait(found, what, seconds)


class Monitor:
    """QEMU's machine protocol, as far as the tests need it."""

    def __init__(self, stream):
        self.file = stream.makefile("rw")
        self.file.readline()
        self.do("qmp_capabilities")

    def do(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while line := self.file.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Failed(f"QEMU ended during {command}")


def parse(line):
    """An event, or nothing for a line that is not a JSON object: a kernel message may share the port."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
