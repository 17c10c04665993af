//! The engine: phases in a table, run in order, journalled, reported. Knows nothing of Kubernetes or of disks.

pub mod event;
pub mod intent;
pub mod journal;
pub mod phase;
pub mod receipt;
pub mod run;

pub use event::{Event, Events, State};
pub use journal::Journal;
pub use phase::{Change, Hazard, OnError, Phase, Skip};
pub use run::{PhaseReport, run};
