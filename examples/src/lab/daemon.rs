//! The daemon: holds the running lab, does the job that it was started for, and takes the lab down in order.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
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
    thread::spawn({
        let lab = Arc::clone(&lab);
        move || end_on(signals, &lab)
    });
    match &spec.job {
        Job::Up => up(&spec, &lab),
        Job::Demo(demo) => play(&spec, &lab, *demo, script),
    }
}

/// What is played in a lab that runs. Did all come as expected?
pub type Script = fn(&Lab, Demo) -> Result<bool>;

/// `lab up`: stays until a signal.
fn up(spec: &Spec, held: &Mutex<Option<Lab>>) -> Result<ExitCode> {
    let began = Instant::now();
    let lab = start(spec, held, |lab| {
        // Spans go straight on to the operator's collector.
        let Some(socket) = lab.host_relay() else { return Ok(()) };
        relay::lead_out(SocketAddr::from((GATEWAY_V4, SINK_PORT)), socket.to_owned())
    })?;
    let pods: Vec<_> = lab.pods().iter().map(|pod| status::ask(pod.record())).collect();
    println!("{}", status::table(&pods).trim_end());
    println!(
        "ready in {:.1} s: {} pods; logs: {}",
        began.elapsed().as_secs_f64(),
        pods.len(),
        lab.logs().display()
    );
    println!("try:  lab exec POD -- CMD    lab status    Ctrl-C ends all");
    stay()
}

/// `lab demo`: plays the script, and stays only if it was asked to.
fn play(spec: &Spec, held: &Mutex<Option<Lab>>, demo: Demo, script: Script) -> Result<ExitCode> {
    let lab = start(spec, held, |_| Ok(()))?;
    let played = script(&lab, demo);
    if demo.stay && played.is_ok() {
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

fn end_on(signals: SigSet, held: &Mutex<Option<Lab>>) {
    let _ = signals.wait();
    say("ending");
    end(held);
    std::process::exit(0);
}
