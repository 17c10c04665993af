//! Commands: clap only, no effects.

pub mod grubenv;
