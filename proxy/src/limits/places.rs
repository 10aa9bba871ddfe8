//! Places for requests in progress: so many for each destination, shared between those who ask, with a short queue.
//!
//! How they are shared is [`share`](super::share)'s rule; positions in the queue are shared by the same one.
//!
//! A connection asks once for its [`Tenant`]; a request then counts two cells up and down, and nothing else.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::limits::{
    pressure::Pressure,
    queue::Standing,
    share::{Holder, Sharing, may_have},
};

/// How many, and how long they are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Places of a destination.
    pub most: usize,
    /// Positions in its queue.
    pub queue: usize,
    /// The most that one waits.
    pub wait: Duration,
    /// How they are shared.
    pub sharing: Sharing,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken, and the queue is full or did not move.
    Full,
    /// There are free ones, for others: this holder has its share.
    Share,
    /// There is too little memory for any.
    Pressure,
}

/// The places of all destinations.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    destinations: RefCell<HashMap<SocketAddr, Weak<Destination>>>,
}

/// What one holder has of one destination's places. While it has nothing it is not remembered.
#[derive(Debug)]
pub struct Tenant {
    destination: Rc<Destination>,
    held: Cell<usize>,
    waiting: Cell<usize>,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub struct Place(Rc<Tenant>);

#[derive(Debug)]
struct Destination {
    address: SocketAddr,
    bounds: Bounds,
    taken: Cell<usize>,
    queue: RefCell<VecDeque<Waiter>>,
    standing: Cell<Standing>,
    tenants: RefCell<HashMap<Holder, Weak<Tenant>>>,
}

#[derive(Debug)]
struct Waiter {
    position: Position,
    granted: oneshot::Sender<Place>,
}

// Counts among those of its tenant that wait until it is dropped.
#[derive(Debug)]
struct Position(Rc<Tenant>);

impl Places {
    /// With these bounds for each destination.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, destinations: RefCell::default() }
    }

    /// What `holder` has of the places of `destination`: asked once for each connection.
    #[must_use]
    pub fn tenant(&self, address: SocketAddr, holder: Holder) -> Rc<Tenant> {
        let destination = remembered(&self.destinations, address, || Destination {
            address,
            bounds: self.bounds,
            taken: Cell::new(0),
            queue: RefCell::default(),
            standing: Cell::default(),
            tenants: RefCell::default(),
        });
        remembered(&destination.tenants, holder, || Tenant {
            destination: Rc::clone(&destination),
            held: Cell::new(0),
            waiting: Cell::new(0),
        })
    }
}

impl Tenant {
    /// Where to.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.destination.address
    }

    /// A place at once, if there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_take(self: &Rc<Self>) -> Result<Place, NoPlace> {
        if Pressure::now() >= Pressure::High {
            return Err(NoPlace::Pressure);
        }
        let Bounds { most, sharing, .. } = self.destination.bounds;
        let taken = self.destination.taken.get();
        if may_have(self.held.get(), taken, most, sharing) {
            return Ok(self.seated());
        }
        Err(if taken < most { NoPlace::Share } else { NoPlace::Full })
    }

    /// A place, waited for in the queue if there is none.
    ///
    /// # Errors
    /// Why there was none in time.
    pub async fn take(self: &Rc<Self>) -> Result<Place, NoPlace> {
        match self.try_take() {
            Err(none @ (NoPlace::Full | NoPlace::Share)) => self.wait(none).await,
            taken => taken,
        }
    }

    async fn wait(self: &Rc<Self>, none: NoPlace) -> Result<Place, NoPlace> {
        let destination = &self.destination;
        let Bounds { queue: most, wait, sharing, .. } = destination.bounds;
        let (granted, heard) = oneshot::channel();
        let patience = {
            let mut queue = destination.queue.borrow_mut();
            queue.retain(|waiter| !waiter.granted.is_closed());
            if !may_have(self.waiting.get(), queue.len(), most, sharing) {
                return Err(none);
            }
            let now = Instant::now();
            let standing = match queue.is_empty() {
                true => destination.standing.get().emptied(),
                false => destination.standing.get(),
            };
            destination.standing.set(standing.joined(now));
            queue.push_back(Waiter { position: Position::of(self), granted });
            standing.patience(now, wait)
        };
        match tokio::time::timeout(patience, heard).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(none),
        }
    }

    fn seated(self: &Rc<Self>) -> Place {
        self.held.set(self.held.get() + 1);
        self.destination.taken.set(self.destination.taken.get() + 1);
        Place(Rc::clone(self))
    }
}

impl Destination {
    // Of those who wait the first that may have what has become free.
    fn hand_on(&self) {
        let Bounds { most, sharing, .. } = self.bounds;
        loop {
            let next = {
                let mut queue = self.queue.borrow_mut();
                // Those who gave up.
                queue.retain(|waiter| !waiter.granted.is_closed());
                let taken = self.taken.get();
                let may = |waiter: &Waiter| may_have(waiter.position.0.held.get(), taken, most, sharing);
                queue.iter().position(may).and_then(|first| queue.remove(first))
            };
            let Some(Waiter { position, granted }) = next else { return };
            // Gone meanwhile: dropped, it frees the place again and comes back here.
            let _ = granted.send(position.0.seated());
        }
    }
}

impl Position {
    fn of(tenant: &Rc<Tenant>) -> Self {
        tenant.waiting.set(tenant.waiting.get() + 1);
        Self(Rc::clone(tenant))
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Tenant { destination, held, .. } = &*self.0;
        held.set(held.get().saturating_sub(1));
        destination.taken.set(destination.taken.get().saturating_sub(1));
        if !destination.queue.borrow().is_empty() {
            destination.hand_on();
        }
    }
}

// What is no longer used is forgotten when there is twice as much of it as of the rest.
fn remembered<K, V>(all: &RefCell<HashMap<K, Weak<V>>>, key: K, new: impl FnOnce() -> V) -> Rc<V>
where
    K: std::hash::Hash + Eq,
{
    let mut all = all.borrow_mut();
    if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    if all.len() == all.capacity() {
        all.retain(|_, held| held.strong_count() > 0);
    }
    let made = Rc::new(new());
    all.insert(key, Rc::downgrade(&made));
    made
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn places(most: usize, queue: usize, sharing: Sharing) -> Places {
        Places::new(Bounds { most, queue, wait: WAIT, sharing })
    }

    fn at() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 80))
    }

    fn of(last: u8) -> Holder {
        Holder::Address([10, 0, 0, last].into())
    }

    fn take_all(tenant: &Rc<Tenant>) -> Vec<Place> {
        std::iter::from_fn(|| tenant.try_take().ok()).collect()
    }

    // On one thread, with a clock that jumps to the next timer.
    fn run(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn one_caller_has_half_and_a_newcomer_finds_a_place() {
        let places = places(8, 0, Sharing::Fair);
        let (greedy, other) = (places.tenant(at(), of(1)), places.tenant(at(), of(2)));

        let held = take_all(&greedy);
        assert_eq!(held.len(), 4);
        assert_eq!(greedy.try_take().unwrap_err(), NoPlace::Share);
        assert_eq!(take_all(&other).len(), 2);
    }

    #[test]
    fn the_only_application_of_an_outbound_side_has_them_all() {
        let application = places(8, 0, Sharing::Whole).tenant(at(), Holder::Application);

        let held = take_all(&application);

        assert_eq!(held.len(), 8);
        assert_eq!(application.try_take().unwrap_err(), NoPlace::Full);
    }

    #[test]
    fn a_destination_does_not_count_what_goes_to_another() {
        let places = places(2, 0, Sharing::Whole);
        let (one, two) = (at(), SocketAddr::from(([10, 0, 0, 1], 81)));
        let held = take_all(&places.tenant(one, of(1)));

        assert_eq!(held.len(), 2);
        assert!(places.tenant(two, of(1)).try_take().is_ok());
        assert!(places.tenant(one, of(1)).try_take().is_err(), "asked anew, the same is meant");
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let places = places(2, 0, Sharing::Fair);
        for port in 1..5000 {
            drop(places.tenant(SocketAddr::from(([10, 0, 0, 1], port)), of(1)).try_take());
        }
        assert!(places.destinations.borrow().capacity() < 100);
    }

    #[test]
    fn who_waits_gets_the_place_that_becomes_free() {
        run(async {
            let places = places(1, 2, Sharing::Whole);
            let tenant = places.tenant(at(), of(1));
            let held = tenant.try_take().unwrap();
            let waiting = tokio::task::spawn_local({
                let tenant = Rc::clone(&tenant);
                async move { tenant.take().await }
            });
            tokio::task::yield_now().await;

            drop(held);

            let place = waiting.await.unwrap().unwrap();
            assert!(tenant.try_take().is_err());
            drop(place);
            assert!(tenant.try_take().is_ok());
        });
    }

    #[test]
    fn nobody_waits_longer_than_is_permitted_and_the_queue_has_an_end() {
        run(async {
            let places = places(1, 1, Sharing::Whole);
            let tenant = places.tenant(at(), of(1));
            let _held = tenant.try_take().unwrap();
            let began = tokio::time::Instant::now();

            let (first, second) = tokio::join!(tenant.take(), tenant.take());

            assert_eq!(first.unwrap_err(), NoPlace::Full);
            assert_eq!(second.unwrap_err(), NoPlace::Full);
            assert_eq!(began.elapsed(), WAIT);
            assert_eq!(tenant.waiting.get(), 1, "found by whoever looks next");
            assert!(tenant.take().await.is_err());
        });
    }

    #[test]
    fn a_free_place_goes_past_who_has_his_share() {
        run(async {
            let places = places(4, 8, Sharing::Fair);
            let (greedy, other) = (places.tenant(at(), of(1)), places.tenant(at(), of(2)));
            let mut held = take_all(&greedy);
            assert_eq!(held.len(), 2);
            let modest = other.try_take().unwrap();
            let (waits, served) = (Rc::clone(&greedy), Rc::clone(&other));
            let first = tokio::task::spawn_local(async move { waits.take().await });
            let second = tokio::task::spawn_local(async move { served.take().await });
            tokio::task::yield_now().await;

            // One of the greedy one's ends: two are free, of which it holds one, and the other holds one.
            drop(held.pop());

            let _first = first.await.unwrap().expect("first come, where both may");
            assert_eq!(second.await.unwrap().unwrap_err(), NoPlace::Share);
            drop(modest);
        });
    }

    #[test]
    fn whoever_gives_up_leaves_the_queue() {
        run(async {
            let places = places(1, 1, Sharing::Whole);
            let tenant = places.tenant(at(), of(1));
            let held = tenant.try_take().unwrap();
            let gone = tokio::time::timeout(Duration::from_millis(1), tenant.take()).await;
            assert!(gone.is_err());

            let (freed, place) = tokio::join!(async { drop(held) }, tenant.take());

            let () = freed;
            assert!(place.is_ok());
        });
    }
}
