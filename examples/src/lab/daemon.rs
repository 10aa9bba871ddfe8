//! The daemon: holds the running lab, does the job that it was started for, and takes the lab down in order.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::lab::{
    addresses::{GATEWAY_V4, SINK_PORT},
    processes::say,
    relay,
    running::Lab,
    spec::{Demo, Job, Spec},
    status, watch,
};

/// Runs the daemon. The demo's script comes from above: the lab knows not what is tried in it.
///
/// # Errors
/// The lab cannot be brought up, or the script cannot be played; then nothing of it is left.
pub fn main(script: Script) -> Result<ExitCode> {
    let spec = Spec::from_environment()?;
    let lab: Arc<Mutex<Option<Lab>>> = Arc::default();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Before the first thread: each inherits it.
    signals.thread_block().context("hold signals back")?;
    let outcome = Arc::new(AtomicI32::new(INTERRUPTED));
    thread::spawn({
        let (lab, outcome) = (Arc::clone(&lab), Arc::clone(&outcome));
        move || end_on(signals, &lab, &outcome)
    });
    match &spec.job {
        Job::Up => up(&spec, &lab, &outcome),
        Job::Demo(demo) => play(&spec, &lab, &outcome, *demo, script),
    }
}

/// What is played in a lab that runs. Did all come as expected?
pub type Script = fn(&Lab, Demo) -> Result<bool>;

/// `lab up`: stays until a signal.
fn up(spec: &Spec, held: &Mutex<Option<Lab>>, outcome: &AtomicI32) -> Result<ExitCode> {
    let began = Instant::now();
    let lab = start(spec, held, |lab| {
        // Spans go straight on to the operator's collector.
        let Some(socket) = lab.host_relay() else { return Ok(()) };
        relay::lead_out(SocketAddr::from((GATEWAY_V4, SINK_PORT)), socket.to_owned())
    })?;
    let pods: Vec<_> = lab.pods().iter().map(|pod| status::ask(pod.record())).collect();
    println!("{}", status::table(&pods).trim_end());
    println!(
        "ready in {:.1} s: lab {}, {} pods; logs: {}",
        began.elapsed().as_secs_f64(),
        spec.id(),
        pods.len(),
        lab.logs().display()
    );
    println!("try:  lab exec POD -- CMD    lab status    Ctrl-C ends all");
    outcome.store(SUCCEEDED, Ordering::SeqCst);
    stay()
}

/// `lab demo`: plays the script, and stays only if it was asked to.
fn play(
    spec: &Spec,
    held: &Mutex<Option<Lab>>,
    outcome: &AtomicI32,
    demo: Demo,
    script: Script,
) -> Result<ExitCode> {
    let lab = start(spec, held, |_| Ok(()))?;
    let played = script(&lab, demo);
    if let (true, Ok(as_expected)) = (demo.stay, &played) {
        outcome.store(if *as_expected { SUCCEEDED } else { FAILED }, Ordering::SeqCst);
        stay();
    }
    end(held);
    Ok(if played? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(spec: &Spec, held: &Mutex<Option<Lab>>, begun: impl FnOnce(&Lab) -> Result<()>) -> Result<Lab> {
    let started = Lab::start(spec, |lab| {
        hold(held, lab);
        begun(lab)
    });
    match &started {
        Ok(lab) => watch::start(lab),
        Err(_) => end(held),
    }
    started
}

fn stay() -> ! {
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

fn end_on(signals: SigSet, held: &Mutex<Option<Lab>>, outcome: &AtomicI32) {
    let _ = signals.wait();
    // Before the end begins: a script that loses its lab is not to be believed.
    let outcome = outcome.load(Ordering::SeqCst);
    say("ending");
    end(held);
    std::process::exit(outcome);
}

// Exit codes. Who asks for the end of a lab that was not ready, or of a demo that was not through, got not what they
// came for: the last is what a shell makes of Ctrl-C.
const SUCCEEDED: i32 = 0;
const FAILED: i32 = 1;
const INTERRUPTED: i32 = 130;
