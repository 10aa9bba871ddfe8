//! Log lines on their way out: handed to a thread of their own, so that a slow or blocked standard output never holds
//! up the data path. What does not fit is dropped and counted.
//!
//! Knows nothing of what a line says.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;

/// How many lines were lost; shared by all writers of a process and its metrics.
#[derive(Debug, Clone, Default)]
pub struct LostLines(pub(crate) Counter);

/// Takes whole lines and never waits.
#[derive(Debug, Clone)]
pub struct LineWriter {
    door: Arc<Door>,
    lost: LostLines,
}

// When the last writer has gone, the thread ends.
#[derive(Debug)]
struct Door(Arc<Desk>);

/// Where lines lie until the thread fetches all of them at once. The lock is held for the copy of one line at most.
#[derive(Debug, Default)]
struct Desk {
    lines: Mutex<Lines>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    // Bytes that were fetched and are not yet written.
    fetched: usize,
    // Only then a line wakes the thread: a system call.
    asleep: bool,
    // Somebody waits for the lines to be written.
    urgent: bool,
    closed: bool,
}

impl LineWriter {
    /// Starts the thread that writes to `sink`; it ends when all clones of the writer are gone.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn new(sink: impl Write + Send + 'static, lost: LostLines) -> io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let (fetched_from, loses) = (Arc::clone(&desk), lost.clone());
        thread::Builder::new()
            .name("log-writer".to_owned())
            .stack_size(STACK)
            .spawn(move || write_all(sink, &fetched_from, &loses))?;
        Ok(Self { door: Arc::new(Door(desk)), lost })
    }

    /// Takes a line (with its line feed), or drops and counts it when too much is waiting.
    pub fn send(&self, line: &[u8]) {
        let desk = &self.door.0;
        let mut lines = desk.lines();
        if lines.left() + line.len() > MOST_WAITING {
            self.lost.0.inc();
            return;
        }
        lines.waiting.extend_from_slice(line);
        if mem::take(&mut lines.asleep) {
            drop(lines);
            desk.news.notify_one();
        }
    }

    /// Waits until all lines taken so far are written, for `limit` at most. Blocks its thread: for the end of a
    /// process only.
    pub fn flush(&self, limit: Duration) {
        let (desk, deadline) = (&self.door.0, Instant::now() + limit);
        let mut lines = desk.lines();
        while lines.left() > 0 && Instant::now() < deadline {
            lines.urgent = true;
            drop(lines);
            desk.news.notify_one();
            thread::sleep(FLUSH_POLL);
            lines = desk.lines();
        }
    }
}

impl Lines {
    fn left(&self) -> usize {
        self.waiting.len() + self.fetched
    }
}

impl Desk {
    // What a thread that panicked left is whole lines, or one's beginning: nothing to fear.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // All lines that wait, into `block`; waits for the first one. False at the end.
    fn fetch(&self, block: &mut Vec<u8>) -> bool {
        let waits = |lines: &mut Lines| {
            lines.asleep = lines.waiting.is_empty() && !lines.closed;
            lines.asleep
        };
        let lines = self.news.wait_while(self.lines(), waits);
        let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut lines.waiting, block);
        lines.fetched = block.len();
        !block.is_empty()
    }

    // Lets lines gather, which under load would wake the thread one by one.
    fn rest(&self) {
        let mut lines = self.lines();
        lines.fetched = 0;
        let waits = |lines: &mut Lines| !mem::take(&mut lines.urgent) && !lines.closed;
        drop(self.news.wait_timeout_while(lines, GATHER, waits));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.lines().closed = true;
        self.0.news.notify_one();
    }
}

/// For `tracing_subscriber`, which writes each event's line at once.
impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut sink: impl Write, desk: &Desk, lost: &LostLines) {
    let (mut lines, mut torn) = (Vec::new(), false);
    while desk.fetch(&mut lines) {
        let mut rest = lines.as_slice();
        while !rest.is_empty() {
            let (block, others) = rest.split_at(whole_lines(rest));
            rest = others;
            // What was cut off must not take the next line with it.
            let mended = if torn { sink.write_all(b"\n") } else { Ok(()) };
            match mended.and_then(|()| sink.write_all(block)).and_then(|()| sink.flush()) {
                Ok(()) => torn = false,
                // A disk that is full may have taken a part of it.
                Err(_) => {
                    torn = true;
                    lost.0.inc_by(block.iter().filter(|byte| **byte == b'\n').count() as u64);
                }
            }
        }
        lines.clear();
        if lines.capacity() > 4 * BLOCK {
            // After a flood.
            lines = Vec::new();
        }
        desk.rest();
    }
}

// Of what lies there as much as one write takes, in whole lines; at least one.
fn whole_lines(lines: &[u8]) -> usize {
    let (most, others) = lines.split_at(lines.len().min(BLOCK));
    let is_end = |byte: &u8| *byte == b'\n';
    match most.iter().rposition(is_end) {
        Some(end) => end + 1,
        None => others.iter().position(is_end).map_or(lines.len(), |end| most.len() + end + 1),
    }
}

// Bytes; some thousand lines.
const MOST_WAITING: usize = 4 << 20;
// Bytes of one write to the sink.
const BLOCK: usize = 64 << 10;
// Bytes: it calls `write` and little else.
const STACK: usize = 128 << 10;
// Short for a human, long for a data path of 20,000 requests a second, a megabyte of lines: each wake-up of the thread
// interrupts it.
const GATHER: Duration = Duration::from_millis(50);
const FLUSH_POLL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Keeps what is written; writes wait while the gate is shut.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        open: bool,
        written: Vec<u8>,
    }

    impl Gate {
        fn open(&self) {
            self.0.0.lock().unwrap().open = true;
            self.0.1.notify_all();
        }

        fn written(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |state| !state.open).unwrap();
            state.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let gate = Gate::default();
        gate.open();
        let writer = LineWriter::new(gate.clone(), LostLines::default()).unwrap();

        for number in 0..1000 {
            writer.send(format!("{number}\n").as_bytes());
        }
        writer.flush(Duration::from_secs(5));

        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(gate.written(), expected);
    }

    #[test]
    fn a_blocked_output_costs_lines_not_time() {
        let (gate, lost) = (Gate::default(), LostLines::default());
        let writer = LineWriter::new(gate.clone(), lost.clone()).unwrap();

        let started = Instant::now();
        for _ in 0..10 {
            writer.send(&vec![b'x'; MOST_WAITING / 4]);
        }
        let took = started.elapsed();

        assert_eq!(lost.0.get(), 6);
        assert!(took < Duration::from_secs(2), "{took:?}");
        gate.open();
        writer.flush(Duration::from_secs(5));
        assert_eq!(gate.written().len(), MOST_WAITING);
    }

    /// Takes `room` bytes, then none until it is emptied: a disk.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let fits = bytes.len().min(disk.0);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0 -= fits;
            disk.1.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cut_takes_no_other_line_with_it() {
        let disk = Disk(Arc::new(Mutex::new((9, Vec::new()))));
        let lost = LostLines::default();
        let writer = LineWriter::new(disk.clone(), lost.clone()).unwrap();
        let send = |line: &str| {
            writer.send(line.as_bytes());
            writer.flush(Duration::from_secs(5));
        };

        send("first\n");
        send("second\n");
        disk.0.lock().unwrap().0 = 100;
        send("third\n");
        send("fourth\n");

        let written = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(written.lines().collect::<Vec<_>>(), ["first", "sec", "third", "fourth"]);
        assert_eq!(lost.0.get(), 1);
    }
}
