"""A machine that runs rekindle: waits for what it reports, and types commands on its serial console."""
import json, re

from qemu import Failed, Machine

# Under software emulation everything takes about ten times as long as on hardware.
BOOT, READY, COMMAND = 600, 1500, 240


class Node(Machine):
    """What the tests ask of a node, in its own words: events by kind, and a root shell on the console."""

    def action(self, name, seconds=BOOT):
        return self.wait_for(lambda e: e.get("kind") == "action" and e["action"] == name, seconds, f"the action {name}")

    def reached(self, what, seconds=BOOT):
        return self.wait_for(lambda e: e.get("kind") == "reached" and e["what"] == what, seconds, f"the milestone {what}")

    def phase(self, plan, phase, state, seconds=BOOT):
        def wanted(e):
            return e.get("kind") == "phase" and (e["plan"], e["phase"], e["state"]) == (plan, phase, state)

        return self.wait_for(wanted, seconds, f"{plan}: {phase} {state}")

    def ready(self, seconds=READY):
        """Waits for Ready; a provisioning that ends otherwise is told at once, with its reason."""

        def wanted(e):
            if e.get("kind") == "outcome" and e["outcome"] != "done":
                raise Failed(f"{e['plan']} ended {e['outcome']}: {e.get('why')}\n{self.tail()}")
            return e.get("kind") == "reached" and e["what"] == "ready"

        return self.wait_for(wanted, seconds, "Ready")

    def log_in(self):
        """Waits for the root shell that the tests' configuration opens on the console."""
        self.wait_console(r"root@[\w-]+:~# ", BOOT)
        self.shell("stty -echo; dmesg -n 1; export KUBECONFIG=/etc/kubernetes/admin.conf; bind 'set enable-bracketed-paste off'")

    def shell(self, command, seconds=COMMAND, check=True):
        """Runs a command as root and returns what it printed. The marks cannot occur in the echo of the command itself."""
        self.asked = mark = getattr(self, "asked", 0) + 1
        start = len(self.console.text)
        self.send_console(f"echo '@@'begin{mark}; {command}; echo '@@'end{mark} $?\n")
        _, at = self.wait_console(rf"@@begin{mark}\r?\n", seconds, start)
        match, _ = self.wait_console(rf"(?s)(.*?)@@end{mark} (\d+)\r?\n", seconds, at)
        text, code = match.group(1).decode(errors="replace").replace("\r", ""), int(match.group(2))
        if check and code:
            raise Failed(f"{command}: exit code {code}: {text}")
        return text.strip()

    def status(self):
        return json.loads(self.shell("rekindle status -o json"))

    def ca(self):
        """Digest of the cluster's CA."""
        return re.search(r"[0-9a-f]{64}", self.shell("sha256sum /etc/kubernetes/pki/ca.crt")).group()

    def restart(self):
        self.send_console("systemctl reboot\n")
