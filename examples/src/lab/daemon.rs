//! The daemon: holds the running lab, does the job that it was started for, and takes the lab down in order.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::lab::{
    processes::say,
    running::Lab,
    spec::{Job, Spec},
    status,
};

/// Runs the daemon.
///
/// # Errors
/// The lab cannot be brought up; then nothing of it is left.
pub fn main() -> Result<ExitCode> {
    let spec = Spec::from_environment()?;
    let lab: Arc<Mutex<Option<Lab>>> = Arc::default();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Before the first thread: each inherits it.
    signals.thread_block().context("hold signals back")?;
    thread::spawn({
        let lab = Arc::clone(&lab);
        move || end_on(signals, &lab)
    });
    match &spec.job {
        Job::Up => up(&spec, &lab),
    }
}

/// `lab up`: stays until a signal.
fn up(spec: &Spec, held: &Mutex<Option<Lab>>) -> Result<ExitCode> {
    let began = Instant::now();
    let lab = Lab::start(spec, |begun| {
        hold(held, begun);
        Ok(())
    });
    let lab = match lab {
        Ok(lab) => lab,
        Err(error) => {
            end(held);
            return Err(error);
        }
    };
    let pods: Vec<_> = lab.pods().iter().map(|pod| status::ask(pod.record())).collect();
    println!("{}", status::table(&pods).trim_end());
    println!(
        "ready in {:.1} s: {} pods; logs: {}",
        began.elapsed().as_secs_f64(),
        pods.len(),
        lab.logs().display()
    );
    println!("try:  lab exec POD -- CMD    lab status    Ctrl-C ends all");
    loop {
        thread::park();
    }
}

fn hold(held: &Mutex<Option<Lab>>, lab: &Lab) {
    *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lab.clone());
}

fn end(held: &Mutex<Option<Lab>>) {
    let lab = held.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(lab) = lab {
        lab.stop();
    }
}

fn end_on(signals: SigSet, held: &Mutex<Option<Lab>>) {
    let _ = signals.wait();
    say("ending");
    end(held);
    std::process::exit(0);
}
