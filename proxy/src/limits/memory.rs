//! The memory that the kernel permits this process, and what of it is used: the control group's files, version 2 or 1.
//!
//! What could be given back at once (file pages that nobody uses) does not count, as the kernel takes it back before it
//! kills anybody.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::limits::pressure::Pressure;

/// How often it is looked at; a sidecar that is flooded fills some ten MiB a second.
const LOOK: Duration = Duration::from_millis(500);
/// Version 1 says "no limit" by a number near the greatest.
const NO_LIMIT: u64 = 1 << 60;

/// A control group with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    usage: PathBuf,
    stat: PathBuf,
    reclaimable: &'static str,
    limit: u64,
}

impl Memory {
    /// That of this process: `root` is `/sys/fs/cgroup`, `own` the text of `/proc/self/cgroup`. `None` without a limit.
    #[must_use]
    pub fn find(root: &Path, own: &str) -> Option<Self> {
        let groups = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?.trim_start_matches('/')))
        });
        // Inside a container the own group is mounted as the root, whatever its path is called outside.
        groups
            .flat_map(|(controllers, path)| {
                let two = controllers.is_empty();
                let one = controllers.split(',').any(|controller| controller == "memory");
                let base = if one { root.join("memory") } else { root.to_owned() };
                let folders = if one || two { vec![base.join(path), base] } else { Vec::new() };
                folders
                    .into_iter()
                    .filter_map(move |folder| if one { Self::one(&folder) } else { Self::two(&folder) })
            })
            .min_by_key(|memory| memory.limit)
    }

    fn two(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: number(&folder.join("memory.max"))?,
            usage: folder.join("memory.current"),
            stat: folder.join("memory.stat"),
            reclaimable: "inactive_file",
        })
    }

    fn one(folder: &Path) -> Option<Self> {
        Some(Self {
            limit: number(&folder.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?,
            usage: folder.join("memory.usage_in_bytes"),
            stat: folder.join("memory.stat"),
            reclaimable: "total_inactive_file",
        })
    }

    /// The pressure now; `None` where the kernel does not say.
    #[must_use]
    pub fn pressure(&self) -> Option<Pressure> {
        let used = number(&self.usage)?;
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse().ok());
        Some(Pressure::of(used.saturating_sub(reclaimable.unwrap_or(0)), self.limit))
    }
}

/// Looks at it again and again and tells everybody on this thread; for ever. `changed` hears of each change.
pub async fn watch(memory: Option<Memory>, changed: impl Fn(Pressure)) {
    let Some(memory) = memory else { return std::future::pending().await };
    loop {
        let now = memory.pressure().unwrap_or_default();
        if now.tell() != now {
            changed(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

// `max` is no number: no limit.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("douane-memory-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let folder = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                let file = folder.0.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_two_is_read_without_what_could_be_given_back() {
        let folder = Folder::with(&[
            ("pod/memory.max", "1000\n"),
            ("pod/memory.current", "960\n"),
            ("pod/memory.stat", "anon 800\ninactive_file 100\nactive_file 60\n"),
        ]);

        let memory = Memory::find(&folder.0, "0::/pod\n").unwrap();

        assert_eq!(memory.pressure(), Some(Pressure::Tight));
    }

    #[test]
    fn version_one_is_read_from_its_own_hierarchy() {
        let folder = Folder::with(&[
            ("memory/pod/memory.limit_in_bytes", "1000\n"),
            ("memory/pod/memory.usage_in_bytes", "950\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);

        let memory = Memory::find(&folder.0, "7:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n").unwrap();

        assert_eq!(memory.pressure(), Some(Pressure::Full));
    }

    #[test]
    fn in_a_container_the_root_is_the_own_group() {
        let folder = Folder::with(&[("memory.max", "1000"), ("memory.current", "10")]);

        let memory = Memory::find(&folder.0, "0::/kubepods/pod7/box\n").unwrap();

        assert_eq!(memory.pressure(), Some(Pressure::Calm));
    }

    #[test]
    fn without_a_limit_there_is_no_pressure() {
        let folder = Folder::with(&[("memory.max", "max\n"), ("memory.current", "10")]);

        assert_eq!(Memory::find(&folder.0, "0::/\n"), None);
        assert_eq!(Memory::find(&folder.0, ""), None);
    }
}
