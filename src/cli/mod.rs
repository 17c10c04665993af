//! Commands: clap only, no effects.
