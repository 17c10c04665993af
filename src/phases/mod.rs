//! The tables of phases, and their bodies.

pub mod init;
pub mod state_reset;
