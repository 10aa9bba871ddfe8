//! The same with a real process that is really killed: this test runs itself again as the victim, which ends by a
//! signal at a chosen step; what it had told before (a line for each bundle and certificate) must hold afterwards.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::KeyPair;

use super::{
    Authority, NOW, Setup, at,
    crash::{ground, stored},
    csr, domain, web,
};
use crate::{
    authority::Force,
    state::{Disk, StateFolder},
};

const FOLDER: &str = "DOUANE_TEST_VICTIM_FOLDER";
const STEPS: &str = "DOUANE_TEST_VICTIM_STEPS";
/// Every step of a start, a rotation and two certificates.
const MOST_STEPS: usize = 60;

#[test]
fn t18_a_killed_process_leaves_a_state_that_opens_and_contradicts_nothing_it_said() {
    if let (Ok(folder), Ok(steps)) = (std::env::var(FOLDER), std::env::var(STEPS)) {
        return victim(folder.as_ref(), steps.parse().unwrap());
    }
    for steps in 0..MOST_STEPS {
        let home = ground();
        let folder = home.path().join("state");
        let name = "authority::tests::killed::t18_a_killed_process_leaves_a_state_that_opens_and_contradicts_nothing_it_said";
        let victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(FOLDER, &folder)
            .env(STEPS, steps.to_string())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&victim.stdout).into_owned();
        let authority =
            open(&folder, Disk::default()).unwrap_or_else(|error| panic!("killed at {steps}: {error}"));
        let bundle = authority.bundle().borrow().clone();
        let durable = stored(&folder);
        for line in told.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["published", epoch, sequence] = words.as_slice() {
                let place = (epoch.parse().unwrap(), sequence.parse().unwrap());
                assert!(bundle.place() >= place, "killed at {steps}: {place:?} was published");
            }
            if let ["issued", root] = words.as_slice() {
                assert!(durable.slots.iter().any(|slot| slot.id == *root), "killed at {steps}: lost {root}");
            }
        }
        assert!(authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW + 20)).is_ok());
        if victim.status.success() {
            assert!(told.contains("issued") && steps > 20, "{told}");
            return;
        }
    }
    panic!("the victim never came to its end");
}

fn open(folder: &Path, disk: Disk) -> Result<Authority, crate::authority::OpenError> {
    let mut setup = Setup::new(domain(), Duration::from_secs(60));
    setup.disk = disk;
    Authority::open_with(&StateFolder::new(folder), setup, at(NOW))
}

fn victim(folder: &Path, steps: usize) {
    let left = Arc::new(AtomicUsize::new(steps));
    let disk = Disk::told(move |_, _| {
        if left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::abort();
        }
        Ok(())
    });
    let say = |line: String| {
        let mut out = std::io::stdout();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    };
    let authority = open(folder, disk).unwrap();
    let publish = || {
        let (epoch, sequence) = authority.bundle().borrow().place();
        say(format!("published {epoch} {sequence}"));
    };
    publish();
    for force in [Force::No, Force::Yes] {
        let key = KeyPair::generate().unwrap();
        say(format!("issued {}", authority.issue(&csr(&key), &web(), None, at(NOW)).unwrap().authority));
        authority.rotate_root(force, at(NOW)).unwrap();
        publish();
    }
    let key = KeyPair::generate().unwrap();
    say(format!("issued {}", authority.issue(&csr(&key), &web(), None, at(NOW)).unwrap().authority));
}
