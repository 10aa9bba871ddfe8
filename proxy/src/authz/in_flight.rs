//! What runs under the law: each request and stream with the facts it was admitted with, so that one task can look at all
//! of them again when the law changes, and end those that are too old.
//!
//! Knows not how a decision is made: the task asks the [`Judge`](super::Judge). A request costs one allocation here, no
//! timer and no task of its own.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use douane_proto::facts::Facts;
use tokio::time::Instant;

use super::heard::Heard;
use crate::refusal::Refusal;

/// One request or stream, from the moment its facts are known. It is looked at again once it was admitted,
/// for as long as somebody holds it.
#[derive(Debug)]
pub struct Running {
    /// What the decision was made on.
    pub facts: Facts,
    said: RefCell<Rc<Heard>>,
    since: Cell<Instant>,
    // Since it was last looked at; a clock would cost more than a byte does.
    moved: Cell<bool>,
    rests_since: Cell<Instant>,
    // Not another protocol's bytes: those are counted where they are relayed.
    is_request: Cell<bool>,
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

/// How long each may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Anything.
    pub(super) age: Duration,
    /// A request, to the end of its answer.
    pub(super) total: Option<Duration>,
    /// A request without a byte in either direction.
    pub(super) rest: Duration,
}

/// How closely such times are kept.
const STEPS: u32 = 16;
const STEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// All that runs.
#[derive(Debug, Default)]
pub struct InFlight {
    // Those that have ended are swept out before the list would have to grow: constant work for each.
    admitted: RefCell<Vec<Weak<Running>>>,
}

impl InFlight {
    /// From now on it is looked at.
    pub(super) fn admit(&self, one: &Rc<Running>, said: Rc<Heard>) {
        *one.said.borrow_mut() = said;
        let now = Instant::now();
        one.since.set(now);
        one.rests_since.set(now);
        let mut all = self.admitted.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Rc::downgrade(one));
    }

    /// A request of the own application to `destination`, which ends when it rests.
    pub fn ours(&self, destination: SocketAddr) -> Rc<Running> {
        let one = Rc::new(Running::of_ours(destination));
        self.admit(&one, Rc::default());
        one
    }

    /// Ends what rests as long as `rest`; for ever.
    pub async fn end_resting(&self, rest: Duration) {
        let times = Times { age: Duration::MAX, total: None, rest };
        loop {
            tokio::time::sleep(look_every(rest)).await;
            self.end_overdue(times, Instant::now());
        }
    }

    /// What runs now.
    pub(super) fn all(&self) -> Vec<Rc<Running>> {
        self.admitted.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends what has had its time at `now`.
    pub(super) fn end_overdue(&self, times: Times, now: Instant) {
        for one in self.all() {
            if let Some(why) = one.overdue(times, now) {
                one.end(why);
            }
        }
    }
}

impl Running {
    /// Facts that are still to be decided on.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let (now, is_request) = (Instant::now(), facts.request.is_some());
        Self {
            facts,
            said: RefCell::default(),
            since: Cell::new(now),
            moved: Cell::new(false),
            rests_since: Cell::new(now),
            is_request: Cell::new(is_request),
            ended: OnceCell::new(),
            wakers: Default::default(),
        }
    }

    /// A request of the own application: there is no law here for it.
    fn of_ours(destination: SocketAddr) -> Self {
        let own = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let facts = Facts { peer: None, source: own, remote: own, destination, sni: None, request: None };
        let one = Self::new(facts);
        one.is_request.set(true);
        one
    }

    /// It is no request any more but another protocol's bytes: only its age is limited here.
    pub fn switches(&self) {
        self.is_request.set(false);
    }

    /// A byte of it has passed.
    pub fn moves(&self) {
        self.moved.set(true);
    }

    // Bytes have time limits of their own, where they are relayed.
    fn overdue(&self, times: Times, now: Instant) -> Option<Refusal> {
        let (age, is_request) = (now.duration_since(self.since.get()), self.is_request.get());
        if self.moved.take() {
            self.rests_since.set(now);
        }
        if age >= times.age {
            return Some(Refusal::StreamAge);
        }
        if is_request && times.total.is_some_and(|total| age >= total) {
            return Some(Refusal::RequestTimeout);
        }
        let rests = now.duration_since(self.rests_since.get());
        (is_request && rests >= times.rest).then_some(Refusal::Idle)
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

// Often enough for what may last so long.
pub(super) fn look_every(shortest: Duration) -> Duration {
    let (least, most) = STEP;
    (shortest / STEPS).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use douane_proto::{facts::RequestFacts, snapshot::PathNormalization, target::Target};
    use http::{HeaderMap, Method};

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

    fn times(age: u64) -> Times {
        Times { age: Duration::from_secs(age), total: None, rest: Duration::from_secs(300) }
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
    async fn a_request_ends_when_it_rests_and_what_it_switched_to_does_not() {
        let target = Target::parse("orders", "/", PathNormalization::Base).unwrap();
        let (method, headers) = (Method::GET, HeaderMap::new());
        let asked = || Facts {
            request: Some(RequestFacts {
                method: method.clone(),
                target: target.clone(),
                headers: headers.clone(),
                token: None,
            }),
            ..facts()
        };
        let (rests, moves, switched, bytes) =
            (Running::new(asked()), Running::new(asked()), Running::new(asked()), Running::new(facts()));
        switched.switches();
        tokio::time::advance(Duration::from_secs(400)).await;
        moves.moves();

        let why = |one: &Running| one.overdue(times(1000), Instant::now()).map(|refusal| refusal.label());

        assert_eq!([why(&rests), why(&moves), why(&switched), why(&bytes)], [Some("idle"), None, None, None]);
        let total = Times { total: Some(Duration::from_secs(300)), ..times(1000) };
        assert_eq!(
            moves.overdue(total, Instant::now()).map(|refusal| refusal.label()),
            Some("request_timeout")
        );
        assert!(switched.overdue(total, Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_too_old_ends_and_each_who_waits_is_told() {
        let running = InFlight::default();
        let (old, young) = (Rc::new(Running::new(facts())), Rc::new(Running::new(facts())));
        running.admit(&old, Rc::default());
        tokio::time::advance(Duration::from_secs(1)).await;
        running.admit(&young, Rc::default());

        let (exchange, answer, ()) =
            tokio::join!(old.ended(Waits::Exchange), old.ended(Waits::Answer), async {
                running.end_overdue(times(1), Instant::now());
            });

        assert_eq!((exchange.label(), answer.label()), ("stream_age", "stream_age"));
        let still = tokio::time::timeout(Duration::from_secs(1), young.ended(Waits::Request)).await;
        assert!(still.is_err(), "{still:?}");
    }
}
