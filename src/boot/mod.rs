//! The boot: what is read, what is decided, and the initramfs that does it.

pub mod cmdline;
pub mod decide;
pub mod grubenv;
pub mod initramfs;
pub mod running;
pub mod status;
