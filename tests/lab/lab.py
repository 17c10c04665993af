"""The lab's nodes from Python: what is laid over the image's root filesystem, up, exec and down (node.sh), and `init` watched from outside.

Standard library only. Every wait has a deadline; a Failed carries the reason that the test's line shows."""
import contextlib, fcntl, os, re, shutil, signal, subprocess, tempfile, threading, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
UPSTREAM = "/usr/local/lib/upstream/kubeadm"  # on the node, out of PATH: the oracle
CONFIG = "/lab/kubeadm.yaml"
TOKEN = re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b")


class Failed(AssertionError):
    """A check does not hold; the message says what was seen."""


def tail(text, lines=15):
    """The end of an output, lines cut to a readable length, with bootstrap tokens withheld."""
    return TOKEN.sub("<token>", "\n".join(line[:240] for line in text.strip().splitlines()[-lines:]))


def run(*command, timeout=60, stdin=None, env=None):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, input=stdin, env=env)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(map(str, command))}: no end after {timeout} s") from None
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}: {tail(done.stderr or done.stdout, 5)}")
    return done.stdout


def built(what):
    """The cached folder that `image/build WHAT` fills and prints; its progress goes to our stderr."""
    done = subprocess.run([PROJECT / "image/build", what], stdout=subprocess.PIPE, text=True)
    if done.returncode or not done.stdout.strip():
        raise Failed(f"image/build {what}: exit {done.returncode}")
    return Path(done.stdout.split()[-1])


class Lab:
    """The state folder, with the layer that goes over the image's root filesystem: the stand-ins, the configuration, the binary under test."""

    def __init__(self, kubeadm=None):
        """kubeadm: our binary; without, upstream's is the one under test."""
        self.lock = open("/run/lock/rekindle-lab", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)  # names and addresses are the machine's: a second run waits until the first has ended
        self.own = "REKINDLE_LAB" not in os.environ
        self.dir = Path(tempfile.mkdtemp(prefix="rekindle-lab-") if self.own else os.environ["REKINDLE_LAB"]).resolve()
        rootfs = os.environ.get("REKINDLE_LAB_ROOTFS") or built("rootfs")
        self.env = {**os.environ, "REKINDLE_LAB": str(self.dir), "REKINDLE_LAB_ROOTFS": str(rootfs)}
        upstream, files = built("upstream"), self.dir / "files"
        shutil.rmtree(files, ignore_errors=True)
        put = lambda source, to: (to.parent.mkdir(parents=True, exist_ok=True), shutil.copy(source, to))
        put(HERE / "node/containerd.toml", files / "etc/containerd/config.toml")
        put(HERE / "node/10-bridge.conflist", files / "etc/cni/net.d/10-bridge.conflist")
        for name in ("kubeadm.yaml", "probe.yaml"):
            put(HERE / "node" / name, files / "lab" / name)
        for name in ("nodeinit", "systemctl", "runc-lab"):
            put(HERE / "node" / name, files / "usr/local/bin" / name)
        put(upstream / "kubectl", files / "usr/local/bin/kubectl")
        put(upstream / "kubeadm", files / UPSTREAM[1:])
        (files / "usr/bin").mkdir()
        if kubeadm:
            put(kubeadm, files / "usr/bin/rekindle")
            (files / "usr/bin/kubeadm").symlink_to("rekindle")
        else:
            (files / "usr/bin/kubeadm").symlink_to(UPSTREAM)

    def remove(self):
        if self.own:
            shutil.rmtree(self.dir)


class Node:
    def __init__(self, lab, name, ip):
        self.lab, self.name, self.ip = lab, name, ip
        self.dir = lab.dir / "nodes" / name
        self.etc = self.dir / "up/etc/kubernetes"  # /etc/kubernetes as the node wrote it, read from outside
        self.life = None

    def node_sh(self, verb, *words):
        return [str(HERE / "node.sh"), verb, self.name, *words]

    def up(self):
        script = self.lab.dir / "script"
        script.write_text("echo up; sleep infinity\n")
        self.life = subprocess.Popen(self.node_sh("up", self.ip, str(script)), stdout=subprocess.PIPE, text=True, env=self.lab.env, start_new_session=True)
        if self.life.stdout.readline() != "up\n":  # ends at the latest with nodeinit, which waits 10 s for containerd
            raise Failed(f"node {self.name} did not come up: exit {self.life.wait()}")

    def down(self):
        run(*self.node_sh("down"), env=self.lab.env)
        if self.life:
            self.life.wait(10)
            self.life.stdout.close()
            self.life = None

    def exec(self, *command, timeout=60, stdin=None):
        return run(*self.node_sh("exec", *command), timeout=timeout, stdin=stdin, env=self.lab.env)

    def kubectl(self, *words, timeout=60, stdin=None):
        return self.exec("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", *words, timeout=timeout, stdin=stdin)

    def diagnose(self):
        """What a person needs to see why: the ends of the logs, containers, pods. Never fails itself."""
        for title, command in (("pods", "kubectl --kubeconfig=/etc/kubernetes/admin.conf get pods -A -o wide 2>&1"),
                               ("containers", "ctr -n k8s.io c ls; ctr -n k8s.io t ls"),
                               ("kubelet", "grep -E '^E|^F' /var/log/kubelet.log | tail -15; tail -5 /var/log/kubelet.log"),
                               ("containerd", "grep -v 'level=info' /var/log/containerd.log | tail -15"),
                               ("pod logs", "tail -n 4 /var/log/pods/*/*/*.log")):
            try:
                shown = self.exec("bash", "-c", command, timeout=20)
            except (Failed, subprocess.SubprocessError) as error:
                shown = str(error)
            print(f"--- {self.name}: {title}\n{tail(shown, 60)}", flush=True)


class Init:
    """One run of `kubeadm init`, watched: its lines as they come, its wall time, and the peak memory of the process alone.

    The peak is the kernel's VmHWM, read every 10 ms to the end. rusage is of no use: it takes in the children, and `kubelet --version` alone is over 60 MiB."""

    def __init__(self, node):
        self.start = time.monotonic()
        self.lines, self.peak, self.seconds, self.pid = [], 0, None, None
        self.log = node.lab.dir / f"init-{node.name}.log"
        self.process = subprocess.Popen(node.node_sh("exec", "kubeadm", "init", "--config", CONFIG), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL, text=True, env=node.lab.env)
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def _watch(self):
        while self.process.poll() is None:
            try:
                self.pid = self.pid or self._find()
                if self.pid and (seen := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())):
                    self.peak = max(self.peak, int(seen[1]))
            except OSError:
                pass  # gone: the last reading stands
            time.sleep(0.01)

    def _find(self):
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "kubeadm\n":
                return int(child)
        return None

    def end(self, on_line=lambda line: None, deadline=300):
        """Reads to the end and returns the exit code."""
        alarm = threading.Timer(deadline, self.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                on_line(line)
            code = self.process.wait()
        finally:
            alarm.cancel()
        self.watch.join()
        self.seconds = time.monotonic() - self.start
        self.log.write_text("".join(self.lines))
        return code

    def kill(self):
        """The process itself, as SIGKILL finds it; what it started, such as the kubelet, goes on."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):  # it was quicker: its exit code tells how it ended
                os.kill(self.pid, signal.SIGKILL)
        else:
            self.process.kill()
