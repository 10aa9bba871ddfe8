//! Handshakes take turns: of all that could go on at once, a few do before everybody else had a turn.
//!
//! A handshake costs as much as dozens of requests. On one thread a thousand that arrive together would hold up the requests
//! of all who are through for a second; in turns they hold them up for a few handshakes. Waiting for the network takes
//! nobody's turn, so that a client that falls silent in the middle of its handshake delays nobody.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Poll, Waker},
};

/// Steps of handshakes in one round of all tasks: twice the cores that a sidecar uses.
const IN_A_ROUND: u32 = 2;

/// Who is next.
#[derive(Debug, Clone, Default)]
pub struct Turns(Rc<Round>);

#[derive(Debug, Default)]
struct Round {
    taken: Cell<u32>,
    // Somebody begins the next round.
    goes_on: Cell<bool>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Turns {
    /// Does `work`, each step of it in its turn. Must run where `spawn_local` may be called.
    pub async fn take<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let Round { taken, goes_on, waiting } = &*self.0;
            if taken.get() >= IN_A_ROUND {
                waiting.borrow_mut().push_back(cx.waker().clone());
                return Poll::Pending;
            }
            taken.set(taken.get() + 1);
            if !goes_on.replace(true) {
                tokio::task::spawn_local(rounds(Rc::clone(&self.0)));
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

// Begins a new round when everybody had a turn, as long as somebody waits for one.
async fn rounds(round: Rc<Round>) {
    loop {
        tokio::task::yield_now().await;
        round.taken.set(0);
        if round.waiting.borrow().is_empty() {
            return round.goes_on.set(false);
        }
        for _ in 0..IN_A_ROUND {
            let next = round.waiting.borrow_mut().pop_front();
            next.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn a_storm_of_handshakes_leaves_turns_to_others() {
        run(async {
            let (turns, done) = (Turns::default(), Rc::new(Cell::new(0)));
            let storm: Vec<_> = (0..100)
                .map(|_| {
                    let (turns, done) = (turns.clone(), Rc::clone(&done));
                    tokio::task::spawn_local(async move {
                        turns.take(async { done.set(done.get() + 1) }).await;
                    })
                })
                .collect();

            let mut rounds = 0;
            while done.get() < 100 {
                let before = done.get();
                tokio::task::yield_now().await;
                // The rounds and ours may be shifted against each other.
                assert!(done.get() - before <= 2 * IN_A_ROUND);
                rounds += 1;
            }

            assert!(rounds >= 100 / (2 * IN_A_ROUND), "{rounds}");
            for one in storm {
                one.await.unwrap();
            }
        });
    }

    #[test]
    fn who_waits_for_the_network_takes_nobodys_turn() {
        run(async {
            let turns = Turns::default();
            let silent: Vec<_> = (0..50)
                .map(|_| {
                    let turns = turns.clone();
                    tokio::task::spawn_local(async move { turns.take(std::future::pending::<()>()).await })
                })
                .collect();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }

            assert_eq!(turns.take(async { 7 }).await, 7);
            silent.iter().for_each(tokio::task::JoinHandle::abort);
        });
    }

    #[test]
    fn whoever_gives_up_while_waiting_keeps_nobody_from_a_turn() {
        run(async {
            let turns = Turns::default();
            for _ in 0..20 {
                let gone = turns.clone();
                tokio::task::spawn_local(async move { gone.take(std::future::pending::<()>()).await })
                    .abort();
            }
            assert_eq!(turns.take(async { 7 }).await, 7);
        });
    }
}
