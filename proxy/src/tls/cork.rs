//! When gathered bytes leave: once the runtime has nothing left to run, just before it would sleep, so that everything
//! that one wake-up produced for a connection leaves in one system call (measured: a third of the cost of a request).
//! A queue that never empties must not hold bytes back, so there is a bound in time too.
//!
//! The runtime calls [`park_flush`]; on a thread where it never did, `stream` sends at every flush instead.
//! Everything here belongs to one thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    mem,
    rc::Rc,
    time::Duration,
};

use tokio::time::Instant;

use super::wire::{Sent, Wire};

/// The longest that bytes wait while the runtime is too busy to sleep; checked whenever a connection is used, whatever
/// protects it.
pub(super) const LONGEST_WAIT: Duration = Duration::from_micros(200);

thread_local! {
    static HOOKED: Cell<bool> = const { Cell::new(false) };
    static DIRTY: RefCell<Dirty> = const { RefCell::new(Dirty { wires: Vec::new(), since: None }) };
}

struct Dirty {
    wires: Vec<Rc<RefCell<Wire>>>,
    since: Option<Instant>,
}

/// Sends what was gathered on this thread. To be called by `on_thread_park` of a `LocalRuntime`, and by nothing else.
pub fn park_flush() {
    HOOKED.set(true);
    flush_all();
}

/// Will [`park_flush`] be called before this thread sleeps?
pub(super) fn is_hooked() -> bool {
    HOOKED.get()
}

/// Sends what has waited too long. To be called before a wire is borrowed, and wherever else bytes are moved: what is in
/// plaintext keeps the runtime busy, too.
pub fn flush_overdue() {
    let overdue = DIRTY.with_borrow(|dirty| dirty.since.is_some_and(|since| since.elapsed() > LONGEST_WAIT));
    if overdue {
        flush_all();
    }
}

/// Lets what `wire` has gathered leave with the next [`park_flush`].
pub(super) fn mark(wire: &Rc<RefCell<Wire>>, state: &mut Wire) {
    if state.draining || mem::replace(&mut state.dirty, true) {
        return;
    }
    DIRTY.with_borrow_mut(|dirty| {
        dirty.since.get_or_insert_with(Instant::now);
        dirty.wires.push(Rc::clone(wire));
    });
}

/// Sends now. Where the socket is full, a task of its own waits until it is not.
pub(super) fn flush(wire: &Rc<RefCell<Wire>>, state: &mut Wire) {
    if state.draining {
        return;
    }
    match state.send() {
        Ok(Sent::All) => {}
        Ok(Sent::Blocked) => {
            state.draining = true;
            tokio::task::spawn_local(drain(Rc::clone(wire)));
            return;
        }
        Err(error) => state.fail(&error),
    }
    if let Some(writer) = state.writer.take() {
        writer.wake();
    }
}

fn flush_all() {
    let mut wires = DIRTY.with_borrow_mut(|dirty| {
        dirty.since = None;
        mem::take(&mut dirty.wires)
    });
    for wire in wires.drain(..) {
        let mut state = wire.borrow_mut();
        state.dirty = false;
        flush(&wire, &mut state);
    }
    // The list keeps its memory.
    DIRTY.with_borrow_mut(|dirty| {
        if dirty.wires.is_empty() {
            dirty.wires = wires;
        }
    });
}

async fn drain(wire: Rc<RefCell<Wire>>) {
    let sent = poll_fn(|cx| {
        let mut state = wire.borrow_mut();
        state.drainer = Some(cx.waker().clone());
        state.poll_send_all(cx)
    })
    .await;
    let mut state = wire.borrow_mut();
    state.draining = false;
    state.drainer = None;
    if let Err(error) = sent {
        state.fail(&error);
    }
    if let Some(writer) = state.writer.take() {
        writer.wake();
    }
}
