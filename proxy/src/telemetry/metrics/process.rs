//! What the process costs, read from `/proc` when somebody asks, under the names that every Prometheus client uses.

use std::{fs, sync::atomic::AtomicU64};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, gauge::Gauge},
};

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // What cannot be read is not told.
        if let Some(seconds) = processor_time(&read("stat")) {
            let spent = Counter::<f64, AtomicU64>::default();
            spent.inc_by(seconds);
            tell(&mut encoder, "process_cpu_seconds", "Processor time used", &spent)?;
        }
        let status = read("status");
        if let Some(kibibytes) = line_of(&status, "VmRSS:") {
            let bytes = gauge(kibibytes.saturating_mul(1024));
            tell(&mut encoder, "process_resident_memory_bytes", "Memory in use", &bytes)?;
        }
        if let Some(threads) = line_of(&status, "Threads:") {
            tell(&mut encoder, "process_threads", "Threads", &gauge(threads))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = gauge(i64::try_from(open.count()).unwrap_or(i64::MAX));
            tell(&mut encoder, "process_open_fds", "Open descriptors", &open)?;
        }
        if let Some(most) = line_of(&read("limits"), "Max open files") {
            tell(&mut encoder, "process_max_fds", "Descriptors that may be open", &gauge(most))?;
        }
        Ok(())
    }
}

// Seconds. proc(5): user and system time are the 14th and 15th field; the second is the program's name in brackets, which
// may hold anything.
fn processor_time(stat: &str) -> Option<f64> {
    let (_, from_third) = stat.rsplit_once(") ")?;
    let mut fields = from_third.split(' ').skip(14 - 3);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

// The first number behind this word.
fn line_of(text: &str, word: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

fn read(file: &str) -> String {
    fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default()
}

fn gauge(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn tell(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

// USER_HZ: what the kernel shows to processes is counted in hundredths of a second on every architecture that we run on.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_program_is_called() {
        let line = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 999 1000000 42";

        assert_eq!(processor_time(line), Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_is_not_told() {
        for line in ["", "7 (a", "7 (a) S 1 2", "7 (a) S x x x x x x x x x x x x x x x"] {
            assert_eq!(processor_time(line), None, "{line:?}");
        }
        let limits = "Max open files            1024                 4096                 files";
        assert_eq!(line_of(limits, "Max open files"), Some(1024));
        assert_eq!(line_of("Max open files   unlimited", "Max open files"), None);
    }
}
