//! Connections that could be done without: those of which nobody wants anything just now. When places or memory run short
//! they are asked to leave, the one that has rested longest first; their peers open new ones when they need them.
//!
//! Knows not how a connection ends: whoever serves it does.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

/// All of one side.
#[derive(Debug, Default)]
pub struct Resting {
    guests: RefCell<BTreeMap<u64, Rc<State>>>,
    places: Cell<u64>,
}

/// One connection; it has left when this is dropped.
#[derive(Debug)]
pub struct Guest {
    all: Rc<Resting>,
    place: u64,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    // When somebody wanted something of it last.
    wanted: Cell<Instant>,
    is_busy: Cell<bool>,
    is_asked: Cell<bool>,
    waits: RefCell<Option<Waker>>,
}

impl Resting {
    /// One more, which has just come.
    pub fn enter(self: &Rc<Self>, now: Instant) -> Guest {
        let place = self.places.get();
        self.places.set(place + 1);
        let state = Rc::new(State {
            wanted: Cell::new(now),
            is_busy: Cell::new(false),
            is_asked: Cell::new(false),
            waits: RefCell::default(),
        });
        self.guests.borrow_mut().insert(place, Rc::clone(&state));
        Guest { all: Rc::clone(self), place, state }
    }

    /// Asks the one to leave that has rested longest; false where none rests.
    pub fn oldest_leaves(&self) -> bool {
        let guests = self.guests.borrow();
        let oldest = guests.values().filter(|state| state.rests()).min_by_key(|state| state.wanted.get());
        oldest.inspect(|state| state.ask()).is_some()
    }

    /// Asks all to leave that rest; how many.
    pub fn all_leave(&self) -> usize {
        let guests = self.guests.borrow();
        guests.values().filter(|state| state.rests()).inspect(|state| state.ask()).count()
    }
}

impl Guest {
    /// Somebody wants something of it.
    pub fn is_wanted(&self, now: Instant) {
        self.state.wanted.set(now);
        self.state.is_busy.set(true);
    }

    /// Nobody wants anything of it any more.
    pub fn rests(&self) {
        self.state.is_busy.set(false);
    }

    /// Resolves when it is asked to leave. Whoever is busy again by then may stay, and rest later.
    pub async fn asked(&self) {
        poll_fn(|cx| {
            if self.state.is_asked.take() {
                return Poll::Ready(());
            }
            let mut waits = self.state.waits.borrow_mut();
            if !waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waits = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl State {
    fn rests(&self) -> bool {
        !self.is_busy.get() && !self.is_asked.get()
    }

    fn ask(&self) {
        self.is_asked.set(true);
        self.waits.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.all.guests.borrow_mut().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_one_that_rested_longest_leaves_first_and_nobody_who_is_busy() {
        let (all, start) = (Rc::new(Resting::default()), Instant::now());
        let [first, second, busy] = [0, 1, 2].map(|_| all.enter(start));
        second.is_wanted(start + Duration::from_secs(1));
        second.rests();
        busy.is_wanted(start);

        assert!(all.oldest_leaves());
        assert!(first.asked().now_or_never().is_some() && second.asked().now_or_never().is_none());
        drop(first);
        assert_eq!(all.all_leave(), 1);
        assert!(second.asked().now_or_never().is_some() && busy.asked().now_or_never().is_none());
        drop(second);
        assert!(!all.oldest_leaves());
    }
}
