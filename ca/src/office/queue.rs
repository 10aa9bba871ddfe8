//! Petitions wait here in the order of their urgency, and threads of their own work them off: the nearest to its end
//! first. A full queue sends the least urgent away.
//!
//! Knows not what the work is.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::refusal::Refusal;

/// Petitions that may wait: more than there are strangers' places, so that who has paid for a handshake is not sent away to
/// pay for another.
const MAX_WAITING: usize = 8192;
/// What they may hold together, bytes; each at most a token and a request, 25 KiB.
const MAX_WAITING_BYTES: usize = 25 * 1024 * 1024;
/// Longer than this nobody waits: the caller is told to come back before it loses patience (a sidecar does after 10 s).
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How soon the caller is without a certificate (the logarithm of the seconds): fewer come first.
pub(super) type Urgency = i64;

type Work<T> = Box<dyn FnOnce() -> Result<T, Refusal> + Send>;

/// A queue with its workers. They end with it.
pub(super) struct Queue<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    more: Condvar,
}

struct State<T> {
    waiting: BTreeMap<(Urgency, u64), Waiting<T>>,
    /// What they hold together.
    bytes: usize,
    /// Of two that are as urgent, the first comes first.
    next: u64,
    closed: bool,
}

struct Waiting<T> {
    work: Work<T>,
    bytes: usize,
    done: oneshot::Sender<Result<T, Refusal>>,
    since: Instant,
}

impl<T: Send + 'static> Queue<T> {
    /// A queue with so many workers.
    pub(super) fn new(workers: usize) -> std::io::Result<Self> {
        let state = State { waiting: BTreeMap::new(), bytes: 0, next: 0, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), more: Condvar::new() });
        for number in 0..workers {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("office-{number}")).spawn(move || shared.run())?;
        }
        Ok(Self(shared))
    }

    /// Has the work done, when it is its turn; it holds so many bytes until then.
    pub(super) async fn work(
        &self,
        (urgency, bytes): (Urgency, usize),
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (done, told) = oneshot::channel();
        self.0.push(urgency, Waiting { work: Box::new(work), bytes, done, since: Instant::now() });
        told.await.unwrap_or(Err(Refusal::Broken))
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.more.notify_all();
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, urgency: Urgency, waiting: Waiting<T>) {
        let mut state = self.state();
        let key = (urgency, state.next);
        state.next += 1;
        state.bytes += waiting.bytes;
        state.waiting.insert(key, waiting);
        let mut sent_away = Vec::new();
        while state.waiting.len() > MAX_WAITING || state.bytes > MAX_WAITING_BYTES {
            let Some((_, least)) = state.waiting.pop_last() else { break };
            state.bytes -= least.bytes;
            sent_away.push(least);
        }
        drop(state);
        self.more.notify_one();
        for least in sent_away {
            // Who has gone does not want to know.
            let _ = least.done.send(Err(Refusal::Overload));
        }
    }

    fn run(&self) {
        while let Some(Waiting { work, done, since, .. }) = self.pop() {
            // Who has gone, and who has waited for too long, costs nothing more.
            if done.is_closed() {
                continue;
            }
            let outcome = if since.elapsed() > MAX_WAIT {
                Err(Refusal::Overload)
            } else {
                // A bug of ours costs one petition, not a worker.
                catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Refusal::Broken))
            };
            let _ = done.send(outcome);
        }
    }

    // `None`: the queue has gone.
    fn pop(&self) -> Option<Waiting<T>> {
        let mut state = self.state();
        loop {
            if let Some((_, first)) = state.waiting.pop_first() {
                state.bytes -= first.bytes;
                return Some(first);
            }
            if state.closed {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    // One worker, which is kept busy until the sender is dropped.
    async fn busy() -> (Arc<Queue<Urgency>>, mpsc::Sender<()>) {
        let queue = Arc::new(Queue::new(1).unwrap());
        let (free, held) = mpsc::channel::<()>();
        let (begun, busy) = oneshot::channel();
        let theirs = Arc::clone(&queue);
        tokio::spawn(async move {
            let work = move || {
                let _ = begun.send(());
                let _ = held.recv();
                Ok(0)
            };
            theirs.work((0, 1), work).await
        });
        busy.await.unwrap();
        (queue, free)
    }

    #[tokio::test]
    async fn t6_the_nearest_to_its_end_comes_first() {
        let (queue, free) = busy().await;
        let (tell, order) = mpsc::channel();
        let mut all = Vec::new();
        for urgency in [3000, 20, 300, 20, 1] {
            let (theirs, tell) = (Arc::clone(&queue), tell.clone());
            all.push(tokio::spawn(async move {
                let work = move || {
                    tell.send(urgency).unwrap();
                    Ok(urgency)
                };
                theirs.work((urgency, 1), work).await
            }));
        }
        while queue.0.state().waiting.len() < all.len() {
            tokio::task::yield_now().await;
        }
        drop(free);
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 20, 20, 300, 3000]);
    }

    #[tokio::test]
    async fn t6_a_full_queue_sends_the_least_urgent_away() {
        let (queue, free) = busy().await;
        let ask = |urgency| {
            let theirs = Arc::clone(&queue);
            tokio::spawn(async move { theirs.work((urgency, 1), move || Ok(urgency)).await })
        };
        let lazy = ask(100_000);
        let mut all: Vec<_> = (0..MAX_WAITING as i64).map(ask).collect();
        assert!(matches!(lazy.await.unwrap(), Err(Refusal::Overload)));
        let late = ask(200_000);
        assert!(matches!(late.await.unwrap(), Err(Refusal::Overload)));
        drop(free);
        for one in all.drain(..) {
            one.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn t6_large_petitions_take_more_of_the_queue_than_small_ones() {
        let (queue, free) = busy().await;
        let ask = |urgency, bytes| {
            let theirs = Arc::clone(&queue);
            tokio::spawn(async move { theirs.work((urgency, bytes), move || Ok(urgency)).await })
        };
        let large = ask(2, MAX_WAITING_BYTES / 2);
        let small = ask(1, MAX_WAITING_BYTES / 2);
        while queue.0.state().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        let first = ask(0, 25 * 1024);
        assert!(matches!(large.await.unwrap(), Err(Refusal::Overload)));
        drop(free);
        small.await.unwrap().unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(queue.0.state().bytes, 0);
    }

    #[tokio::test]
    async fn a_worker_outlives_a_bug() {
        let queue: Queue<()> = Queue::new(1).unwrap();
        let broken = queue.work((0, 1), || panic!("a bug")).await;
        assert!(matches!(broken, Err(Refusal::Broken)));
        queue.work((0, 1), || Ok(())).await.unwrap();
    }
}
