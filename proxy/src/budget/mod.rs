//! One budget in bytes for all that peers and applications can make the sidecar hold: bytes that a slow reader has not
//! taken, receive windows that grew, bodies read for authorizers. Fixed at start to a share of the memory that we may have
//! ([`memory`]), so that the kernel need not end what could have held less.
//!
//! A sidecar is one thread, and its budget is that thread's. What is bounded by itself (a cork, one chunk of a relay) is
//! held and counted in any case; what only makes things faster (a larger window, a larger read) is lent only while there
//! is room. Who sheds what as it fills is decided above; knows nobody who holds.

pub mod memory;

use std::cell::Cell;

/// Above this part nothing grows, and what grew shrinks.
const TIGHT: f64 = 0.85;

thread_local! {
    static LIMIT: Cell<usize> = const { Cell::new(memory::USUAL) };
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that count against the budget until this is dropped.
#[derive(Debug, Default)]
#[must_use = "dropped, it is given back"]
pub struct Loan(usize);

/// Fixes the budget of this thread.
pub fn fix(limit: usize) {
    LIMIT.set(limit.max(1));
}

/// The budget.
#[must_use]
pub fn limit() -> usize {
    LIMIT.get()
}

/// What is held of it.
#[must_use]
pub fn held() -> usize {
    HELD.get()
}

/// The part of it that is held: 0.0 to 1.0, and more where what is held by itself exceeds it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a part needs no 53 bits")]
pub fn fill() -> f64 {
    HELD.get() as f64 / LIMIT.get() as f64
}

/// Is there so little room that nothing may grow?
#[must_use]
pub fn is_tight() -> bool {
    fill() > TIGHT
}

/// Counts what is held in any case.
pub fn hold(bytes: usize) -> Loan {
    let mut loan = Loan::default();
    loan.resize(bytes);
    loan
}

/// Lends what one can do without, if it leaves room for others.
#[expect(clippy::cast_precision_loss, reason = "a part needs no 53 bits")]
pub fn lend(bytes: usize) -> Option<Loan> {
    let after = HELD.get().saturating_add(bytes);
    (after as f64 <= TIGHT * LIMIT.get() as f64).then(|| hold(bytes))
}

impl Loan {
    /// Now it is so much.
    pub fn resize(&mut self, bytes: usize) {
        if bytes != self.0 {
            HELD.set(HELD.get().saturating_sub(self.0).saturating_add(bytes));
            self.0 = bytes;
        }
    }

    /// How much it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // A thread that ends counts no more.
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A test has a thread of its own, and with it a budget.
    #[test]
    fn what_is_held_is_given_back_and_growth_is_lent_only_while_there_is_room() {
        fix(1000);
        let mut held = hold(500);

        assert!(lend(400).is_none());
        let lent = lend(300).unwrap();
        assert_eq!((super::held(), lent.bytes()), (800, 300));
        assert!(!is_tight());
        held.resize(900);
        assert!(is_tight());
        assert!(fill() > 1.0, "what is bounded by itself is held in any case");
        assert!(lend(1).is_none());

        drop((held, lent));
        assert_eq!(super::held(), 0);
        assert!(lend(850).is_some());
    }
}
