//! Log lines on their way out: handed to a thread of their own, so that a slow or blocked standard output never holds
//! up the data path. What does not fit is dropped and counted.
//!
//! Knows nothing of what a line says.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
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
    lines: Sender<Vec<u8>>,
    /// Bytes taken and not yet written.
    waiting: Arc<AtomicUsize>,
    lost: LostLines,
}

impl LineWriter {
    /// Starts the thread that writes to `sink`; it ends when all clones of the writer are gone.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn new(sink: impl Write + Send + 'static, lost: LostLines) -> io::Result<Self> {
        let (lines, taken) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (waits, loses) = (Arc::clone(&waiting), lost.clone());
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || write_all(sink, &taken, &waits, &loses))?;
        Ok(Self { lines, waiting, lost })
    }

    /// Takes a line (with its line feed), or drops and counts it when too much is waiting.
    pub fn send(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) <= MOST_WAITING && self.lines.send(line).is_ok() {
            return;
        }
        self.waiting.fetch_sub(length, Ordering::Relaxed);
        self.lost.0.inc();
    }

    /// Waits until all lines taken so far are written, for `limit` at most. Blocks its thread: for the end of a
    /// process only.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            thread::sleep(FLUSH_POLL);
        }
    }
}

/// For `tracing_subscriber`, which writes each event's line at once.
impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut sink: impl Write, lines: &Receiver<Vec<u8>>, waiting: &AtomicUsize, lost: &LostLines) {
    let mut torn = false;
    while let Ok(mut block) = lines.recv() {
        let mut count = 1;
        while block.len() < BLOCK
            && let Ok(line) = lines.try_recv()
        {
            block.extend_from_slice(&line);
            count += 1;
        }
        let taken = block.len();
        if torn {
            // What was cut off must not take the next line with it.
            block.insert(0, b'\n');
        }
        match sink.write_all(&block).and_then(|()| sink.flush()) {
            Ok(()) => torn = false,
            // A disk that is full may have taken a part of it.
            Err(_) => {
                torn = true;
                lost.0.inc_by(count);
            }
        }
        waiting.fetch_sub(taken, Ordering::Release);
        // Under load lines gather here instead of waking this thread one by one.
        thread::sleep(GATHER);
    }
}

// Bytes; some thousand lines.
const MOST_WAITING: usize = 4 << 20;
// Bytes of one write to the sink.
const BLOCK: usize = 64 << 10;
// Short for a human, long for a data path of 20,000 requests a second.
const GATHER: Duration = Duration::from_millis(2);
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
            writer.send(format!("{number}\n").into_bytes());
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
            writer.send(vec![b'x'; MOST_WAITING / 4]);
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
            writer.send(line.as_bytes().to_vec());
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
