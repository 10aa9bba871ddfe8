//! What runs under the law: each request and stream with the facts it was admitted with, so that one task can look at all
//! of them again when the law changes, and end those that are too old.
//!
//! Knows not how a decision is made: the task asks the [`Judge`](super::Judge). A request costs one allocation here, no
//! timer and no task of its own.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use douane_proto::facts::Facts;
use tokio::time::Instant;

use super::heard::Heard;
use crate::refusal::Refusal;

/// One request or stream, from the moment its facts are known. It is looked at again once it was [`InFlight::admit`]ted,
/// for as long as somebody holds it.
#[derive(Debug)]
pub struct Running {
    /// What the decision was made on.
    pub facts: Facts,
    said: RefCell<Rc<Heard>>,
    since: Cell<Instant>,
    ended: OnceCell<Refusal>,
    wakers: [RefCell<Option<Waker>>; 3],
}

/// Who waits for the end of a request or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Whoever waits for the answer, or relays bytes.
    Exchange,
    /// The request's body.
    Request,
    /// The answer's body.
    Answer,
}

/// All that runs.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    // Those that have ended are swept out before the list would have to grow: constant work for each.
    admitted: RefCell<Vec<Weak<Running>>>,
}

impl InFlight {
    /// From now on it is looked at.
    pub(super) fn admit(&self, one: &Rc<Running>, said: Rc<Heard>) {
        *one.said.borrow_mut() = said;
        one.since.set(Instant::now());
        let mut all = self.admitted.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Rc::downgrade(one));
    }

    /// What runs now.
    pub(super) fn all(&self) -> Vec<Rc<Running>> {
        self.admitted.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends what was admitted before `then`.
    pub(super) fn end_older_than(&self, then: Instant) {
        for one in self.all() {
            if one.since.get() <= then {
                one.end(Refusal::StreamAge);
            }
        }
    }
}

impl Running {
    /// Facts that are still to be decided on.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            said: RefCell::default(),
            since: Cell::new(Instant::now()),
            ended: OnceCell::new(),
            wakers: Default::default(),
        }
    }

    pub(super) fn said(&self) -> Rc<Heard> {
        Rc::clone(&self.said.borrow())
    }

    pub(super) fn hear(&self, said: Rc<Heard>) {
        *self.said.borrow_mut() = said;
    }

    /// Ends it, whatever waits.
    pub(super) fn end(&self, why: Refusal) {
        if self.ended.set(why).is_ok() {
            self.wakers.iter().filter_map(RefCell::take).for_each(Waker::wake);
        }
    }

    /// Why it must end; one of each kind may wait.
    pub fn poll_ended(&self, cx: &Context<'_>, who: Waits) -> Poll<&Refusal> {
        if let Some(why) = self.ended.get() {
            return Poll::Ready(why);
        }
        let [exchange, request, answer] = &self.wakers;
        let waker = match who {
            Waits::Exchange => exchange,
            Waits::Request => request,
            Waits::Answer => answer,
        };
        let mut held = waker.borrow_mut();
        match &mut *held {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *held = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Resolves when it must end.
    pub async fn ended(&self, who: Waits) -> Refusal {
        poll_fn(|cx| self.poll_ended(cx, who).map(Refusal::clone)).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts() -> Facts {
        Facts {
            peer: None,
            source: [10, 77, 0, 1].into(),
            remote: [10, 77, 0, 1].into(),
            destination: ([10, 77, 0, 2], 80).into(),
            sni: None,
            request: None,
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_before_the_list_grows() {
        let running = InFlight::default();
        let held = Rc::new(Running::new(facts()));
        running.admit(&held, Rc::default());

        for _ in 0..10_000 {
            running.admit(&Rc::new(Running::new(facts())), Rc::default());
        }

        assert_eq!(running.all().len(), 1);
        assert!(running.admitted.borrow().capacity() < 16);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_too_old_ends_and_each_who_waits_is_told() {
        let running = InFlight::default();
        let (old, young) = (Rc::new(Running::new(facts())), Rc::new(Running::new(facts())));
        running.admit(&old, Rc::default());
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        running.admit(&young, Rc::default());

        let (exchange, answer, ()) =
            tokio::join!(old.ended(Waits::Exchange), old.ended(Waits::Answer), async {
                running.end_older_than(began);
            });

        assert_eq!((exchange.label(), answer.label()), ("stream_age", "stream_age"));
        let still = tokio::time::timeout(Duration::from_secs(1), young.ended(Waits::Request)).await;
        assert!(still.is_err(), "{still:?}");
    }
}
