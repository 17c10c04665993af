//! Counts the effects on the machine, and in tests stops before the Nth of them as a power cut would.

use std::cell::Cell;
use std::rc::Rc;

/// A shared counter of effects. Each mutation of the machine (write, flush, rename, mkfs, mount, spawn…) passes
/// through [`Effects::next`] before it happens.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    inner: Rc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    count: Cell<u64>,
    cut_at: Cell<Option<u64>>,
}

/// The error of an effect that was not performed because the test cut the power there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Number of the effect that did not happen, from 0.
    pub at: u64,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "power cut before effect {}", self.at)
    }
}
impl std::error::Error for Cut {}

impl Effects {
    /// A counter that lets `n` effects happen and refuses every later one.
    #[must_use]
    pub fn cut_after(n: u64) -> Effects {
        let effects = Effects::default();
        effects.inner.cut_at.set(Some(n));
        effects
    }

    /// Counts one effect.
    ///
    /// # Errors
    /// [`Cut`], when the power is off from here on.
    pub fn next(&self) -> Result<(), Cut> {
        let at = self.inner.count.get();
        if self.inner.cut_at.get().is_some_and(|cut| at >= cut) {
            return Err(Cut { at });
        }
        self.inner.count.set(at + 1);
        Ok(())
    }

    /// How many effects happened so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.count.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_the_cut_and_stays_stopped() {
        let effects = Effects::cut_after(2);
        assert_eq!(effects.clone().next(), Ok(()));
        assert_eq!(effects.next(), Ok(()));
        assert_eq!(effects.next(), Err(Cut { at: 2 }));
        assert_eq!(effects.next(), Err(Cut { at: 2 }));
        assert_eq!(effects.count(), 2);
    }
}
