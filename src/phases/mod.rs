//! The tables of phases, and their bodies.
