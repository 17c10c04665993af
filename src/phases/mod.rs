//! The tables of phases, and their bodies.

pub mod state_reset;
