//! The kernel's announcements of devices, over netlink: how the initramfs waits without sleeping.
//! Format: `ACTION@DEVPATH` and then `KEY=VALUE`, each ended by a NUL byte (Linux, lib/kobject_uevent.c).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use super::clock::Deadline;

/// One announcement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`…
    pub action: String,
    /// `block`, `pci`…
    pub subsystem: String,
    /// What a module must match to drive the device.
    pub modalias: Option<String>,
    /// Name below /dev.
    pub devname: Option<String>,
}

/// An open subscription.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Subscribes. Events from here on are kept until they are read, so subscribe before looking.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn subscribe() -> Result<Uevents> {
        let open = || -> nix::Result<OwnedFd> {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkKObjectUEvent,
            )?;
            setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
            Ok(socket)
        };
        Ok(Uevents { socket: open().context("subscribing to the kernel's device events")? })
    }

    /// The next event, or `None` once the deadline has passed.
    ///
    /// # Errors
    /// The socket fails. A lost event (the kernel's buffer overflowed) is returned as an empty one: look again at
    /// everything.
    pub fn next(&self, deadline: Deadline) -> Result<Option<Uevent>> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => return Ok(Some(parse(&buffer[..len]))),
                Err(Errno::EAGAIN) => {}
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOBUFS) => return Ok(Some(Uevent::default())),
                Err(e) => return Err(e).context("reading device events"),
            }
            if deadline.passed() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(deadline.left()).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e).context("waiting for device events"),
            }
        }
    }
}

fn parse(message: &[u8]) -> Uevent {
    let mut event = Uevent::default();
    for field in message.split(|b| *b == 0) {
        let field = String::from_utf8_lossy(field);
        match field.split_once('=') {
            Some(("ACTION", v)) => event.action = v.to_owned(),
            Some(("SUBSYSTEM", v)) => event.subsystem = v.to_owned(),
            Some(("MODALIAS", v)) => event.modalias = Some(v.to_owned()),
            Some(("DEVNAME", v)) => event.devname = Some(v.to_owned()),
            _ => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_that_matter() {
        let message =
            b"add@/devices/pci0/virtio1/block/vda\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda\0SEQNUM=7\0";
        let event = parse(message);
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("add", "block"));
        assert_eq!((event.devname.as_deref(), event.modalias), (Some("vda"), None));
        assert_eq!(parse(b"\xff\xfe=\0=\0"), Uevent::default());
    }
}
