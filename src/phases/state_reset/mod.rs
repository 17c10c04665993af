//! The state reset. The order of the rows is the safety argument: the source is proved good before anything goes; one
//! complete image is bootable at every instant; user data go only when the images are in place.

mod images;
mod order;
mod persistent;

use std::path::PathBuf;

pub use order::{Outcome, carry_out, refuse, take_order};

use crate::host::{Host, Root};
use crate::plan::intent::Armed;
use crate::plan::phase::always;
use crate::plan::{Hazard, OnError, Phase};

/// The partitions that a reset works on, mounted, and the order that it carries out.
#[derive(Debug)]
pub struct ResetCtx {
    /// The running system: programs, clock.
    pub host: Host,
    /// COS_OEM, mounted read-write.
    pub oem: Root,
    /// COS_RECOVERY, mounted read-only.
    pub recovery: Root,
    /// COS_STATE, mounted read-write.
    pub state: Root,
    /// The recovery image's own tree, mounted read-only: programs and the boot loader's configuration are taken from it.
    pub image: Root,
    /// Device of COS_PERSISTENT, not mounted.
    pub persistent: PathBuf,
    /// The proof that the order lies durable on COS_OEM.
    pub armed: Armed,
    /// Whether the journal says that both images are in place, so that the source is needed no more.
    pub images_laid: bool,
}

/// Path of the recovery image on COS_RECOVERY (Kairos' layout).
pub const RECOVERY_IMAGE: &str = "/cOS/recovery.img";
/// Its SHA-256 beside it, in the form that sha256sum prints.
pub const RECOVERY_DIGEST: &str = "/cOS/recovery.img.sha256";

/// The table.
pub const RESET: &[Phase<ResetCtx>] = &[
    Phase {
        name: "verify-image",
        about: "compare the recovery image with its recorded digest",
        hazard: Hazard::Reads,
        when: |ctx| !ctx.images_laid,
        on_error: OnError::Stop,
        run: images::verify,
    },
    Phase {
        name: "image/passive",
        about: "lay the fallback image anew from the recovery image",
        hazard: Hazard::Erases,
        when: always,
        on_error: OnError::Stop,
        run: |ctx| images::replace(ctx, &images::PASSIVE),
    },
    Phase {
        name: "image/active",
        about: "lay the active image anew from the recovery image",
        hazard: Hazard::Erases,
        when: always,
        on_error: OnError::Stop,
        run: |ctx| images::replace(ctx, &images::ACTIVE),
    },
    Phase {
        name: "boot-loader",
        about: "restore the boot menu from the recovery image",
        hazard: Hazard::Writes,
        when: always,
        on_error: OnError::Stop,
        run: images::boot_menu,
    },
    Phase {
        name: "persistent",
        about: "make a new file system on COS_PERSISTENT, sentinels and state with it",
        hazard: Hazard::Erases,
        when: always,
        on_error: OnError::Stop,
        run: persistent::erase,
    },
];
