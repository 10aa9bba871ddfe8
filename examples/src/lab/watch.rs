//! While a lab runs: what changes in its folder reaches the pods' names and the control plane's generated objects, and
//! tokens are replaced at half their life.
//!
//! Policies are the control plane's own business: it watches the same folder.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Weak,
    thread,
    time::{Duration, Instant},
};

use douane_proto::resource::{Resource, ResourceError};

use crate::lab::{
    folder::{self, Stamps},
    plan::Plan,
    processes::say,
    running::{Inner, Lab, TOKEN_RENEWAL},
};

/// Watches, in a thread of its own, until the lab stops.
pub(super) fn start(lab: &Lab) {
    let lab = lab.weak();
    thread::spawn(move || run(&lab));
}

fn run(lab: &Weak<Inner>) {
    let mut renewed = Instant::now();
    let mut seen = Seen::default();
    loop {
        let Some(lab) = lab.upgrade().filter(|it| !it.stops()) else { return };
        if renewed.elapsed() >= TOKEN_RENEWAL {
            renewed = Instant::now();
            if let Err(error) = lab.write_tokens() {
                say(&format!("tokens cannot be replaced: {error:#}"));
            }
        }
        seen.look(&lab);
        drop(lab);
        thread::sleep(POLL);
    }
}

// A folder of a few files: as cheap as a watch of the kernel's, and works on every file system.
const POLL: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Seen {
    stamps: Option<Stamps>,
    /// The last objects of each file that could be read.
    good: BTreeMap<PathBuf, Vec<Resource>>,
    said_pods: bool,
}

impl Seen {
    fn look(&mut self, lab: &Inner) {
        // A folder that is away for a moment removes nothing.
        let Ok(stamps) = folder::stamps(lab.resources()) else { return };
        if self.stamps.as_ref() == Some(&stamps) {
            return;
        }
        self.good.retain(|file, _| stamps.contains_key(file));
        let changed = |file: &PathBuf| self.stamps.as_ref().and_then(|it| it.get(file)) != stamps.get(file);
        for file in stamps.keys() {
            match folder::read_file(file) {
                Ok(Ok(found)) => drop(self.good.insert(file.clone(), found)),
                // What cannot be read keeps its last good objects, here and in the control plane.
                Ok(Err(errors)) if changed(file) => lab.say_of_folder(&lines(&errors)),
                Err(error) if changed(file) => lab.say_of_folder(&format!("{error:#}")),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        self.stamps = Some(stamps);
        self.change(lab);
    }

    fn change(&mut self, lab: &Inner) {
        let resources = self.all();
        if Plan::pod_names(&resources) != lab.pod_names() && !self.said_pods {
            self.said_pods = true;
            say("pods came or went in the folder; the lab takes them at its next start");
        }
        if let Err(error) = lab.change_services(&resources) {
            say(&format!("the changed folder is not taken: {error:#}"));
        }
    }

    fn all(&self) -> Vec<Resource> {
        self.good.values().flatten().cloned().collect()
    }
}

fn lines(errors: &[ResourceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
