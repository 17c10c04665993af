//! rekindle takes an immutable Linux node from power-on to a Ready Kubernetes node, and through a state reset back to
//! factory state and Ready again.
//!
//! Four nouns carry it. What a boot is going to do is an **Action**, decided by one pure function ([`boot::decide`]).
//! An Action that destroys leaves a durable **Intent** first ([`plan::intent`]). It is carried out by a **Plan**: a table
//! of phases ([`plan::phase`]) whose progress is a **Journal**. What was done is proved by a **Receipt**.
//!
//! ```text
//! read      cmdline, disks, /oem, grubenv, journal      boot, oem, host      effects, no decisions
//! decide    facts -> Action                             boot::decide         pure
//! arm       intent durable, boot default set            plan::intent         before anything is erased
//! run       phases, journalled                          plan::run, phases    idempotent
//! report    receipt re-read, events, disarm last        plan::receipt
//! ```
//!
//! # Module index
//! - [`cli`]: the commands, clap only
//! - [`host`]: every effect on the machine
//! - [`boot`]: kernel command line, facts, the decision, the initramfs, GRUB's environment block
//! - [`oem`]: our own YAML documents
//! - [`kubeadm`]: kubeadm's configuration API
//! - [`plan`]: the engine
//! - [`phases`]: the tables of phases and their bodies
//! - [`pki`], [`manifests`], [`cluster`]: certificates, static Pods, the API server
//!
//! The library is internal to the binary and its tests; it promises no API.

pub mod boot;
pub mod cli;
pub mod cluster;
pub mod host;
pub mod kubeadm;
pub mod manifests;
pub mod oem;
pub mod phases;
pub mod pki;
pub mod plan;

use std::process::ExitCode;

/// Runs as what the name in `args[0]` says: `/init` in the initramfs, `kubeadm`, `grub2-editenv`, or `rekindle`.
#[must_use]
pub fn run(args: &[String], first_process: bool) -> ExitCode {
    let called = args.first().map_or("rekindle", |a| a.rsplit('/').next().unwrap_or(a));
    match called {
        "init" if first_process => boot::initramfs::main(),
        "kubeadm" => cli::kubeadm::main(args),
        "grub2-editenv" | "grub-editenv" => cli::grubenv::main(args),
        _ => cli::main(args),
    }
}
